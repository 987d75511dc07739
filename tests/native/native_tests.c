/* The scalar C under AddressSanitizer and UndefinedBehaviorSanitizer: every export with random
 * valid and with invalid arguments, on heap blocks of exactly the bytes the contract names, so that
 * one byte read or written too far is seen. What the results must be is checked by the JavaScript
 * tests, against float64; here only what needs no reference. */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fused.h"
#include "native_tests.h"

#define MAX_TYPE 256
#define ROUNDS 12

/* Asked by AddressSanitizer: a refused allocation is NULL, as everywhere, and no crash. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

static unsigned n_checks, n_failures;

void check(bool ok, const char *format, ...) {
  n_checks++;
  if (ok || ++n_failures > 20) return;
  va_list args;
  va_start(args, format);
  fputs("FAIL: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
}

static uint64_t random_state = 0x9e3779b97f4a7c15u;

uint32_t random_u32(void) { /* xorshift64* by Sebastiano Vigna, public domain */
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 32);
}

uint32_t random_between(uint32_t low, uint32_t high) {
  return low + random_u32() % (high - low + 1);
}

void *must_malloc(size_t bytes) {
  void *p = malloc(bytes);
  if (p) return p;
  fputs("FAIL: out of memory\n", stderr);
  exit(2);
}

void fill_random(uint8_t *bytes, size_t n_bytes) {
  for (size_t i = 0; i < n_bytes; i++) bytes[i] = (uint8_t)random_u32();
}

/* Activations of every kind: ordinary, zero, subnormal, the largest, and (where allowed) Inf and
 * NaN. */
float random_activation(bool finite) {
  float unit = (float)random_u32() / 4294967296.0f - 0.5f;
  switch (random_u32() % (finite ? 8 : 10)) {
  case 0:
    return 0.0f;
  case 1:
    return -0.0f;
  case 2:
    return unit * 1e-38f * 1e-4f;
  case 3:
    return unit * 3.4e38f;
  case 8:
    return unit < 0 ? -INFINITY : INFINITY;
  case 9:
    return NAN;
  default:
    return unit;
  }
}

typedef struct {
  int32_t type;
  uint32_t n_tokens, n_rows, n_cols;
  size_t w_bytes;
  uint8_t *w;
  float *x, *y, *values;
} job;

static job make_job(int32_t type, uint32_t n_tokens, uint32_t n_rows, uint32_t n_blocks,
                    bool finite) {
  job j = {.type = type,
           .n_tokens = n_tokens,
           .n_rows = n_rows,
           .n_cols = n_blocks * fm_type_block_values(type)};
  j.w_bytes = (size_t)n_rows * n_blocks * fm_type_block_bytes(type);
  size_t n_x = (size_t)n_tokens * j.n_cols, n_values = (size_t)n_rows * j.n_cols;
  j.w = must_malloc(j.w_bytes);
  j.x = must_malloc(n_x * sizeof *j.x);
  j.y = must_malloc((size_t)n_tokens * n_rows * sizeof *j.y);
  j.values = must_malloc(n_values * sizeof *j.values);
  fill_random(j.w, j.w_bytes);
  for (size_t i = 0; i < n_x; i++) j.x[i] = random_activation(finite);
  return j;
}

static void free_job(job *j) {
  free(j->w);
  free(j->x);
  free(j->y);
  free(j->values);
}

/* With f32 activations the products of the dequantised values are rounded once, their sum less than
 * n_cols times. */
