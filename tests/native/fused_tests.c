/* The fused products: results of the single steps bit for bit, on heap blocks of exactly the bytes
 * of the contracts. */
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>

#include "fused.h"
#include "native_tests.h"

#define ROUNDS 60
#define N_TARGETS 3

static const int32_t types[] = {FM_TYPE_Q4_K, FM_TYPE_Q8_0, FM_TYPE_F16,
                                FM_TYPE_F32,  FM_TYPE_Q6_K, FM_TYPE_BF16};

static int32_t random_type(void) { return types[random_u32() % (sizeof types / sizeof types[0])]; }

static float *random_floats(size_t n, bool finite) {
  float *x = must_malloc(n * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = random_activation(finite);
  return x;
}

static float *room_for(size_t n) { return must_malloc(n * sizeof(float)); }

static uint8_t *random_weight(int32_t type, uint32_t n_rows, uint32_t n_cols) {
  size_t bytes = (size_t)n_rows * n_cols / fm_type_block_values(type) * fm_type_block_bytes(type);
  uint8_t *w = must_malloc(bytes);
  fill_random(w, bytes);
  return w;
}

/* Bits, but any NaN for any NaN. */
static bool same(const float *a, const float *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (memcmp(a + i, b + i, sizeof *a) != 0 && (a[i] == a[i] || b[i] == b[i])) return false;
  }
  return true;
}

static void check_product(const fm_target *target, const float *x, uint32_t n_tokens,
                          uint32_t n_cols, int32_t activation, const char *what) {
  size_t n_y = (size_t)n_tokens * target->n_rows;
  float *y = room_for(n_y);
  int32_t status =
      fused_matmul(target->type, target->w, x, y, n_tokens, target->n_rows, n_cols, activation);
  check(status == FM_OK && same(y, target->y, n_y),
        "%s, type %d, %u x %u x %u, activation %d: not the single steps", what, target->type,
        n_tokens, target->n_rows, n_cols, activation);
  free(y);
}

static void test_targets(bool normed) {
  uint32_t n_tokens = random_between(1, 6), n_cols = 256 * random_between(1, 10),
           n = random_between(1, N_TARGETS);
  int32_t activation = (int32_t)random_between(FM_ACT_F32, FM_ACT_INT8);
  bool weighted = random_u32() % 2 == 0;
  float *x = random_floats((size_t)n_tokens * n_cols, random_u32() % 4 != 0),
        *norm = random_floats(n_cols, true);
  float *normed_x = room_for((size_t)n_tokens * n_cols);
  fm_target *targets = must_malloc(n * sizeof *targets);
  for (uint32_t i = 0; i < n; i++) {
    targets[i].type = random_type();
    targets[i].n_rows = random_between(1, 9);
    targets[i].w = random_weight(targets[i].type, targets[i].n_rows, n_cols);
    targets[i].y = room_for((size_t)n_tokens * targets[i].n_rows);
  }
  const float *weight = weighted ? norm : NULL;
  if (normed) {
    check(fm_rms_norm(x, weight, normed_x, n_tokens, n_cols, 1e-5f) == FM_OK, "fm_rms_norm");
    check(fused_rmsnorm_matmul(targets, n, x, weight, 1e-5f, n_tokens, n_cols, activation) == FM_OK,
          "rmsnorm");
  } else {
    check(fused_matmul_many(targets, n, x, n_tokens, n_cols, activation) == FM_OK,
          "fused_matmul_many");
  }
  for (uint32_t i = 0; i < n; i++) {
    check_product(&targets[i], normed ? normed_x : x, n_tokens, n_cols, activation,
                  normed ? "rmsnorm" : "many");
    free((void *)(uintptr_t)targets[i].w);
    free(targets[i].y);
  }
  check(fused_matmul_many(targets, 0, x, n_tokens, n_cols, activation) == FM_ERR_SHAPE,
        "no targets");
  check(fused_matmul_many(NULL, n, x, n_tokens, n_cols, activation) == FM_ERR_RANGE,
        "targets = NULL");
  const fm_target *odd = (const fm_target *)((uintptr_t)targets + 4);
  check(fused_matmul_many(odd, 1, x, n_tokens, n_cols, activation) == FM_ERR_ALIGN,
        "targets misaligned");
  free(targets);
  free(normed_x);
  free(norm);
  free(x);
}

