/* The gated delta net. */
#include "kernels/delta.h"
#include "fuzz.h"

typedef struct {
  const fm_delta *shape;
  const float *qkv, *alpha, *beta, *dt_bias, *a, *gate, *norm_weight;
  float *state, *out;
} arguments;

static int32_t call_delta_net(void *p) {
  arguments *a = p;
  return fm_delta_net(a->shape, a->qkv, a->alpha, a->beta, a->dt_bias, a->a, a->gate,
                      a->norm_weight, a->state, a->out);
}

static uint32_t pick_size(fuzz *f) {
  uint32_t most = fuzz_u8(f) >= 240 ? FM_DELTA_SIZE_MAX + 8 : 40;
  return fuzz_rarely(f) ? fuzz_dimension(f, most) : 8 * (1 + fuzz_below(f, most / 8));
}

static void run_delta_net(fuzz *f) {
  fm_delta s = {.eps = fuzz_parameter(f)};
  s.n_tokens = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 70 : 20);
  s.n_key_heads = fuzz_dimension(f, 3);
  uint32_t group = fuzz_dimension(f, 3);
  s.n_value_heads = fuzz_rarely(f) ? fuzz_dimension(f, 6) : s.n_key_heads * group;
  s.key_size = pick_size(f);
  s.value_size = pick_size(f);
  fuzz_fault(f, s.key_size > FM_DELTA_SIZE_MAX || s.key_size % 8 != 0, FM_ERR_SHAPE);
  fuzz_fault(f, s.value_size > FM_DELTA_SIZE_MAX || s.value_size % 8 != 0, FM_ERR_SHAPE);
  fuzz_fault(f, s.n_key_heads == 0 || s.n_value_heads % (s.n_key_heads + !s.n_key_heads) != 0,
             FM_ERR_SHAPE);
  uint64_t values = (uint64_t)s.n_value_heads * s.value_size,
           cols = (uint64_t)2 * s.n_key_heads * s.key_size + values, unit = sizeof(float);
  fuzz_fault(f, cols > UINT32_MAX, FM_ERR_SHAPE);
  arguments a = {0};
  a.shape = fuzz_place(f, FUZZ_IN, sizeof s, _Alignof(fm_delta));
  unsigned at_shape = fuzz_last(f);
  size_t gates = fuzz_bytes(f, s.n_tokens, s.n_value_heads, unit),
         heads = fuzz_bytes(f, s.n_value_heads, 1, unit),
         out_bytes = fuzz_bytes(f, s.n_tokens, values, unit),
         state_bytes = fuzz_bytes(f, values, s.key_size, unit);
  a.qkv = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, s.n_tokens, cols, unit), unit);
  a.alpha = fuzz_place(f, FUZZ_IN, gates, unit);
  a.beta = fuzz_place(f, FUZZ_IN, gates, unit);
  a.dt_bias = fuzz_place(f, FUZZ_IN, heads, unit);
  a.a = fuzz_place(f, FUZZ_IN, heads, unit);
  a.gate = fuzz_place_optional(f, out_bytes, unit);
  a.norm_weight = fuzz_place_optional(f, fuzz_bytes(f, s.value_size, 1, unit), unit);
  /* the state is changed in place: an input at the place of the output */
  a.state = fuzz_place(f, FUZZ_IN, state_bytes, unit);
  unsigned at_state = fuzz_last(f);
  fuzz_place(f, FUZZ_OUT, state_bytes, unit);
  f->operands[fuzz_last(f)].at = (uintptr_t)a.state;
  f->operands[fuzz_last(f)].shares = 1u << at_state;
  a.out = fuzz_place(f, FUZZ_OUT, out_bytes, unit);
  fuzz_fill(f);
  fuzz_store(f, at_shape, &s, sizeof s);
  fuzz_run(f, call_delta_net, &a);
}

const fuzz_target fuzz_delta[] = {{"fm_delta_net", run_delta_net}, {NULL, NULL}};