static void check_f32_product(const job *j) {
  for (uint32_t t = 0; t < j->n_tokens; t++) {
    for (uint32_t r = 0; r < j->n_rows; r++) {
      double sum = 0, magnitude = 0;
      for (uint32_t c = 0; c < j->n_cols; c++) {
        double product =
            (double)j->x[(size_t)t * j->n_cols + c] * (double)j->values[(size_t)r * j->n_cols + c];
        sum += product;
        magnitude += fabs(product);
      }
      if (!(magnitude < 3e38)) continue; /* a partial sum may leave f32 */
      double got = (double)j->y[(size_t)t * j->n_rows + r];
      double bound = (j->n_cols + 1) * (0x1p-24 * magnitude + 0x1p-149);
      check(fabs(got - sum) <= bound, "type %d, %u x %u x %u: y[%u][%u] = %g, not %g (bound %g)",
            j->type, j->n_tokens, j->n_rows, j->n_cols, t, r, got, sum, bound);
    }
  }
}

static void test_valid(int32_t type) {
  for (uint32_t round = 0; round < ROUNDS; round++) {
    /* The first rounds are the small shapes, one crosses a panel of 2048 columns, one a block of
     * 128 tokens. */
    uint32_t values = fm_type_block_values(type),
             n_blocks = random_between(1, values == 256 ? 4 : 40);
    uint32_t n_tokens = random_between(1, 9), n_rows = random_between(1, 9);
    if (round == 0) n_blocks = n_tokens = n_rows = 1;
    if (round == 1) n_blocks = 2048 / values + 3;
    if (round == 2) n_tokens = 130, n_blocks = 1;
    job j = make_job(type, n_tokens, n_rows, n_blocks, round % 2 == 0);
    memset(j.values, 0x5a, (size_t)n_rows * j.n_cols * sizeof *j.values);
    check(fm_dequantize_rows(type, j.w, j.values, n_rows, j.n_cols) == FM_OK, "dequantize type %d",
          type);
    for (int32_t activation = FM_ACT_F32; activation <= FM_ACT_INT8; activation++) {
      check(fm_served_by(type, activation) >= 0, "type %d, activation %d is served", type,
            activation);
      int32_t status = fused_matmul(type, j.w, j.x, j.y, n_tokens, n_rows, j.n_cols, activation);
      check(status == FM_OK, "type %d, activation %d: status %d", type, activation, status);
      if (activation == FM_ACT_F32) check_f32_product(&j);
      size_t y_bytes = (size_t)n_tokens * n_rows * sizeof *j.y;
      float *again = must_malloc(y_bytes);
      fused_matmul(type, j.w, j.x, again, n_tokens, n_rows, j.n_cols, activation);
      check(memcmp(again, j.y, y_bytes) == 0, "type %d, activation %d: not the same bits twice",
            type, activation);
      free(again);
    }
    free_job(&j);
  }
}

/* A call that must be refused with a status, and leave y as it was. */
typedef struct {
  int32_t type;
  const void *w;
  const float *x;
  float *y;
  uint32_t n_tokens, n_rows, n_cols;
  int32_t activation;
} matmul_call;

static void rejects(matmul_call c, int32_t status, const char *what) {
  int32_t got = fused_matmul(c.type, c.w, c.x, c.y, c.n_tokens, c.n_rows, c.n_cols, c.activation);
  check(got == status, "type %d: fused_matmul with %s gave %d, not %d", c.type, what, got, status);
}

static void rejects_rows(matmul_call c, int32_t status, const char *what) {
  int32_t got = fm_dequantize_rows(c.type, c.w, c.y, c.n_rows, c.n_cols);
  check(got == status, "type %d: fm_dequantize_rows with %s gave %d, not %d", c.type, what, got,
        status);
}

/* Every argument spoiled on its own. */
#define SPOILED(field, value, status, what)                                                        \
  do {                                                                                             \
    matmul_call c = valid;                                                                         \
    c.field = (value);                                                                             \
    rejects(c, status, what);                                                                      \
  } while (0)
#define SPOILED_ROWS(field, value, status, what)                                                   \
  do {                                                                                             \
    matmul_call c = valid;                                                                         \
    c.field = (value);                                                                             \
    rejects_rows(c, status, what);                                                                 \
  } while (0)

