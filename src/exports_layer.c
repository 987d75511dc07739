/* Exports: the operations of a layer that are no products. Contracts: fused.h. */
#include "checks.h"
#include "ops/ops.h"

static span floats(const float *p, uint64_t bytes) { return (span){(uintptr_t)p, p ? bytes : 0}; }

/* Whether an output may be computed from an input element by element: y starts where x does, or
 * does not overlap it. */
static bool apart_or_same(span y, span x) { return y.start == x.start || !overlap(y, x); }

/* Checks the arguments of a norm, or of another operation on rows: x and y [n_rows][n_cols]; a and
 * b [n_cols] or NULL. */
static int32_t check_norm(const float *x, const float *a, const float *b, const float *y,
                          uint32_t n_rows, uint32_t n_cols) {
  uint64_t bytes, row = (uint64_t)n_cols * sizeof *x;
  if (n_rows == 0 || n_cols == 0 || !product(n_rows, n_cols, sizeof *x, &bytes))
    return FM_ERR_SHAPE;
  span sx = {(uintptr_t)x, bytes}, sy = {(uintptr_t)y, bytes}, sa = floats(a, row),
       sb = floats(b, row);
  if (!is_aligned(x, 4) || !is_aligned(y, 4) || !is_aligned(a, 4) || !is_aligned(b, 4))
    return FM_ERR_ALIGN;
  if (!in_heap(sx) || !in_heap(sy) || (a && !in_heap(sa)) || (b && !in_heap(sb)))
    return FM_ERR_RANGE;
  if (!apart_or_same(sy, sx) || (a && overlap(sy, sa)) || (b && overlap(sy, sb)))
    return FM_ERR_OVERLAP;
  return FM_OK;
}

/* Checks the arguments of y = f(a, b), element by element. */
static __attribute__((noinline)) int32_t check_pointwise(const float *a, const float *b,
                                                         const float *y, uint32_t n) {
  uint64_t bytes;
  if (n == 0 || !product(n, 1, sizeof *y, &bytes)) return FM_ERR_SHAPE;
  span sa = {(uintptr_t)a, bytes}, sb = {(uintptr_t)b, bytes}, sy = {(uintptr_t)y, bytes};
  if (!is_aligned(a, 4) || !is_aligned(b, 4) || !is_aligned(y, 4)) return FM_ERR_ALIGN;
  if (!in_heap(sa) || !in_heap(sb) || !in_heap(sy)) return FM_ERR_RANGE;
  return apart_or_same(sy, sa) && apart_or_same(sy, sb) ? FM_OK : FM_ERR_OVERLAP;
}

EXPORT int32_t fm_rms_norm(const float *x, const float *weight, float *y, uint32_t n_rows,
                           uint32_t n_cols, float eps) {
  int32_t status = check_norm(x, weight, NULL, y, n_rows, n_cols);
  if (status == FM_OK) fm_op_rms_norm(x, weight, y, n_rows, n_cols, eps);
  return status;
}

EXPORT int32_t fm_layer_norm(const float *x, const float *weight, const float *bias, float *y,
                             uint32_t n_rows, uint32_t n_cols, float eps) {
  int32_t status = check_norm(x, weight, bias, y, n_rows, n_cols);
  if (status == FM_OK) fm_op_layer_norm(x, weight, bias, y, n_rows, n_cols, eps);
  return status;
}

EXPORT int32_t fm_softmax(const float *x, float *y, uint32_t n_rows, uint32_t n_cols) {
  int32_t status = check_norm(x, NULL, NULL, y, n_rows, n_cols);
  if (status == FM_OK) fm_op_softmax(x, y, n_rows, n_cols);
  return status;
}

EXPORT int32_t fm_rope(float *x, uint32_t n_tokens, uint32_t n_heads, uint32_t head_size,
                       uint32_t n_dims, uint32_t first_position, float base, float linear_scale,
                       const float *factors, float magnitude, int32_t pairing) {
  const fm_rope_shape shape = {n_tokens, n_heads, head_size, n_dims, first_position, pairing};
  uint64_t heads;
  span sx = {(uintptr_t)x, 0}, sf = floats(factors, (uint64_t)n_dims / 2 * sizeof *factors);
  if (n_tokens == 0 || n_heads == 0 || n_dims == 0 || n_dims % 2 != 0 || n_dims > head_size)
    return FM_ERR_SHAPE;
  if (pairing != FM_ROPE_ADJACENT && pairing != FM_ROPE_HALVES) return FM_ERR_SHAPE;
  if (!product(n_tokens, n_heads, 1, &heads) || heads > UINT32_MAX) return FM_ERR_SHAPE;
  if (!product(heads, head_size, sizeof *x, &sx.bytes)) return FM_ERR_SHAPE;
  if (!is_aligned(x, 4) || !is_aligned(factors, 4)) return FM_ERR_ALIGN;
  if (!in_heap(sx) || (factors && !in_heap(sf))) return FM_ERR_RANGE;
  if (factors && overlap(sx, sf)) return FM_ERR_OVERLAP;
  fm_op_rope(x, &shape, base, linear_scale, factors, magnitude);
  return FM_OK;
}

