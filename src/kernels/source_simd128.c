/* The kernels that make activations on the way into a product, four lanes at a time. The scalar
 * twin in source_scalar.c gives the same bits. Contracts: source.h. */
#include <string.h>

#include "fused.h"
#include "kernels/exp.h"
#include "kernels/source.h"
#include "kernels/v128.h"

/* The last n_values (1..3) of a row, with zeros behind. */
static v128_t load_rest(const float *x, size_t n_values) {
  float rest[4] = {0, 0, 0, 0};
  memcpy(rest, x, n_values * sizeof *x);
  return wasm_v128_load(rest);
}

static void store_rest(float *y, v128_t value, size_t n_values) {
  float rest[4];
  wasm_v128_store(rest, value);
  memcpy(y, rest, n_values * sizeof *y);
}

FM_INLINE void add_squares(v128_t x, v128_t sum[2]) {
  v128_t lo = wasm_f64x2_promote_low_f32x4(x),
         hi = wasm_f64x2_promote_low_f32x4(wasm_i64x2_shuffle(x, x, 1, 1));
  sum[0] = wasm_f64x2_add(sum[0], wasm_f64x2_mul(lo, lo));
  sum[1] = wasm_f64x2_add(sum[1], wasm_f64x2_mul(hi, hi));
}

double fm_sum_squares__simd128(const float *x, size_t n_values) {
  v128_t sum[2] = {fm_zero(), fm_zero()};
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 4 <= n_values; i += 4) add_squares(wasm_v128_load(x + i), sum);
  if (i < n_values) add_squares(load_rest(x + i, n_values - i), sum);
  v128_t total = wasm_f64x2_add(sum[0], sum[1]);
  return wasm_f64x2_extract_lane(total, 0) + wasm_f64x2_extract_lane(total, 1);
}

void fm_scale__simd128(const float *x, const float *weight, float factor, float *y,
                       size_t n_values) {
  v128_t factors = wasm_f32x4_splat(factor);
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 4 <= n_values; i += 4) {
    v128_t scaled = wasm_f32x4_mul(wasm_v128_load(x + i), factors);
    wasm_v128_store(y + i, weight ? wasm_f32x4_mul(scaled, wasm_v128_load(weight + i)) : scaled);
  }
  FM_NO_UNROLL
  for (; i < n_values; i++) y[i] = weight ? x[i] * factor * weight[i] : x[i] * factor;
}

/* up points to four values, or is NULL. */
FM_INLINE v128_t gated4(v128_t gate, const float *up, fm_gate act, const fm_gate_held *held) {
  v128_t value = act == FM_GATE_SIGMOID   ? fm_sigmoid_f32x4(gate, &held->exp)
                 : act == FM_GATE_RELU    ? wasm_f32x4_pmax(gate, fm_zero())
                 : act == FM_GATE_GELU    ? fm_gelu_f32x4(gate, held)
                 : act == FM_GATE_CLAMPED ? fm_clamped_silu_f32x4(gate, held)
                                          : fm_silu_f32x4(gate, held);
  if (!up) return value;
  v128_t factor = wasm_v128_load(up);
  if (act == FM_GATE_CLAMPED) factor = fm_clamped_up_f32x4(factor, held);
  return wasm_f32x4_mul(value, factor);
}

FM_INLINE void gated(const float *gate, const float *up, float *y, size_t n_values, fm_gate act) {
  fm_gate_held held = fm_hold_gate();
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 4 <= n_values; i += 4) {
    wasm_v128_store(y + i, gated4(wasm_v128_load(gate + i), up ? up + i : NULL, act, &held));
  }
  if (i == n_values) return;
  size_t rest = n_values - i;
  float four[4];
  if (up) wasm_v128_store(four, load_rest(up + i, rest));
  store_rest(y + i, gated4(load_rest(gate + i, rest), up ? four : NULL, act, &held), rest);
}

void fm_gated__simd128(const float *gate, const float *up, float *y, size_t n_values, int32_t act) {
  if (act == FM_GATE_SIGMOID) {
    gated(gate, up, y, n_values, FM_GATE_SIGMOID);
  } else if (act == FM_GATE_RELU) {
    gated(gate, up, y, n_values, FM_GATE_RELU);
  } else if (act == FM_GATE_GELU) {
    gated(gate, up, y, n_values, FM_GATE_GELU);
  } else if (act == FM_GATE_CLAMPED) {
    gated(gate, up, y, n_values, FM_GATE_CLAMPED);
  } else {
    gated(gate, up, y, n_values, FM_GATE_SILU);
  }
}
