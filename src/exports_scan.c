/* Exports: the selective scan. Contract: fused.h. */
#include "checks.h"
#include "ops/ops.h"

/* The operands of a call. The first N_INPUTS are read only. */
enum {
  SHAPE,
  X,
  DT,
  A,
  D,
  DT_BIAS,
  N_INPUTS,
  STATE = N_INPUTS,
  Y,
  N_OPERANDS
};

/* The bytes of all operands but the shape; false where a dimension is refused. */
static bool spans_of(const fm_scan *s, span *o) {
  if (s->n_tokens == 0 || s->n_heads == 0 || s->n_groups == 0) return false;
  if (s->head_size == 0 || s->state_size == 0 || s->n_heads % s->n_groups != 0) return false;
  uint64_t inner = (uint64_t)s->n_heads * s->head_size,
           shared = (uint64_t)s->n_groups * s->state_size;
  if (inner > UINT32_MAX || shared > UINT32_MAX || inner + 2 * shared > UINT32_MAX) return false;
  for (int i = A; i <= DT_BIAS; i++) o[i].bytes = (uint64_t)s->n_heads * sizeof(float);
  return product(s->n_tokens, inner + 2 * shared, sizeof(float), &o[X].bytes) &&
         product(s->n_tokens, s->n_heads, sizeof(float), &o[DT].bytes) &&
         product(s->n_tokens, inner, sizeof(float), &o[Y].bytes) &&
         product(inner, s->state_size, sizeof(float), &o[STATE].bytes);
}

EXPORT int32_t fm_ssm_scan(const fm_scan *shape, const float *x, const float *dt, const float *a,
                           const float *d, const float *dt_bias, float *state, float *y) {
  const void *const at[N_OPERANDS] = {shape, x, dt, a, d, dt_bias, state, y};
  span o[N_OPERANDS];
  for (int i = 0; i < N_OPERANDS; i++) o[i] = (span){(uintptr_t)at[i], 0};
  o[SHAPE].bytes = sizeof *shape;
  if (!is_aligned(shape, sizeof(uint32_t))) return FM_ERR_ALIGN;
  if (!in_heap(o[SHAPE])) return FM_ERR_RANGE;
  fm_scan s = *shape;
  if (!spans_of(&s, o)) return FM_ERR_SHAPE;
  for (int i = 0; i < N_OPERANDS; i++) {
    if (!is_aligned(at[i], sizeof(float))) return FM_ERR_ALIGN;
  }
  for (int i = 0; i < N_OPERANDS; i++) {
    if (!in_heap(o[i])) return FM_ERR_RANGE;
  }
  if (!are_apart(o + STATE, 2, o, N_INPUTS)) return FM_ERR_OVERLAP;
  const fm_scan_operands operands = {x, dt, a, d, dt_bias, state, y};
  fm_op_ssm_scan(&s, &operands);
  return FM_OK;
}
