/* Several weights, a norm or a gate in front, the feed-forward block. */
#include "fuzz.h"

#define MAX_TARGETS 4

typedef struct {
  const fm_target *targets;
  const fm_ffn_weights *weights;
  const void *w;
  const float *x, *norm, *gate, *up;
  float *y, *workspace;
  float eps;
  uint32_t n_targets, n_tokens, n_rows, n_cols, n_ff;
  int32_t type, act, residual, activation;
} arguments;

static void pick_gate(fuzz *f, arguments *a) {
  a->act = fuzz_enum(f, FM_GATE_CLAMPED);
  fuzz_fault(f, a->act < FM_GATE_SILU || a->act > FM_GATE_CLAMPED, FM_ERR_ACTIVATION);
}

static const float *place_floats(fuzz *f, uint64_t a, uint64_t b) {
  return fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a, b, sizeof(float)), sizeof(float));
}

static const void *place_weight(fuzz *f, int32_t type, uint32_t n_rows, uint32_t n_cols) {
  return fuzz_place(f, FUZZ_IN, fuzz_weight_bytes(f, type, n_rows, n_cols), fuzz_alignment(type));
}

/* The list in the arena, and what it points to; as many as there is room for are looked at. */
static void place_targets(fuzz *f, arguments *a) {
  fm_target list[MAX_TARGETS];
  a->n_targets = fuzz_dimension(f, MAX_TARGETS - 1);
  size_t list_bytes = fuzz_bytes(f, a->n_targets, 1, sizeof *list);
  a->targets = fuzz_place(f, FUZZ_IN, list_bytes, _Alignof(fm_target));
  unsigned at_list = fuzz_last(f);
  uint32_t n = a->n_targets < MAX_TARGETS ? a->n_targets : 0;
  for (uint32_t i = 0; i < n; i++) {
    fm_target *t = &list[i];
    *t = (fm_target){.type = i == 0 ? a->type : fuzz_type(f), .n_rows = fuzz_dimension(f, 5)};
    t->w = place_weight(f, t->type, t->n_rows, a->n_cols);
    t->y =
        fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a->n_tokens, t->n_rows, sizeof *t->y), sizeof *t->y);
  }
  /* Lists of others lie over canaries: their shapes are wrong. */
  fuzz_fault(f, n == 0, FM_ERR_SHAPE);
  fuzz_fault(f, n == 0, FM_ERR_TYPE);
  fuzz_fault(f, n == 0, FM_ERR_ALIGN);
  fuzz_fault(f, n == 0, FM_ERR_RANGE);
  fuzz_fill(f);
  fuzz_store(f, at_list, list, n * sizeof *list);
}

static void pick_many(fuzz *f, arguments *a) {
  a->type = fuzz_type(f);
  a->activation = fuzz_activation(f);
  a->n_tokens = fuzz_dimension(f, 6);
  a->n_cols = fuzz_columns(f, a->type, fuzz_u8(f) >= 250 ? 2600 : 256);
  a->x = place_floats(f, a->n_tokens, a->n_cols);
}

static int32_t call_many(void *p) {
  arguments *a = p;
  return fused_matmul_many(a->targets, a->n_targets, a->x, a->n_tokens, a->n_cols, a->activation);
}

static void run_many(fuzz *f) {
  arguments a = {0};
  pick_many(f, &a);
  place_targets(f, &a);
  fuzz_run(f, call_many, &a);
}

static int32_t call_rmsnorm(void *p) {
  arguments *a = p;
  return fused_rmsnorm_matmul(a->targets, a->n_targets, a->x, a->norm, a->eps, a->n_tokens,
                              a->n_cols, a->activation);
}

static void run_rmsnorm(fuzz *f) {
  arguments a = {.eps = fuzz_parameter(f)};
  pick_many(f, &a);
  a.norm = fuzz_place_optional(f, fuzz_bytes(f, a.n_cols, 1, sizeof *a.norm), sizeof *a.norm);
  place_targets(f, &a);
  fuzz_run(f, call_rmsnorm, &a);
}

static int32_t call_swiglu(void *p) {
  arguments *a = p;
  return fused_swiglu_matmul(a->type, a->w, a->gate, a->up, a->y, a->n_tokens, a->n_rows, a->n_cols,
                             a->act, a->activation);
}