static void test_invalid(int32_t type) {
  uint32_t values = fm_type_block_values(type), alignment = fm_type_alignment(type);
  job j = make_job(type, 2, 3, 2, true);
  size_t n_y = (size_t)j.n_rows * j.n_cols; /* enough for either call */
  float *y = must_malloc(n_y * sizeof *y), *before = must_malloc(n_y * sizeof *y);
  fill_random((uint8_t *)y, n_y * sizeof *y);
  memcpy(before, y, n_y * sizeof *y);
  matmul_call valid = {type, j.w, j.x, y, j.n_tokens, j.n_rows, j.n_cols, FM_ACT_INT16};

  SPOILED(type, -1, FM_ERR_TYPE, "type -1");
  SPOILED(type, INT32_MAX, FM_ERR_TYPE, "type INT32_MAX");
  SPOILED(type, INT32_MIN, FM_ERR_TYPE, "type INT32_MIN");
  SPOILED(activation, -1, FM_ERR_ACTIVATION, "activation -1");
  SPOILED(activation, 3, FM_ERR_ACTIVATION, "activation 3");
  SPOILED(n_tokens, 0, FM_ERR_SHAPE, "no tokens");
  SPOILED(n_rows, 0, FM_ERR_SHAPE, "no rows");
  SPOILED(n_cols, 0, FM_ERR_SHAPE, "no columns");
  if (values > 1) SPOILED(n_cols, j.n_cols + 1, FM_ERR_SHAPE, "a part of a block");
  if (values > 1) SPOILED_ROWS(n_cols, j.n_cols - 1, FM_ERR_SHAPE, "a part of a block");
  SPOILED(w, NULL, FM_ERR_RANGE, "w = NULL");
  SPOILED(x, NULL, FM_ERR_RANGE, "x = NULL");
  SPOILED(y, NULL, FM_ERR_RANGE, "y = NULL");
  SPOILED(w, (const void *)(UINTPTR_MAX - 3), FM_ERR_RANGE, "w past the address space");
  SPOILED(x, (const float *)(UINTPTR_MAX - 3), FM_ERR_RANGE, "x past the address space");
  SPOILED(y, (float *)(UINTPTR_MAX - 3), FM_ERR_RANGE, "y past the address space");
  if (alignment > 1) SPOILED(w, j.w + 1, FM_ERR_ALIGN, "w misaligned");
  SPOILED(x, (const float *)((uintptr_t)j.x + 2), FM_ERR_ALIGN, "x misaligned");
  SPOILED(y, (float *)((uintptr_t)y + 1), FM_ERR_ALIGN, "y misaligned");
  SPOILED(y, j.x, FM_ERR_OVERLAP, "y = x");
  SPOILED(y, (float *)((uintptr_t)j.w & ~(uintptr_t)3), FM_ERR_OVERLAP, "y = w");
  SPOILED_ROWS(type, -1, FM_ERR_TYPE, "type -1");
  SPOILED_ROWS(n_rows, 0, FM_ERR_SHAPE, "no rows");
  SPOILED_ROWS(n_cols, 0, FM_ERR_SHAPE, "no columns");
  SPOILED_ROWS(w, NULL, FM_ERR_RANGE, "w = NULL");
  SPOILED_ROWS(y, NULL, FM_ERR_RANGE, "y = NULL");
  SPOILED_ROWS(y, (float *)((uintptr_t)y + 2), FM_ERR_ALIGN, "y misaligned");
  SPOILED_ROWS(y, (float *)((uintptr_t)j.w & ~(uintptr_t)3), FM_ERR_OVERLAP, "y = w");

  /* Products beyond 64 bits, the native address space. */
  matmul_call huge = valid;
  huge.n_tokens = huge.n_rows = UINT32_MAX;
  huge.n_cols = UINT32_MAX / values * values;
  rejects(huge, FM_ERR_SHAPE, "every dimension at its largest");
  rejects_rows(huge, FM_ERR_SHAPE, "every dimension at its largest");

  check(memcmp(y, before, n_y * sizeof *y) == 0, "type %d: a refused call wrote to y", type);
  free(before);
  free(y);
  free_job(&j);
}

