/* Exports: products whose activations are made on the way, or shared by several weights. Contracts:
 * fused.h. */
#include "checks.h"
#include "ops/ops.h"

/* Faults of the arguments, in the order in which fused_matmul reports them. */
enum {
  BAD_TYPE = 1,
  BAD_ACTIVATION = 2,
  BAD_SHAPE = 4,
  BAD_ALIGN = 8,
  BAD_RANGE = 16
};

static int32_t status_of(uint32_t faults) {
  if (faults & BAD_TYPE) return FM_ERR_TYPE;
  if (faults & BAD_ACTIVATION) return FM_ERR_ACTIVATION;
  if (faults & BAD_SHAPE) return FM_ERR_SHAPE;
  if (faults & BAD_ALIGN) return FM_ERR_ALIGN;
  return faults & BAD_RANGE ? FM_ERR_RANGE : FM_OK;
}

static uint32_t check_modes(int32_t act, int32_t activation) {
  bool known = act >= FM_GATE_SILU && act <= FM_GATE_RELU && activation >= FM_ACT_F32 &&
               activation <= FM_ACT_INT8;
  return known ? 0 : BAD_ACTIVATION;
}

/* Checks an argument of [a][b] units; a unit is a multiple of 4 bytes. */
static __attribute__((noinline)) uint32_t check_words(const void *p, uint32_t a, uint32_t b,
                                                      uint32_t unit, span *out) {
  *out = (span){(uintptr_t)p, 0};
  uint32_t faults = a == 0 || b == 0 || !product(a, b, unit, &out->bytes) ? BAD_SHAPE : 0;
  if (!is_aligned(p, _Alignof(float))) faults |= BAD_ALIGN;
  return in_heap(*out) ? faults : faults | BAD_RANGE;
}

static uint32_t check_floats(const float *x, uint32_t n_rows, uint32_t n_cols, span *out) {
  return check_words(x, n_rows, n_cols, sizeof *x, out);
}

/* Checks the weight of a norm. NULL is allowed, and overlaps nothing. */
static uint32_t check_norm_weight(const float *norm_weight, uint32_t n_cols, span *out) {
  *out = (span){0, 0};
  return norm_weight ? check_floats(norm_weight, 1, n_cols, out) : 0;
}

static __attribute__((noinline)) uint32_t check_matrix(int32_t type, const void *w, uint32_t n_rows,
                                                       uint32_t n_cols, span *out) {
  const fm_traits *traits = fm_traits_of(type);
  *out = (span){(uintptr_t)w, 0};
  if (!traits) return BAD_TYPE;
  uint32_t faults = check_weights(traits, w, n_rows, n_cols, out) == FM_OK ? 0 : BAD_SHAPE;
  if (!is_aligned(w, traits->alignment)) faults |= BAD_ALIGN;
  return in_heap(*out) ? faults : faults | BAD_RANGE;
}

static uint32_t check_target(const fm_target *target, uint32_t n_tokens, uint32_t n_cols, span *w,
                             span *y) {
  uint32_t faults = check_matrix(target->type, target->w, target->n_rows, n_cols, w);
  return faults | check_floats(target->y, n_tokens, target->n_rows, y);
}

/* A product with several targets, checks and call. source->other: a norm's weight or NULL. */
static int32_t matmul_many(const fm_target *targets, uint32_t n_targets, const fm_source *source,
                           uint32_t n_tokens, uint32_t n_cols, int32_t activation) {
  span s_targets, s_x, s_norm, w, y, other_y;
  uint32_t faults = check_words(targets, n_targets, 1, sizeof *targets, &s_targets);
  if (!is_aligned(targets, _Alignof(fm_target))) faults |= BAD_ALIGN;
  if (faults) return status_of(faults);
  faults = check_modes(FM_GATE_SILU, activation) | check_floats(source->x, n_tokens, n_cols, &s_x);
  faults |= check_norm_weight(source->other, n_cols, &s_norm);
  for (uint32_t i = 0; i < n_targets; i++)
    faults |= check_target(&targets[i], n_tokens, n_cols, &w, &y);
  if (faults) return status_of(faults);
  for (uint32_t i = 0; i < n_targets; i++) {
    check_target(&targets[i], n_tokens, n_cols, &w, &y);
    if (overlap(y, s_targets) || overlap(y, s_x) || overlap(y, s_norm)) return FM_ERR_OVERLAP;
    for (uint32_t k = 0; k < n_targets; k++) {
      check_target(&targets[k], n_tokens, n_cols, &w, &other_y);
      if (overlap(y, w) || (k != i && overlap(y, other_y))) return FM_ERR_OVERLAP;
    }
  }
  fm_op_matmul(targets, n_targets, source, n_tokens, n_cols, activation, false);
  return FM_OK;
}