static void run_swiglu(fuzz *f) {
  arguments a = {.type = fuzz_type(f)};
  a.activation = fuzz_activation(f);
  pick_gate(f, &a);
  a.n_tokens = fuzz_dimension(f, 6);
  a.n_rows = fuzz_dimension(f, 9);
  a.n_cols = fuzz_columns(f, a.type, fuzz_u8(f) >= 250 ? 2600 : 256);
  a.w = place_weight(f, a.type, a.n_rows, a.n_cols);
  a.gate = place_floats(f, a.n_tokens, a.n_cols);
  size_t up_bytes = fuzz_bytes(f, a.n_tokens, a.n_cols, sizeof *a.up);
  a.up = fuzz_place_optional(f, up_bytes, sizeof *a.up);
  a.y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_tokens, a.n_rows, sizeof *a.y), sizeof *a.y);
  fuzz_fill(f);
  fuzz_run(f, call_swiglu, &a);
}

static int32_t call_ffn(void *p) {
  arguments *a = p;
  return fused_ffn(a->weights, a->x, a->norm, a->eps, a->y, a->workspace, a->n_tokens, a->n_cols,
                   a->n_ff, a->act, a->residual, a->activation);
}

/* A type that fits a row of few blocks of 32 as well. */
static int32_t type_for(fuzz *f, bool is_wide) {
  int32_t type = fuzz_type(f);
  return !is_wide && fm_type_block_values(type) == 256 ? FM_TYPE_Q4_0 : type;
}

/* Types of 256 values need rows as wide; both sides as wide are rare: nine times the work of
 * one. */
static void run_ffn(fuzz *f) {
  arguments a = {.eps = fuzz_parameter(f), .residual = (int32_t)fuzz_u8(f) - 64};
  uint8_t width = fuzz_u8(f);
  bool is_wide = width >= 192 && width < 224, is_wide_inside = width >= 224 || width == 192;
  fm_ffn_weights weights = {.gate_type = type_for(f, is_wide),
                            .up_type = type_for(f, is_wide),
                            .down_type = type_for(f, is_wide_inside)};
  a.activation = fuzz_activation(f);
  pick_gate(f, &a);
  a.n_tokens = fuzz_dimension(f, 3);
  a.n_cols = is_wide ? fuzz_columns(f, FM_TYPE_Q4_K, 256) : fuzz_columns(f, FM_TYPE_Q8_0, 64);
  a.n_ff = is_wide_inside ? fuzz_columns(f, FM_TYPE_Q4_K, width == 192 ? 512 : 256)
                          : fuzz_columns(f, FM_TYPE_Q8_0, 64);
  a.weights = fuzz_place(f, FUZZ_IN, sizeof weights, _Alignof(fm_ffn_weights));
  unsigned at_weights = fuzz_last(f);
  a.x = place_floats(f, a.n_tokens, a.n_cols);
  unsigned at_x = fuzz_last(f);
  a.norm = fuzz_place_optional(f, fuzz_bytes(f, a.n_cols, 1, sizeof *a.norm), sizeof *a.norm);
  weights.gate = place_weight(f, weights.gate_type, a.n_ff, a.n_cols);
  weights.up = place_weight(f, weights.up_type, a.n_ff, a.n_cols);
  weights.down = place_weight(f, weights.down_type, a.n_cols, a.n_ff);
  a.workspace =
      fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_tokens, a.n_ff, 2 * sizeof(float)), sizeof(float));
  a.y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_tokens, a.n_cols, sizeof *a.y), sizeof *a.y);
  fuzz_operand *y = &f->operands[fuzz_last(f)];
  y->shares = 1u << at_x;
  if (fuzz_u8(f) >= 128) {
    y->at = f->operands[at_x].at;
    a.y = (float *)y->at;
  }
  fuzz_fill(f);
  fuzz_store(f, at_weights, &weights, sizeof weights);
  fuzz_run(f, call_ffn, &a);
}

const fuzz_target fuzz_fused[] = {{"fused_matmul_many", run_many},
                                  {"fused_rmsnorm_matmul", run_rmsnorm},
                                  {"fused_swiglu_matmul", run_swiglu},
                                  {"fused_ffn", run_ffn},
                                  {NULL, NULL}};
