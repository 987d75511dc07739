/* Exports: the gated delta net. Contract: fused.h. */
#include "checks.h"
#include "kernels/delta.h"
#include "ops/ops.h"

/* The operands of a call. The first N_INPUTS are read only. */
enum {
  SHAPE,
  QKV,
  ALPHA,
  BETA,
  DT_BIAS,
  A,
  GATE,
  NORM_WEIGHT,
  N_INPUTS,
  STATE = N_INPUTS,
  OUT,
  N_OPERANDS
};

static bool is_size(uint32_t size) {
  return size > 0 && size <= FM_DELTA_SIZE_MAX && size % 8 == 0;
}

/* The bytes of all operands but the shape; false where a dimension is refused. */
static bool spans_of(const fm_delta *s, span *o) {
  if (s->n_tokens == 0 || s->n_key_heads == 0 || s->n_value_heads == 0) return false;
  if (!is_size(s->key_size) || !is_size(s->value_size)) return false;
  if (s->n_value_heads % s->n_key_heads != 0) return false;
  uint64_t keys = (uint64_t)2 * s->n_key_heads * s->key_size,
           values = (uint64_t)s->n_value_heads * s->value_size, unit = sizeof(float);
  if (keys + values > UINT32_MAX) return false;
  o[DT_BIAS].bytes = o[A].bytes = s->n_value_heads * unit;
  o[NORM_WEIGHT].bytes = s->value_size * unit;
  if (!product(s->n_tokens, keys + values, unit, &o[QKV].bytes) ||
      !product(values, s->key_size, unit, &o[STATE].bytes)) {
    return false;
  }
  o[ALPHA].bytes = o[BETA].bytes = s->n_tokens * (uint64_t)s->n_value_heads * unit;
  o[GATE].bytes = o[OUT].bytes = s->n_tokens * values * unit;
  return true;
}

EXPORT int32_t fm_delta_net(const fm_delta *shape, const float *qkv, const float *alpha,
                            const float *beta, const float *dt_bias, const float *a,
                            const float *gate, const float *norm_weight, float *state, float *out) {
  const void *const at[N_OPERANDS] = {shape, qkv,  alpha,       beta,  dt_bias,
                                      a,     gate, norm_weight, state, out};
  span o[N_OPERANDS];
  for (int i = 0; i < N_OPERANDS; i++) o[i] = (span){(uintptr_t)at[i], 0};
  o[SHAPE].bytes = sizeof *shape;
  if (!is_aligned(shape, sizeof(uint32_t))) return FM_ERR_ALIGN;
  if (!in_heap(o[SHAPE])) return FM_ERR_RANGE;
  fm_delta s = *shape;
  if (!spans_of(&s, o)) return FM_ERR_SHAPE;
  if (!gate) o[GATE].bytes = 0;
  if (!norm_weight) o[NORM_WEIGHT].bytes = 0;
  for (int i = 0; i < N_OPERANDS; i++) {
    if (!is_aligned(at[i], sizeof(float))) return FM_ERR_ALIGN;
  }
  for (int i = 0; i < N_OPERANDS; i++) {
    bool is_absent = (i == GATE || i == NORM_WEIGHT) && !at[i];
    if (!is_absent && !in_heap(o[i])) return FM_ERR_RANGE;
  }
  if (!are_apart(o + STATE, 2, o, N_INPUTS)) return FM_ERR_OVERLAP;
  const fm_delta_operands with = {qkv, alpha, beta, dt_bias, a, gate, norm_weight};
  fm_op_delta_net(&s, &with, state, out);
  return FM_OK;
}
