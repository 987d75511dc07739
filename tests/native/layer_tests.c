/* The operations of a layer that are no products, on heap blocks of exactly the bytes of the
 * contracts; values of every kind. What the results are is checked against float64 in JavaScript;
 * here that in place gives the same bits, and what needs no reference. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fused.h"
#include "native_tests.h"

#define ROUNDS 100

static float *random_floats(size_t n) {
  float *x = must_malloc(n * sizeof *x);
  bool finite = random_u32() % 2 == 0;
  for (size_t i = 0; i < n; i++) x[i] = random_activation(finite);
  return x;
}

static bool same(const float *a, const float *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
  }
  return true;
}

static void test_rows(void) {
  uint32_t n_rows = random_between(1, 4), n_cols = random_between(1, 40);
  size_t n = (size_t)n_rows * n_cols;
  float *x = random_floats(n), *weight = random_floats(n_cols), *bias = random_floats(n_cols);
  float *y = must_malloc(n * sizeof *y), *in_place = must_malloc(n * sizeof *in_place);
  float scale = random_activation(false);
  for (int op = 0; op < 10; op++) {
    memcpy(in_place, x, n * sizeof *x);
    int32_t status = FM_OK;
    for (int twice = 0; twice < 2; twice++) {
      const float *from = twice ? in_place : x;
      float *to = twice ? in_place : y;
      if (op == 0) status |= fm_rms_norm(from, weight, to, n_rows, n_cols, 1e-5f);
      if (op == 1) status |= fm_rms_norm(from, NULL, to, n_rows, n_cols, 0.0f);
      if (op == 2) status |= fm_layer_norm(from, weight, bias, to, n_rows, n_cols, 1e-5f);
      if (op == 3) status |= fm_softmax(from, to, n_rows, n_cols);
      if (op == 4) status |= fm_add(from, x, to, (uint32_t)n);
      if (op == 5) status |= fm_gated(from, x, to, (uint32_t)n, (int32_t)(n % 3));
      if (op == 6) status |= fm_add_scaled(from, x, to, (uint32_t)n, scale);
      if (op == 7) status |= fm_scale(from, to, (uint32_t)n, scale);
      if (op == 9) status |= fm_multiply(from, x, to, (uint32_t)n);
      if (op == 8) status |= fm_add_row(from, weight, to, n_rows, n_cols);
    }
    check(status == FM_OK, "layer operation %d, %u x %u: status %d", op, n_rows, n_cols, status);
    check(same(y, in_place, n), "layer operation %d, %u x %u: in place is another result", op,
          n_rows, n_cols);
  }
  if (n > 2)
    check(fm_add(x, x, x + 1, (uint32_t)n - 1) == FM_ERR_OVERLAP, "fm_add into its own input");
  if (n > 2)
    check(fm_add_scaled(y, x, x + 1, (uint32_t)n - 1, 2.0f) == FM_ERR_OVERLAP,
          "fm_add_scaled into its input");
  if (n > 2)
    check(fm_scale(x, x + 1, (uint32_t)n - 1, 2.0f) == FM_ERR_OVERLAP,
          "fm_scale into its own input");
  if (n == 1) check(fm_scale(x, y, 0, 2.0f) == FM_ERR_SHAPE, "fm_scale of no values");
  free(in_place);
  free(y);
  free(bias);
  free(weight);
  free(x);
}

static void test_conv(void) {
  uint32_t n_tokens = random_between(1, 5), n_channels = random_between(1, 40),
           length = random_between(2, FM_CONV_LONGEST);
  size_t n = (size_t)n_tokens * n_channels, n_state = (size_t)(length - 1) * n_channels;
  int32_t act = (int32_t)random_between(0, 3) - 1;
  float *x = random_floats(n), *weight = random_floats((size_t)n_channels * length),
        *bias = random_u32() % 2 ? random_floats(n_channels) : NULL;
  float *y = must_malloc(n * sizeof *y), *states[2];
  states[0] = random_floats(n_state);
  states[1] = must_malloc(n_state * sizeof **states);
  memcpy(states[1], states[0], n_state * sizeof **states);
  int32_t status = fm_causal_conv(x, weight, bias, states[0], y, n_tokens, n_channels, length, act);
  /* In place, and token by token. */
  for (uint32_t t = 0; t < n_tokens; t++) {
    float *row = x + (size_t)t * n_channels;
    status |= fm_causal_conv(row, weight, bias, states[1], row, 1, n_channels, length, act);
  }
  check(status == FM_OK, "fm_causal_conv, %u x %u, length %u: status %d", n_tokens, n_channels,
        length, status);
  check(same(x, y, n) && same(states[0], states[1], n_state),
        "fm_causal_conv, %u x %u, length %u: token by token is another result", n_tokens,
        n_channels, length);
  check(fm_causal_conv(y, weight, bias, y, x, n_tokens, n_channels, length, act) == FM_ERR_OVERLAP,
        "fm_causal_conv with its state in x");
  free(states[1]);
  free(states[0]);
  free(y);
  free(bias);
  free(weight);
  free(x);
}

