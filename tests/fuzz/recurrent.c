/* The operations of recurrent layers. */
#include "fuzz.h"

typedef struct {
  const float *x, *weight, *bias;
  float *state, *y;
  uint32_t n_tokens, n_channels, length;
  int32_t act;
} arguments;

static int32_t call_causal_conv(void *p) {
  arguments *a = p;
  return fm_causal_conv(a->x, a->weight, a->bias, a->state, a->y, a->n_tokens, a->n_channels,
                        a->length, a->act);
}

static void run_causal_conv(fuzz *f) {
  arguments a = {.act = (int32_t)((uint32_t)fuzz_enum(f, FM_GATE_RELU + 1) - 1u)};
  fuzz_fault(f, a.act != FM_CONV_PLAIN && (a.act < FM_GATE_SILU || a.act > FM_GATE_RELU),
             FM_ERR_ACTIVATION);
  a.n_tokens = fuzz_dimension(f, 6);
  a.n_channels = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 600 : 40);
  a.length = fuzz_rarely(f) ? fuzz_dimension(f, 40) : 2 + fuzz_below(f, FM_CONV_LONGEST - 1);
  bool is_long = a.length < 2 || a.length > FM_CONV_LONGEST;
  fuzz_fault(f, is_long, FM_ERR_SHAPE);
  size_t bytes = fuzz_bytes(f, a.n_tokens, a.n_channels, sizeof *a.x);
  a.x = fuzz_place(f, FUZZ_IN, bytes, sizeof *a.x);
  a.weight =
      fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_channels, a.length, sizeof *a.x), sizeof *a.x);
  a.bias = fuzz_place_optional(f, fuzz_bytes(f, a.n_channels, 1, sizeof *a.x), sizeof *a.x);
  /* The state is changed in place: an input at the place of an output. */
  size_t state_bytes =
      is_long ? 4 : fuzz_bytes(f, (uint64_t)a.length - 1, a.n_channels, sizeof *a.x);
  a.state = fuzz_place(f, FUZZ_IN, state_bytes, sizeof *a.x);
  unsigned at_state = fuzz_last(f);
  fuzz_place(f, FUZZ_OUT, state_bytes, sizeof *a.x);
  f->operands[fuzz_last(f)].at = (uintptr_t)a.state;
  f->operands[fuzz_last(f)].shares = 1u << at_state;
  a.y = fuzz_place(f, FUZZ_OUT, bytes, sizeof *a.y);
  f->operands[fuzz_last(f)].shares = 1;
  if (fuzz_below(f, 3) == 0) {
    f->operands[fuzz_last(f)].at = f->operands[0].at;
    a.y = (float *)f->operands[0].at;
  }
  fuzz_fill(f);
  fuzz_run(f, call_causal_conv, &a);
}

const fuzz_target fuzz_recurrent[] = {{"fm_causal_conv", run_causal_conv}, {NULL, NULL}};
