/* Norms, softmax, rotary positions, element by element. */
#include <math.h>

#include "fuzz.h"

typedef struct {
  const float *x, *other, *bias;
  float *y;
  float eps, base, linear_scale, magnitude, scale;
  uint32_t n_rows, n_cols, n_heads, head_size, n_dims, position;
  int32_t act, pairing;
} arguments;

static const float *place_in(fuzz *f, uint64_t a, uint64_t b) {
  return fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a, b, sizeof(float)), sizeof(float));
}

/* An output that may be each of the inputs so far with the numbers in `like`; often it is. */
static float *place_out(fuzz *f, uint64_t a, uint64_t b, uint32_t like) {
  float *y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a, b, sizeof *y), sizeof *y);
  fuzz_operand *out = &f->operands[fuzz_last(f)];
  out->shares = like;
  unsigned which = fuzz_below(f, 4);
  if (which >= fuzz_last(f) || !(like >> which & 1)) return y;
  out->at = f->operands[which].at;
  return (float *)out->at;
}

static void pick_rows(fuzz *f, arguments *a) {
  a->n_rows = fuzz_dimension(f, 5);
  a->n_cols = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 1100 : 70);
  a->x = place_in(f, a->n_rows, a->n_cols);
  a->y = place_out(f, a->n_rows, a->n_cols, 1);
}

static int32_t call_rms_norm(void *p) {
  arguments *a = p;
  return fm_rms_norm(a->x, a->other, a->y, a->n_rows, a->n_cols, a->eps);
}

static void run_rms_norm(fuzz *f) {
  arguments a = {.eps = fuzz_parameter(f)};
  pick_rows(f, &a);
  a.other = fuzz_place_optional(f, fuzz_bytes(f, a.n_cols, 1, sizeof *a.other), 4);
  fuzz_fill(f);
  fuzz_run(f, call_rms_norm, &a);
}

static int32_t call_layer_norm(void *p) {
  arguments *a = p;
  return fm_layer_norm(a->x, a->other, a->bias, a->y, a->n_rows, a->n_cols, a->eps);
}

static void run_layer_norm(fuzz *f) {
  arguments a = {.eps = fuzz_parameter(f)};
  pick_rows(f, &a);
  a.other = fuzz_place_optional(f, fuzz_bytes(f, a.n_cols, 1, sizeof *a.other), 4);
  a.bias = fuzz_place_optional(f, fuzz_bytes(f, a.n_cols, 1, sizeof *a.bias), 4);
  fuzz_fill(f);
  fuzz_run(f, call_layer_norm, &a);
}

static int32_t call_softmax(void *p) {
  arguments *a = p;
  return fm_softmax(a->x, a->y, a->n_rows, a->n_cols);
}

static void run_softmax(fuzz *f) {
  arguments a = {0};
  pick_rows(f, &a);
  fuzz_fill(f);
  if (fuzz_run(f, call_softmax, &a) != FM_OK) return;
  for (size_t i = 0; i < (size_t)a.n_rows * a.n_cols; i++) {
    if (a.y[i] < 0 || a.y[i] > 1) fuzz_fail("y[%zu] is %g", i, (double)a.y[i]);
  }
}

static int32_t call_rope(void *p) {
  arguments *a = p;
  return fm_rope(a->y, a->n_rows, a->n_heads, a->head_size, a->n_dims, a->position, a->base,
                 a->linear_scale, a->other, a->magnitude, a->pairing);
}

