/* The selective scan. */
#include "fuzz.h"

typedef struct {
  const fm_scan *shape;
  const float *x, *dt, *a, *d, *dt_bias;
  float *state, *y;
} arguments;

static int32_t call_scan(void *p) {
  arguments *a = p;
  return fm_ssm_scan(a->shape, a->x, a->dt, a->a, a->d, a->dt_bias, a->state, a->y);
}

static const float *place_in(fuzz *f, uint64_t a, uint64_t b) {
  return fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a, b, sizeof(float)), sizeof(float));
}

static void run_scan(fuzz *f) {
  fm_scan s = {.n_tokens = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 70 : 6)};
  s.n_groups = fuzz_dimension(f, 3);
  uint32_t heads = fuzz_dimension(f, 3);
  s.n_heads = fuzz_rarely(f) ? fuzz_dimension(f, 8) : s.n_groups * heads;
  s.head_size = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 140 : 20);
  s.state_size = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 40 : 9);
  fuzz_fault(f, s.n_groups == 0 || s.n_heads % (s.n_groups + !s.n_groups) != 0, FM_ERR_SHAPE);
  uint64_t inner = fuzz_bytes(f, s.n_heads, s.head_size, sizeof(float)) / sizeof(float),
           shared = fuzz_bytes(f, s.n_groups, s.state_size, 2 * sizeof(float)) / sizeof(float);
  fuzz_fault(f, inner + shared > UINT32_MAX, FM_ERR_SHAPE);
  arguments a = {.shape = fuzz_place(f, FUZZ_IN, sizeof s, _Alignof(fm_scan))};
  unsigned at_shape = fuzz_last(f);
  a.x = place_in(f, s.n_tokens, inner + shared);
  a.dt = place_in(f, s.n_tokens, s.n_heads);
  a.a = place_in(f, s.n_heads, 1);
  a.d = place_in(f, s.n_heads, 1);
  a.dt_bias = place_in(f, s.n_heads, 1);
  a.y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, s.n_tokens, inner, sizeof *a.y), 4);
  /* The state is changed in place: an input at the place of an output. */
  size_t bytes = fuzz_bytes(f, inner, s.state_size, sizeof *a.state);
  a.state = fuzz_place(f, FUZZ_IN, bytes, 4);
  unsigned at_state = fuzz_last(f);
  fuzz_place(f, FUZZ_OUT, bytes, 4);
  f->operands[fuzz_last(f)].at = (uintptr_t)a.state;
  f->operands[fuzz_last(f)].shares = 1u << at_state;
  fuzz_fill(f);
  fuzz_store(f, at_shape, &s, sizeof s);
  fuzz_run(f, call_scan, &a);
}

const fuzz_target fuzz_scan[] = {{"fm_ssm_scan", run_scan}, {NULL, NULL}};
