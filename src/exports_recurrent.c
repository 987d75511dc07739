/* Exports: the operations of recurrent layers. Contracts: fused.h. */
#include "checks.h"
#include "ops/ops.h"

EXPORT int32_t fm_causal_conv(const float *x, const float *weight, const float *bias, float *state,
                              float *y, uint32_t n_tokens, uint32_t n_channels, uint32_t length,
                              int32_t act) {
  span sx = {(uintptr_t)x, 0}, sw = {(uintptr_t)weight, 0}, ss = {(uintptr_t)state, 0};
  if (act != FM_CONV_PLAIN && (act < FM_GATE_SILU || act > FM_GATE_RELU)) return FM_ERR_ACTIVATION;
  if (n_tokens == 0 || n_channels == 0 || length < 2 || length > FM_CONV_LONGEST)
    return FM_ERR_SHAPE;
  if (!product(n_tokens, n_channels, sizeof *x, &sx.bytes) ||
      !product(n_channels, length, sizeof *x, &sw.bytes))
    return FM_ERR_SHAPE;
  span sb = {(uintptr_t)bias, bias ? (uint64_t)n_channels * sizeof *bias : 0};
  span sy = {(uintptr_t)y, sx.bytes};
  ss.bytes = sw.bytes - (uint64_t)n_channels * sizeof *state;
  if (!is_aligned(x, 4) || !is_aligned(weight, 4) || !is_aligned(bias, 4) ||
      !is_aligned(state, 4) || !is_aligned(y, 4))
    return FM_ERR_ALIGN;
  if (!in_heap(sx) || !in_heap(sw) || (bias && !in_heap(sb)) || !in_heap(ss) || !in_heap(sy))
    return FM_ERR_RANGE;
  if ((sy.start != sx.start && overlap(sy, sx)) || overlap(sy, sw) || overlap(sy, ss) ||
      overlap(ss, sx) || overlap(ss, sw))
    return FM_ERR_OVERLAP;
  if (bias && (overlap(sy, sb) || overlap(ss, sb))) return FM_ERR_OVERLAP;
  const fm_conv conv = {x, weight, bias, state, y, n_tokens, n_channels, length};
  fm_op_causal_conv(&conv, act);
  return FM_OK;
}
