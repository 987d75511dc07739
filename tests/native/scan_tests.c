/* The selective scan under the sanitizers: random shapes on heap blocks of exactly the bytes that
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

static void test_shape(uint32_t round) {
  bool finite = round % 2 == 0;
  fm_scan s = {.n_tokens = random_between(1, round % 3 ? 8 : 70),
               .n_groups = random_between(1, 3),
               .head_size = random_between(1, 80),
               .state_size = random_between(1, 20)};
  s.n_heads = s.n_groups * random_between(1, 3);
  size_t inner = (size_t)s.n_heads * s.head_size, n_state = inner * s.state_size;
  float *x = random_floats(s.n_tokens * (inner + 2 * (size_t)s.n_groups * s.state_size), finite);
  float *dt = random_floats((size_t)s.n_tokens * s.n_heads, finite);
  float *a = random_floats(s.n_heads, finite), *d = random_floats(s.n_heads, finite),
        *bias = random_floats(s.n_heads, finite), *state = random_floats(n_state, finite),
        *y = must_malloc(s.n_tokens * inner * sizeof *y);
  check(fm_ssm_scan(&s, x, dt, a, d, bias, state, y) == FM_OK, "fm_ssm_scan");
  check(fm_ssm_scan(NULL, x, dt, a, d, bias, state, y) == FM_ERR_RANGE, "shape = NULL");
  check(fm_ssm_scan(&s, NULL, dt, a, d, bias, state, y) == FM_ERR_RANGE, "x = NULL");
  check(fm_ssm_scan(&s, x, dt, a, d, NULL, state, y) == FM_ERR_RANGE, "dt_bias = NULL");
  check(fm_ssm_scan(&s, x, dt, a, d, bias, NULL, y) == FM_ERR_RANGE, "state = NULL");
  check(fm_ssm_scan(&s, x, dt, a, d, bias, state, state) == FM_ERR_OVERLAP, "y = state");
  check(fm_ssm_scan(&s, x, dt, a, d, bias, state, x) == FM_ERR_OVERLAP, "y = x");
  s.n_groups = s.n_heads + 1;
  check(fm_ssm_scan(&s, x, dt, a, d, bias, state, y) == FM_ERR_SHAPE, "more groups than heads");
  free(y);
  free(state);
  free(bias);
  free(d);
  free(a);
  free(dt);
  free(x);
}

void test_scan(void) {
  for (uint32_t round = 0; round < ROUNDS; round++) test_shape(round);
}
