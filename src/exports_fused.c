/* Exports: products whose activations are made on the way, or shared by several weights, and
 * mixtures of experts. Contracts: fused.h. */
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
  bool known = act >= FM_GATE_SILU && act <= FM_GATE_CLAMPED && is_activation(activation);
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

/* Checks a vector that may be NULL, which overlaps nothing. */
static uint32_t check_optional(const float *x, uint32_t n_cols, span *out) {
  *out = (span){0, 0};
  return x ? check_floats(x, 1, n_cols, out) : 0;
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
  faults |= check_optional(source->other, n_cols, &s_norm);
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
  faults = check_modes(act, activation) | check_optional(norm_weight, n_embd, &in[NORM]);
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

static uint32_t check_routing(const fm_routing *r) {
  if (r->n_tokens == 0 || r->n_experts == 0 || r->n_experts > FM_EXPERTS_MAX) return BAD_SHAPE;
  if (r->n_groups == 0 || r->n_experts % r->n_groups != 0) return BAD_SHAPE;
  if (r->n_groups_used == 0 || r->n_groups_used > r->n_groups) return BAD_SHAPE;
  if (r->n_used == 0 || r->n_used > r->n_experts / r->n_groups * r->n_groups_used) return BAD_SHAPE;
  bool known = r->scores >= FM_SCORES_SOFTMAX && r->scores <= FM_SCORES_SIGMOID;
  return known ? 0 : BAD_TYPE;
}

EXPORT int32_t fm_route(const fm_routing *routing, const float *logits, const float *bias,
                        uint32_t *rows, uint32_t *ends, float *weights, uint32_t *workspace) {
  span in[3], out[4];
  uint32_t faults = check_words(routing, 1, 1, sizeof *routing, &in[0]);
  if (faults) return status_of(faults);
  const fm_routing r = *routing;
  faults = check_routing(&r);
  faults |= check_floats(logits, r.n_tokens, r.n_experts, &in[1]);
  faults |= check_optional(bias, r.n_experts, &in[2]);
  faults |= check_words(rows, r.n_tokens, r.n_used, sizeof *rows, &out[0]);
  faults |= check_words(ends, r.n_experts, 1, sizeof *ends, &out[1]);
  faults |= check_floats(weights, r.n_tokens, r.n_used, &out[2]);
  faults |= check_words(workspace, r.n_tokens, r.n_used, 2 * sizeof *workspace, &out[3]);
  if (faults) return status_of(faults);
  if (!are_apart(out, 4, in, 3)) return FM_ERR_OVERLAP;
  fm_op_route(&r, logits, bias, rows, ends, weights, workspace);
  return FM_OK;
}

static bool are_below(const uint32_t *list, uint32_t n, uint32_t limit) {
  for (uint32_t i = 0; i < n; i++) {
    if (list[i] >= limit) return false;
  }
  return true;
}

static bool are_ends(const uint32_t *ends, uint32_t n, uint32_t last) {
  for (uint32_t i = 1; i < n; i++) {
    if (ends[i - 1] > ends[i]) return false;
  }
  return ends[n - 1] == last;
}

/* Checks one target; in: its weights and its bias. */
static uint32_t check_experts(const fm_expert_target *target, uint32_t n_experts, uint32_t n_pairs,
                              uint32_t n_cols, span in[2], span *y) {
  uint64_t n_rows = (uint64_t)target->n_rows * n_experts;
  uint32_t faults = n_rows > UINT32_MAX ? BAD_SHAPE : 0;
  faults |= check_matrix(target->type, target->w, (uint32_t)n_rows, n_cols, &in[0]);
  in[1] = (span){0, 0};
  if (target->bias) faults |= check_floats(target->bias, n_experts, target->n_rows, &in[1]);
  return faults | check_floats(target->y, n_pairs, target->n_rows, y);
}

EXPORT int32_t fm_matmul_experts(const fm_expert_target *targets, uint32_t n_targets,
                                 const uint32_t *rows, const uint32_t *ends, uint32_t n_pairs,
                                 uint32_t n_experts, const float *x, const float *up,
                                 uint32_t n_tokens, uint32_t n_cols, int32_t act,
                                 int32_t activation) {
  enum {
    TARGETS,
    ROWS,
    ENDS,
    X,
    UP,
    N_INPUTS
  };
  span in[N_INPUTS] = {{0, 0}}, own[2], y, other_y;
  uint32_t faults = check_words(targets, n_targets, 1, sizeof *targets, &in[TARGETS]);
  if (!is_aligned(targets, _Alignof(fm_expert_target))) faults |= BAD_ALIGN;
  if (faults) return status_of(faults);
  bool has_act = act != -1;
  faults = check_modes(has_act ? act : FM_GATE_SILU, activation);
  if (!has_act && up) faults |= BAD_ACTIVATION;
  faults |= check_words(ends, n_experts, 1, sizeof *ends, &in[ENDS]);
  faults |= check_words(x, n_tokens, n_cols, sizeof *x, &in[X]);
  if (up) faults |= check_floats(up, n_tokens, n_cols, &in[UP]);
  if (rows) faults |= check_words(rows, n_pairs, 1, sizeof *rows, &in[ROWS]);
  if (n_pairs == 0 || (!rows && n_tokens != n_pairs)) faults |= BAD_SHAPE;
  for (uint32_t i = 0; i < n_targets; i++)
    faults |= check_experts(&targets[i], n_experts, n_pairs, n_cols, own, &y);
  if (faults) return status_of(faults);
  if (!are_ends(ends, n_experts, n_pairs)) return FM_ERR_RANGE;
  if (rows && !are_below(rows, n_pairs, n_tokens)) return FM_ERR_RANGE;
  for (uint32_t i = 0; i < n_targets; i++) {
    check_experts(&targets[i], n_experts, n_pairs, n_cols, own, &y);
    if (!are_apart(&y, 1, in, N_INPUTS)) return FM_ERR_OVERLAP;
    for (uint32_t k = 0; k < n_targets; k++) {
      check_experts(&targets[k], n_experts, n_pairs, n_cols, own, &other_y);
      if (!are_apart(&y, 1, own, 2) || (k != i && overlap(y, other_y))) return FM_ERR_OVERLAP;
    }
  }
  const fm_groups groups = {rows, ends, n_pairs, n_experts};
  const fm_source source = {.kind = has_act ? FM_SOURCE_GATED : FM_SOURCE_PLAIN,
                            .x = x,
                            .other = up,
                            .act = act,
                            .rows = rows};
  fm_op_matmul_experts(targets, n_targets, &groups, &source, n_cols, activation);
  return FM_OK;
}

EXPORT int32_t fm_mix_rows(const float *x, const uint32_t *rows, const float *weights, float *y,
                           uint32_t n_pairs, uint32_t n_tokens, uint32_t n_cols) {
  span in[3], out;
  uint32_t faults = check_floats(x, n_pairs, n_cols, &in[0]);
  faults |= check_words(rows, n_pairs, 1, sizeof *rows, &in[1]);
  faults |= check_floats(weights, n_pairs, 1, &in[2]);
  faults |= check_floats(y, n_tokens, n_cols, &out);
  if (faults) return status_of(faults);
  if (!are_below(rows, n_pairs, n_tokens)) return FM_ERR_RANGE;
  if (!are_apart(&out, 1, in, 3)) return FM_ERR_OVERLAP;
  fm_op_mix_rows(x, rows, weights, y, n_pairs, n_tokens, n_cols);
  return FM_OK;
}