static void run_rope(fuzz *f) {
  arguments a = {.base = fuzz_parameter(f),
                 .linear_scale = fuzz_parameter(f),
                 .magnitude = fuzz_parameter(f),
                 .position = fuzz_u32(f) >> fuzz_below(f, 32)};
  a.n_rows = fuzz_dimension(f, 4);
  a.n_heads = fuzz_dimension(f, 4);
  a.head_size = fuzz_dimension(f, 200);
  a.n_dims = fuzz_rarely(f) ? fuzz_dimension(f, 200) : a.head_size & ~1u;
  a.pairing = fuzz_enum(f, FM_ROPE_HALVES);
  fuzz_fault(f, a.pairing < FM_ROPE_ADJACENT || a.pairing > FM_ROPE_HALVES, FM_ERR_SHAPE);
  fuzz_fault(f, a.n_dims == 0 || a.n_dims % 2 != 0 || a.n_dims > a.head_size, FM_ERR_SHAPE);
  fuzz_fault(f, (uint64_t)a.n_rows * a.n_heads > UINT32_MAX, FM_ERR_SHAPE);
  a.other = fuzz_place_optional(f, fuzz_bytes(f, a.n_dims / 2, 1, sizeof *a.other), 4);
  /* x is rotated in place: an input at the place of the output */
  size_t bytes = fuzz_bytes(f, (uint64_t)a.n_rows * a.n_heads, a.head_size, sizeof *a.y);
  a.y = fuzz_place(f, FUZZ_IN, bytes, 4);
  unsigned at_x = fuzz_last(f);
  fuzz_place(f, FUZZ_OUT, bytes, 4);
  f->operands[fuzz_last(f)].at = (uintptr_t)a.y;
  f->operands[fuzz_last(f)].shares = 1u << at_x;
  fuzz_fill(f);
  fuzz_run(f, call_rope, &a);
}

static int32_t call_add(void *p) {
  arguments *a = p;
  return fm_add(a->x, a->other, a->y, a->n_cols);
}

static int32_t call_add_row(void *p) {
  arguments *a = p;
  return fm_add_row(a->x, a->other, a->y, a->n_rows, a->n_cols);
}

static void run_add_row(fuzz *f) {
  arguments a = {0};
  pick_rows(f, &a);
  a.other = place_in(f, a.n_cols, 1);
  fuzz_fill(f);
  fuzz_run(f, call_add_row, &a);
}

static int32_t call_gated(void *p) {
  arguments *a = p;
  return fm_gated(a->x, a->other, a->y, a->n_cols, a->act);
}

static int32_t call_multiply(void *p) {
  arguments *a = p;
  return fm_multiply(a->x, a->other, a->y, a->n_cols);
}

static int32_t call_add_scaled(void *p) {
  arguments *a = p;
  return fm_add_scaled(a->x, a->other, a->y, a->n_cols, a->scale);
}

static int32_t call_scale(void *p) {
  arguments *a = p;
  return fm_scale(a->x, a->y, a->n_cols, a->scale);
}

static void pick_pair(fuzz *f, arguments *a) {
  a->n_cols = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 3000 : 130);
  a->x = place_in(f, a->n_cols, 1);
  a->other = place_in(f, a->n_cols, 1);
  a->y = place_out(f, a->n_cols, 1, 3);
  fuzz_fill(f);
}

static void run_add(fuzz *f) {
  arguments a = {0};
  pick_pair(f, &a);
  fuzz_run(f, call_add, &a);
}

static void run_multiply(fuzz *f) {
  arguments a = {0};
  pick_pair(f, &a);
  fuzz_run(f, call_multiply, &a);
}

static void run_add_scaled(fuzz *f) {
  arguments a = {.scale = fuzz_parameter(f)};
  pick_pair(f, &a);
  fuzz_run(f, call_add_scaled, &a);
}

static void run_scale(fuzz *f) {
  arguments a = {.scale = fuzz_parameter(f)};
  a.n_cols = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 3000 : 130);
  a.x = place_in(f, a.n_cols, 1);
  a.y = place_out(f, a.n_cols, 1, 1);
  fuzz_fill(f);
  fuzz_run(f, call_scale, &a);
}

static void run_gated(fuzz *f) {
  arguments a = {.act = fuzz_enum(f, FM_GATE_SIGMOID)};
  fuzz_fault(f, a.act < FM_GATE_SILU || a.act > FM_GATE_SIGMOID, FM_ERR_ACTIVATION);
  pick_pair(f, &a);
  fuzz_run(f, call_gated, &a);
}

const fuzz_target fuzz_layer[] = {{"fm_rms_norm", run_rms_norm},
                                  {"fm_layer_norm", run_layer_norm},
                                  {"fm_softmax", run_softmax},
                                  {"fm_rope", run_rope},
                                  {"fm_add", run_add},
                                  {"fm_add_row", run_add_row},
                                  {"fm_add_scaled", run_add_scaled},
                                  {"fm_scale", run_scale},
                                  {"fm_gated", run_gated},
                                  {"fm_multiply", run_multiply},
                                  {NULL, NULL}};