static float random_parameter(void) {
  static const float values[] = {1.0f,  10000.0f, 500000.0f, 0.5f,     1e-40f,
                                 3e38f, 0.0f,     -1.0f,     INFINITY, NAN};
  return values[random_u32() % (sizeof values / sizeof values[0])];
}

static void test_rope(void) {
  uint32_t n_tokens = random_between(1, 3), n_heads = random_between(1, 3),
           head_size = random_between(2, 200);
  uint32_t n_dims = 2 * random_between(1, head_size / 2),
           position = random_u32() >> random_u32() % 32;
  size_t n = (size_t)n_tokens * n_heads * head_size;
  float *x = random_floats(n), *factors = random_floats(n_dims / 2);
  int32_t status = fm_rope(x, n_tokens, n_heads, head_size, n_dims, position, random_parameter(),
                           random_parameter(), random_u32() % 2 ? factors : NULL,
                           random_parameter(), (int32_t)(random_u32() % 2));
  check(status == FM_OK, "fm_rope, %u of %u: status %d", n_dims, head_size, status);
  status = fm_rope(x, n_tokens, n_heads, head_size, head_size + 2, position, 1.0f, 1.0f, NULL, 1.0f,
                   FM_ROPE_HALVES);
  check(status == FM_ERR_SHAPE, "fm_rope, more dimensions than a head has: status %d", status);
  free(factors);
  free(x);
}

static void test_embed(int32_t type) {
  uint32_t n_rows = random_between(1, 4),
           n_cols = fm_type_block_values(type) * random_between(1, 3), n_tokens = 5;
  size_t row_bytes = (size_t)n_cols / fm_type_block_values(type) * fm_type_block_bytes(type);
  uint8_t *table = must_malloc(n_rows * row_bytes);
  uint32_t *ids = must_malloc(n_tokens * sizeof *ids);
  float *y = must_malloc((size_t)n_tokens * n_cols * sizeof *y),
        *row = must_malloc(n_cols * sizeof *row);
  fill_random(table, n_rows * row_bytes);
  for (uint32_t t = 0; t < n_tokens; t++) ids[t] = random_between(0, n_rows - 1);
  check(fm_embed(type, table, ids, y, n_tokens, n_rows, n_cols) == FM_OK, "fm_embed, type %d",
        type);
  for (uint32_t t = 0; t < n_tokens; t++) {
    fm_dequantize_rows(type, table + ids[t] * row_bytes, row, 1, n_cols);
    check(same(row, y + (size_t)t * n_cols, n_cols), "fm_embed, type %d: not its row", type);
  }
  ids[n_tokens - 1] = n_rows;
  check(fm_embed(type, table, ids, y, n_tokens, n_rows, n_cols) == FM_ERR_RANGE,
        "fm_embed, a row past the last");
  free(row);
  free(y);
  free(ids);
  free(table);
}

static void test_kv_write(int32_t type) {
  uint32_t n_positions = random_between(1, 6), position = random_between(0, n_positions - 1);
  uint32_t n_tokens = random_between(1, n_positions - position), n_cols = 32 * random_between(1, 4);
  size_t bytes =
      (size_t)n_positions * n_cols / fm_type_block_values(type) * fm_type_block_bytes(type);
  uint8_t *cache = must_malloc(bytes);
  float *x = random_floats((size_t)n_tokens * n_cols);
  int32_t status = fm_kv_write(type, cache, x, n_tokens, n_cols, position, n_positions);
  check(status == FM_OK, "fm_kv_write, type %d: status %d", type, status);
  status = fm_kv_write(type, cache, x, n_tokens, n_cols, n_positions - n_tokens + 1, n_positions);
  check(status == FM_ERR_RANGE, "fm_kv_write past the end, type %d: status %d", type, status);
  free(x);
  free(cache);
}

void test_layer(void) {
  for (int round = 0; round < ROUNDS; round++) {
    test_rows();
    test_rope();
    test_conv();
    test_kv_write(FM_KV_F32);
    test_kv_write(FM_KV_F16);
    test_kv_write(FM_KV_Q8_0);
    for (int32_t type = 0; type < 40; type++) {
      if (round % 10 == 0 && fm_type_block_values(type) > 0) test_embed(type);
    }
  }
}
