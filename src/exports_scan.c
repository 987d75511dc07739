/* Exports: the selective scan. Contract: fused.h. */
#include "checks.h"
#include "ops/ops.h"

enum {
  X,
  DT,
  A,
  D,
  DT_BIAS,
  STATE,
  Y,
  N_TENSORS
};

/* The bytes of every tensor; false where a dimension is 0, groups do not divide the heads, or
 * something is too large. */
static bool scan_bytes(const fm_scan *s, span tensors[N_TENSORS]) {
  uint64_t inner, shared, unused;
  if (s->n_tokens == 0 || s->n_heads == 0 || s->n_groups == 0) return false;
  if (s->head_size == 0 || s->state_size == 0 || s->n_heads % s->n_groups != 0) return false;
  if (!product(s->n_heads, s->head_size, sizeof(float), &unused) ||
      !product(s->n_groups, s->state_size, 2 * sizeof(float), &unused)) {
    return false;
  }
  inner = (uint64_t)s->n_heads * s->head_size;
  shared = (uint64_t)s->n_groups * s->state_size;
  if (inner + 2 * shared > UINT32_MAX) return false;
  for (int i = A; i <= DT_BIAS; i++) tensors[i].bytes = (uint64_t)s->n_heads * sizeof(float);
  return product(s->n_tokens, inner + 2 * shared, sizeof(float), &tensors[X].bytes) &&
         product(s->n_tokens, s->n_heads, sizeof(float), &tensors[DT].bytes) &&
         product(s->n_tokens, inner, sizeof(float), &tensors[Y].bytes) &&
         product(inner, s->state_size, sizeof(float), &tensors[STATE].bytes);
}

EXPORT int32_t fm_ssm_scan(const fm_scan *shape, const float *x, const float *dt, const float *a,
                           const float *d, const float *dt_bias, float *state, float *y) {
  span ss = {(uintptr_t)shape, sizeof *shape};
  span tensors[N_TENSORS] = {
      [X] = {(uintptr_t)x, 0}, [DT] = {(uintptr_t)dt, 0},           [A] = {(uintptr_t)a, 0},
      [D] = {(uintptr_t)d, 0}, [DT_BIAS] = {(uintptr_t)dt_bias, 0}, [STATE] = {(uintptr_t)state, 0},
      [Y] = {(uintptr_t)y, 0}};
  if (!is_aligned(shape, sizeof(uint32_t))) return FM_ERR_ALIGN;
  if (!in_heap(ss)) return FM_ERR_RANGE;
  fm_scan s = *shape;
  if (!scan_bytes(&s, tensors)) return FM_ERR_SHAPE;
  for (int i = 0; i < N_TENSORS; i++) {
    if (tensors[i].start % sizeof(float) != 0) return FM_ERR_ALIGN;
  }
  for (int i = 0; i < N_TENSORS; i++) {
    if (!in_heap(tensors[i])) return FM_ERR_RANGE;
  }
  for (int out = STATE; out <= Y; out++) {
    if (overlap(tensors[out], ss)) return FM_ERR_OVERLAP;
    for (int i = 0; i < out; i++) {
      if (overlap(tensors[out], tensors[i])) return FM_ERR_OVERLAP;
    }
  }
  const fm_scan_operands operands = {x, dt, a, d, dt_bias, state, y};
  fm_op_ssm_scan(&s, &operands);
  return FM_OK;
}