static void test_ffn(void) {
  uint32_t n_tokens = random_between(1, 5), n_embd = 256 * random_between(1, 2),
           n_ff = 256 * random_between(1, 9);
  int32_t activation = (int32_t)random_between(FM_ACT_F32, FM_ACT_INT8),
          act = (int32_t)random_between(FM_GATE_SILU, FM_GATE_CLAMPED);
  size_t n_x = (size_t)n_tokens * n_embd, n_inner = (size_t)n_tokens * n_ff;
  float *x = random_floats(n_x, true), *norm = random_floats(n_embd, true), *y = room_for(n_x);
  float *workspace = room_for(2 * n_inner), *gated = room_for(n_inner), *y2 = room_for(n_x);
  fm_ffn_weights weights = {
      .gate_type = random_type(), .up_type = random_type(), .down_type = random_type()};
  weights.gate = random_weight(weights.gate_type, n_ff, n_embd);
  weights.up = random_weight(weights.up_type, n_ff, n_embd);
  weights.down = random_weight(weights.down_type, n_embd, n_ff);
  int32_t status =
      fused_ffn(&weights, x, norm, 1e-5f, y, workspace, n_tokens, n_embd, n_ff, act, 0, activation);
  check(status == FM_OK, "fused_ffn gave %d", status);
  const fm_target down = {.type = weights.down_type, .n_rows = n_embd, .w = weights.down, .y = y};
  check(fm_gated(workspace, workspace + n_inner, gated, (uint32_t)n_inner, act) == FM_OK,
        "fm_gated");
  check_product(&down, gated, n_tokens, n_ff, activation, "ffn");
  status = fused_swiglu_matmul(weights.down_type, weights.down, workspace, workspace + n_inner, y2,
                               n_tokens, n_embd, n_ff, act, activation);
  check(status == FM_OK && same(y, y2, n_x), "fused_swiglu_matmul gave %d, or other bits", status);
  /* in place, onto the residual: the bits of a y of its own */
  check(fused_ffn(&weights, x, NULL, 0, y, workspace, n_tokens, n_embd, n_ff, act, 1, activation) ==
            FM_OK,
        "residual");
  check(fused_ffn(&weights, x, NULL, 0, x, workspace, n_tokens, n_embd, n_ff, act, 1, activation) ==
            FM_OK,
        "in place");
  check(same(x, y, n_x), "fused_ffn in place gives other bits");
  free((void *)(uintptr_t)weights.gate);
  free((void *)(uintptr_t)weights.up);
  free((void *)(uintptr_t)weights.down);
  free(y2);
  free(gated);
  free(workspace);
  free(y);
  free(norm);
  free(x);
}

/* Of the weights, only those of experts with rows may be read: the others are poisoned. Results are
 * those of each expert alone, bit for bit. */
static void test_experts(void) {
  enum {
    N_EXPERTS = 6
  };
  int32_t type = random_type(), activation = (int32_t)random_between(FM_ACT_F32, FM_ACT_INT8);
  uint32_t n_tokens = random_between(1, 5), n_rows = random_between(1, 9),
           n_cols = 256 * random_between(1, 3), ends[N_EXPERTS], n_pairs = 0;
  for (uint32_t e = 0; e < N_EXPERTS; e++) ends[e] = n_pairs += random_u32() % 2 * (e % 4);
  if (n_pairs == 0) ends[N_EXPERTS - 1] = n_pairs = 1;
  uint32_t *rows = must_malloc(n_pairs * sizeof *rows);
  for (uint32_t i = 0; i < n_pairs; i++) rows[i] = random_u32() % n_tokens;
  uint8_t *w = random_weight(type, N_EXPERTS * n_rows, n_cols);
  size_t expert_bytes =
      (size_t)n_rows * n_cols / fm_type_block_values(type) * fm_type_block_bytes(type);
  float *x = random_floats((size_t)n_tokens * n_cols, true);
  float *own = room_for((size_t)n_pairs * n_cols), *y = room_for((size_t)n_pairs * n_rows);
  for (uint32_t i = 0; i < n_pairs; i++)
    memcpy(own + (size_t)i * n_cols, x + (size_t)rows[i] * n_cols, n_cols * sizeof *x);
  for (uint32_t e = 0; e < N_EXPERTS; e++) {
    if (ends[e] == (e == 0 ? 0 : ends[e - 1]))
      __asan_poison_memory_region(w + e * expert_bytes, expert_bytes);
  }
  const fm_expert_target target = {.type = type, .n_rows = n_rows, .w = w, .y = y};
  int32_t status = fm_matmul_experts(&target, 1, rows, ends, n_pairs, N_EXPERTS, x, NULL, n_tokens,
                                     n_cols, -1, activation);
  check(status == FM_OK, "fm_matmul_experts gave %d", status);
  __asan_unpoison_memory_region(w, N_EXPERTS * expert_bytes);
  for (uint32_t e = 0, first = 0; e < N_EXPERTS; first = ends[e++]) {
    if (ends[e] == first) continue;
    const fm_target alone = {
        .type = type, .n_rows = n_rows, .w = w + e * expert_bytes, .y = y + (size_t)first * n_rows};
    check_product(&alone, own + (size_t)first * n_cols, ends[e] - first, n_cols, activation,
                  "expert");
  }
  free(y);
  free(own);
  free(x);
  free(w);
  free(rows);
}

void test_fused(void) {
  for (int round = 0; round < ROUNDS; round++) {
    test_targets(round % 2 == 0);
    test_ffn();
    test_experts();
  }
}