EXPORT int32_t fused_matmul_many(const fm_target *targets, uint32_t n_targets, const float *x,
                                 uint32_t n_tokens, uint32_t n_cols, int32_t activation) {
  const fm_source source = {.kind = FM_SOURCE_PLAIN, .x = x};
  return matmul_many(targets, n_targets, &source, n_tokens, n_cols, activation);
}

EXPORT int32_t fused_rmsnorm_matmul(const fm_target *targets, uint32_t n_targets, const float *x,
                                    const float *norm_weight, float eps, uint32_t n_tokens,
                                    uint32_t n_cols, int32_t activation) {
  const fm_source source = {.kind = FM_SOURCE_NORMED, .x = x, .other = norm_weight, .eps = eps};
  return matmul_many(targets, n_targets, &source, n_tokens, n_cols, activation);
}

EXPORT int32_t fused_swiglu_matmul(int32_t type, const void *w, const float *gate, const float *up,
                                   float *y, uint32_t n_tokens, uint32_t n_rows, uint32_t n_cols,
                                   int32_t act, int32_t activation) {
  span s_w, s_y, s_gate, s_up;
  const fm_target target = {.type = type, .n_rows = n_rows, .w = w, .y = y};
  uint32_t faults =
      check_modes(act, activation) | check_target(&target, n_tokens, n_cols, &s_w, &s_y);
  faults |= check_floats(gate, n_tokens, n_cols, &s_gate);
  s_up = s_gate;
  if (up) faults |= check_floats(up, n_tokens, n_cols, &s_up);
  if (faults) return status_of(faults);
  if (overlap(s_y, s_w) || overlap(s_y, s_gate) || overlap(s_y, s_up)) return FM_ERR_OVERLAP;
  const fm_source source = {.kind = FM_SOURCE_GATED, .x = gate, .other = up, .act = act};
  fm_op_matmul(&target, 1, &source, n_tokens, n_cols, activation, false);
  return FM_OK;
}

EXPORT int32_t fused_ffn(const fm_ffn_weights *weights, const float *x, const float *norm_weight,
                         float eps, float *y, float *workspace, uint32_t n_tokens, uint32_t n_embd,
                         uint32_t n_ff, int32_t act, int32_t residual, int32_t activation) {
  enum {
    WEIGHTS,
    GATE,
    UP,
    DOWN,
    NORM,
    X,
    N_INPUTS
  };
  span in[N_INPUTS], s_y, s_work;
  uint32_t faults = check_words(weights, 1, 1, sizeof *weights, &in[WEIGHTS]);
  if (!is_aligned(weights, _Alignof(fm_ffn_weights))) faults |= BAD_ALIGN;
  if (faults) return status_of(faults);
  faults = check_modes(act, activation) | check_norm_weight(norm_weight, n_embd, &in[NORM]);
  faults |= check_matrix(weights->gate_type, weights->gate, n_ff, n_embd, &in[GATE]);
  faults |= check_matrix(weights->up_type, weights->up, n_ff, n_embd, &in[UP]);
  faults |= check_matrix(weights->down_type, weights->down, n_embd, n_ff, &in[DOWN]);
  faults |= check_floats(x, n_tokens, n_embd, &in[X]) | check_floats(y, n_tokens, n_embd, &s_y);
  faults |= check_words(workspace, n_tokens, n_ff, 2 * sizeof *workspace, &s_work);
  if (faults) return status_of(faults);
  for (int i = 0; i < N_INPUTS; i++) {
    if (overlap(s_work, in[i]) || (overlap(s_y, in[i]) && !(i == X && y == x)))
      return FM_ERR_OVERLAP;
  }
  if (overlap(s_work, s_y)) return FM_ERR_OVERLAP;
  fm_op_ffn(weights, x, norm_weight, eps, y, workspace, n_tokens, n_embd, n_ff, act, residual != 0,
            activation);
  return FM_OK;
}
