/* The gated delta net under the sanitizers: random shapes on heap blocks of exactly the bytes that
 * the contract names. */
#include <stdlib.h>

#include "fused.h"
#include "native_tests.h"

#define ROUNDS 60

static float *random_floats(size_t n, bool finite) {
  float *x = must_malloc(n * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = random_activation(finite);
  return x;
}

static void test_round(uint32_t round) {
  bool finite = round % 2 == 0;
  fm_delta s = {.eps = 1e-6f};
  s.n_tokens = random_between(1, round % 4 == 0 ? 70 : 20);
  s.n_key_heads = random_between(1, 3);
  s.n_value_heads = s.n_key_heads * random_between(1, 3);
  s.key_size = 8 * random_between(1, round % 10 == 0 ? 32 : 5);
  s.value_size = 8 * random_between(1, round % 10 == 0 ? 32 : 5);
  size_t values = (size_t)s.n_value_heads * s.value_size,
         cols = (size_t)2 * s.n_key_heads * s.key_size + values,
         n_gates = (size_t)s.n_tokens * s.n_value_heads;
  float *qkv = random_floats(s.n_tokens * cols, finite), *alpha = random_floats(n_gates, finite);
  float *beta = random_floats(n_gates, finite), *a = random_floats(s.n_value_heads, finite);
  float *bias = random_floats(s.n_value_heads, finite);
  float *gate = random_floats(s.n_tokens * values, finite);
  float *weight = random_floats(s.value_size, finite);
  float *state = random_floats(values * s.key_size, finite);
  float *out = must_malloc(s.n_tokens * values * sizeof *out);
  check(fm_delta_net(&s, qkv, alpha, beta, bias, a, gate, weight, state, out) == FM_OK,
        "fm_delta_net");
  check(fm_delta_net(&s, qkv, alpha, beta, bias, a, NULL, NULL, state, out) == FM_OK,
        "fm_delta_net without a gate");
  check(fm_delta_net(NULL, qkv, alpha, beta, bias, a, gate, weight, state, out) == FM_ERR_RANGE,
        "shape = NULL");
  check(fm_delta_net(&s, qkv, alpha, beta, bias, a, gate, weight, NULL, out) == FM_ERR_RANGE,
        "state = NULL");
  check(fm_delta_net(&s, qkv, alpha, beta, bias, a, gate, weight, state, state) == FM_ERR_OVERLAP,
        "out = state");
  s.key_size += 4;
  check(fm_delta_net(&s, qkv, alpha, beta, bias, a, gate, weight, state, out) == FM_ERR_SHAPE,
        "a key size that is no multiple of 8");
  float *all[] = {qkv, alpha, beta, a, bias, gate, weight, state, out};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

void test_delta(void) {
  for (uint32_t round = 0; round < ROUNDS; round++) test_round(round);
}