/* Whatever f32 holds becomes blocks of finite scales. */
static void test_quantize(int32_t type) {
  uint32_t values = fm_type_block_values(type), n_quantized = 0;
  for (uint32_t round = 0; round < ROUNDS; round++) {
    uint32_t n_rows = random_between(1, 4), n_cols = random_between(1, 4) * values;
    size_t n_x = (size_t)n_rows * n_cols, w_bytes = n_x / values * fm_type_block_bytes(type);
    float *x = must_malloc(n_x * sizeof *x), *back = must_malloc(n_x * sizeof *back);
    uint8_t *w = must_malloc(w_bytes);
    for (size_t i = 0; i < n_x; i++) x[i] = random_activation(round % 2 == 0);
    int32_t status = fm_quantize_rows(type, x, w, n_rows, n_cols);
    check(status == FM_OK || status == FM_ERR_TYPE, "type %d: fm_quantize_rows gave %d", type,
          status);
    if (status == FM_OK) {
      n_quantized++;
      check(fm_dequantize_rows(type, w, back, n_rows, n_cols) == FM_OK, "type %d: dequantize",
            type);
      for (size_t i = 0; i < n_x; i++) {
        check(isfinite(back[i]), "type %d: %g became %g", type, (double)x[i], (double)back[i]);
      }
      check(fm_quantize_rows(type, NULL, w, n_rows, n_cols) == FM_ERR_RANGE, "type %d: x = NULL",
            type);
      check(fm_quantize_rows(type, x, NULL, n_rows, n_cols) == FM_ERR_RANGE, "type %d: w = NULL",
            type);
      check(fm_quantize_rows(type, x, w, 0, n_cols) == FM_ERR_SHAPE, "type %d: no rows", type);
      check(fm_quantize_rows(type, x, w, n_rows, n_cols + 1) == FM_ERR_SHAPE,
            "type %d: a part of a block", type);
      check(fm_quantize_rows(type, x, (uint8_t *)x, n_rows, n_cols) == FM_ERR_OVERLAP,
            "type %d: w = x", type);
      check(fm_quantize_rows(type, (const float *)((uintptr_t)x + 1), w, n_rows, n_cols) ==
                FM_ERR_ALIGN,
            "type %d: x misaligned", type);
    }
    free(w);
    free(back);
    free(x);
  }
  check(n_quantized == 0 || n_quantized == ROUNDS, "type %d: quantised %u of %d times", type,
        n_quantized, ROUNDS);
}

#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#endif
static void test_legacy(void) {
  for (uint32_t round = 0; round < ROUNDS; round++) {
    uint32_t n_tokens = random_between(1, 5), n_rows = random_between(1, 5),
             n_blocks = random_between(1, 3);
    uint32_t n_cols = 256 * n_blocks;
    size_t w_bytes = (size_t)n_rows * n_blocks * 140, n_scales = (size_t)n_rows * n_blocks;
    size_t n_x = (size_t)n_tokens * n_cols;
    uint8_t *w = must_malloc(w_bytes);
    float *scales = must_malloc(n_scales * sizeof *scales), *x = must_malloc(n_x * sizeof *x);
    float *y = must_malloc((size_t)n_tokens * n_rows * sizeof *y);
    fill_random(w, w_bytes);
    for (size_t i = 0; i < n_scales; i++) scales[i] = random_activation(false);
    for (size_t i = 0; i < n_x; i++) x[i] = random_activation(false);
    check(fused_dequant_matmul_q4k_legacy(w, scales, x, y, n_tokens, n_rows, n_cols) == FM_OK,
          "legacy");
    check(fused_dequant_matmul_q4k_legacy(NULL, scales, x, y, n_tokens, n_rows, n_cols) ==
              FM_ERR_RANGE,
          "w = NULL");
    check(fused_dequant_matmul_q4k_legacy(w, NULL, x, y, n_tokens, n_rows, n_cols) == FM_ERR_RANGE,
          "scales = NULL");
    check(fused_dequant_matmul_q4k_legacy(w, scales, x, x, n_tokens, n_rows, n_cols) ==
              FM_ERR_OVERLAP,
          "y = x");
    check(fused_dequant_matmul_q4k_legacy(w, scales, x, y, 0, n_rows, n_cols) == FM_ERR_SHAPE,
          "no tokens");
    check(fused_dequant_matmul_q4k_legacy(w, scales, x, y, n_tokens, n_rows, 128) == FM_ERR_SHAPE,
          "half a block");
    free(y);
    free(x);
    free(scales);
    free(w);
  }
}
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic pop
#endif