EXPORT int32_t fm_embed(int32_t type, const void *table, const uint32_t *ids, float *y,
                        uint32_t n_tokens, uint32_t n_rows, uint32_t n_cols) {
  const fm_traits *traits = fm_traits_of(type);
  span st, si = {(uintptr_t)ids, (uint64_t)n_tokens * sizeof *ids}, sy = {(uintptr_t)y, 0};
  int32_t status = check_weights(traits, table, n_rows, n_cols, &st);
  if (status != FM_OK) return status;
  if (n_tokens == 0 || !product(n_tokens, n_cols, sizeof *y, &sy.bytes)) return FM_ERR_SHAPE;
  if (!is_aligned(table, traits->alignment) || !is_aligned(ids, 4) || !is_aligned(y, 4))
    return FM_ERR_ALIGN;
  if (!in_heap(st) || !in_heap(si) || !in_heap(sy)) return FM_ERR_RANGE;
  if (overlap(sy, st) || overlap(sy, si)) return FM_ERR_OVERLAP;
  for (uint32_t t = 0; t < n_tokens; t++) {
    if (ids[t] >= n_rows) return FM_ERR_RANGE;
  }
  fm_op_embed(type, table, ids, y, n_tokens, n_cols);
  return FM_OK;
}

EXPORT int32_t fm_add(const float *a, const float *b, float *y, uint32_t n) {
  int32_t status = check_pointwise(a, b, y, n);
  if (status == FM_OK) fm_op_add(a, b, y, n);
  return status;
}

EXPORT int32_t fm_add_row(const float *x, const float *row, float *y, uint32_t n_rows,
                          uint32_t n_cols) {
  int32_t status = row ? check_norm(x, row, NULL, y, n_rows, n_cols) : FM_ERR_RANGE;
  if (status == FM_OK) fm_op_add_row(x, row, y, n_rows, n_cols);
  return status;
}

EXPORT int32_t fm_add_scaled(const float *a, const float *b, float *y, uint32_t n, float scale) {
  int32_t status = check_pointwise(a, b, y, n);
  if (status == FM_OK) fm_op_add_scaled(a, b, y, n, scale);
  return status;
}

EXPORT int32_t fm_scale(const float *x, float *y, uint32_t n, float scale) {
  int32_t status = check_pointwise(x, x, y, n);
  if (status == FM_OK) fm_op_scale(x, y, n, scale);
  return status;
}

EXPORT int32_t fm_gated(const float *gate, const float *up, float *y, uint32_t n, int32_t act) {
  if (act < FM_GATE_SILU || act > FM_GATE_SIGMOID) return FM_ERR_ACTIVATION;
  int32_t status = check_pointwise(gate, up, y, n);
  if (status == FM_OK) fm_op_gated(gate, up, y, n, act);
  return status;
}

EXPORT int32_t fm_multiply(const float *a, const float *b, float *y, uint32_t n) {
  int32_t status = check_pointwise(a, b, y, n);
  if (status == FM_OK) fm_op_multiply(a, b, y, n);
  return status;
}

EXPORT int32_t fm_kv_write(int32_t kv_type, void *cache, const float *x, uint32_t n_tokens,
                           uint32_t n_cols, uint32_t position, uint32_t n_positions) {
  const fm_traits *traits = fm_traits_of(kv_type);
  span sc, sx = {(uintptr_t)x, 0};
  if (kv_type != FM_KV_F32 && kv_type != FM_KV_F16 && kv_type != FM_KV_Q8_0) return FM_ERR_TYPE;
  int32_t status = check_weights(traits, cache, n_positions, n_cols, &sc);
  if (status != FM_OK) return status;
  if (n_tokens == 0 || !product(n_tokens, n_cols, sizeof *x, &sx.bytes)) return FM_ERR_SHAPE;
  if (!is_aligned(cache, traits->alignment) || !is_aligned(x, 4)) return FM_ERR_ALIGN;
  if (!in_heap(sc) || !in_heap(sx)) return FM_ERR_RANGE;
  if (position > n_positions || n_tokens > n_positions - position) return FM_ERR_RANGE;
  if (overlap(sc, sx)) return FM_ERR_OVERLAP;
  size_t row_bytes = (size_t)(sc.bytes / n_positions);
  fm_op_kv_write(kv_type, (uint8_t *)cache + position * row_bytes, x, (size_t)n_tokens * n_cols);
  return FM_OK;
}