static void test_module(void) {
  uint32_t version = (uint32_t)FM_VERSION_MAJOR << 16 | (uint32_t)FM_VERSION_MINOR << 8 |
                     (uint32_t)FM_VERSION_PATCH;
  check(fm_version() == version, "version %x", fm_version());
  check(fm_isa() == FM_ISA_SCALAR, "the native build is scalar, not %d", fm_isa());
  check(fm_select(FM_ISA_SIMD128, FM_DOT_I16) == FM_ERR_ISA, "simd128 is not in the native build");
  check(fm_select(FM_ISA_SCALAR, 2) == FM_ERR_ISA, "dot 2 is none");
  check(fm_select(-1, FM_DOT_I16) == FM_ERR_ISA, "instruction set -1 is none");
  check(fm_select(FM_ISA_SCALAR, FM_DOT_I32) == FM_OK, "scalar is there");
  check(fm_isa() == FM_ISA_SCALAR, "scalar is chosen");

  check(fm_alloc(0) == NULL, "no bytes");
  check(fm_alloc(SIZE_MAX) == NULL, "SIZE_MAX bytes");
  check(fm_alloc(SIZE_MAX - 64) == NULL, "SIZE_MAX - 64 bytes");
  check(fm_alloc(SIZE_MAX / 2) == NULL, "half of SIZE_MAX bytes");
  fm_free(NULL);
  for (size_t bytes = 1; bytes < 300; bytes += 7) {
    uint8_t *p = fm_alloc(bytes);
    check(p != NULL && (uintptr_t)p % 64 == 0, "fm_alloc(%zu) = %p", bytes, (void *)p);
    memset(p, 0xff, bytes);
    fm_free(p);
  }
}

int main(void) {
  unsigned n_types = 0;
  test_module();
  test_legacy();
  for (int32_t type = -2; type < MAX_TYPE; type++) {
    uint32_t values = fm_type_block_values(type), bytes = fm_type_block_bytes(type),
             alignment = fm_type_alignment(type);
    if (values == 0) {
      check(bytes == 0 && alignment == 0 && fm_served_by(type, FM_ACT_F32) == -1, "type %d is none",
            type);
      continue;
    }
    n_types++;
    check(bytes > 0 && alignment > 0 && (alignment & (alignment - 1)) == 0 &&
              bytes % alignment == 0,
          "type %d: %u values in %u bytes, alignment %u", type, values, bytes, alignment);
    check(fm_served_by(type, -1) == -1 && fm_served_by(type, 3) == -1,
          "type %d: modes -1 and 3 are none", type);
    test_valid(type);
    test_invalid(type);
    test_quantize(type);
  }
  test_fused();
  test_attention();
  test_delta();
  test_layer();
  test_scan();
  check(n_types >= 3, "%u types", n_types);
  printf("%u checks, %u types, %u failures\n", n_checks, n_types, n_failures);
  return n_failures == 0 ? 0 : 1;
}
