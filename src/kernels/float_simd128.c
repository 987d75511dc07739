/* F16 and BF16 weights, and the f32 product of a decoded row with tokens. */
#include "formats/f16.h"
#include "kernels/kernels.h"
#include "kernels/v128.h"

void fm_dequantize_f16__simd128(const void *w, float *y, size_t n_values) {
  const uint16_t *half = w;
  fm_f16_held held = fm_hold_f16();
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 8 <= n_values; i += 8) {
    v128_t eight = wasm_v128_load(half + i);
    wasm_v128_store(y + i, fm_f16x4_to_f32x4(wasm_u32x4_extend_low_u16x8(eight), &held));
    wasm_v128_store(y + i + 4, fm_f16x4_to_f32x4(wasm_u32x4_extend_high_u16x8(eight), &held));
  }
  FM_NO_UNROLL
  for (; i < n_values; i++) y[i] = fm_f16_to_f32(half[i]);
}

/* n_tok (1 or 4) tokens share each load of w; 8 / n_tok vector sums per token hide the latency of the addition. */
FM_INLINE void dot_tokens(const float *w, const float *x, float *y, size_t n_cols, size_t n_tok, size_t x_stride,
                          size_t y_stride, bool accumulate) {
  const size_t n_sums = 8 / n_tok, step = 4 * n_sums;
  v128_t sum[8];
  for (size_t i = 0; i < 8; i++) sum[i] = fm_zero();
  size_t c = 0;
  FM_NO_UNROLL
  for (; c + step <= n_cols; c += step) {
    for (size_t k = 0; k < n_sums; k++) {
      v128_t weights = wasm_v128_load(w + c + 4 * k);
      for (size_t t = 0; t < n_tok; t++) {
        v128_t product = wasm_f32x4_mul(wasm_v128_load(x + t * x_stride + c + 4 * k), weights);
        sum[t * n_sums + k] = wasm_f32x4_add(sum[t * n_sums + k], product);
      }
    }
  }
  for (size_t t = 0; t < n_tok; t++) {
    v128_t total = sum[t * n_sums];
    for (size_t k = 1; k < n_sums; k++) total = wasm_f32x4_add(total, sum[t * n_sums + k]);
    float value = fm_hsum_f32(total);
    FM_NO_UNROLL
    for (size_t k = c; k < n_cols; k++) value += x[t * x_stride + k] * w[k];
    y[t * y_stride] = accumulate ? y[t * y_stride] + value : value;
  }
}

void fm_dot_f32__simd128(const float *w, const float *x, float *y, size_t n_cols, size_t n_tokens, size_t x_stride,
                         size_t y_stride, bool accumulate) {
  size_t t = 0;
  FM_NO_UNROLL
  for (; t + 4 <= n_tokens; t += 4) {
    dot_tokens(w, x + t * x_stride, y + t * y_stride, n_cols, 4, x_stride, y_stride, accumulate);
  }
  FM_NO_UNROLL
  for (; t < n_tokens; t++) {
    dot_tokens(w, x + t * x_stride, y + t * y_stride, n_cols, 1, x_stride, y_stride, accumulate);
  }
}

void fm_dequantize_bf16__simd128(const void *w, float *y, size_t n_values) {
  const uint16_t *half = w;
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 8 <= n_values; i += 8) {
    v128_t eight = wasm_v128_load(half + i);
    wasm_v128_store(y + i, wasm_i16x8_shuffle(fm_zero(), eight, 0, 8, 0, 9, 0, 10, 0, 11));
    wasm_v128_store(y + i + 4, wasm_i16x8_shuffle(fm_zero(), eight, 0, 12, 0, 13, 0, 14, 0, 15));
  }
  FM_NO_UNROLL
  for (; i < n_values; i++) y[i] = fm_f32_from_bits((uint32_t)half[i] << 16);
}

/* The matrix-vector product of 16-bit floats, converted in registers. A vector of 8 is taken as 4 lanes of two: the odd values
 * stand in the upper halves, the even ones are shifted there; the activations are dealt out the same way. */
typedef struct {
  v128_t even, odd;
} even_odd;

FM_INLINE v128_t f16_upper(v128_t lanes, const fm_f16_held *held) {
  return wasm_f32x4_mul(wasm_v128_and(wasm_i32x4_shr(lanes, 3), held->sign_and_magnitude), held->scale);
}

FM_INLINE even_odd convert(v128_t eight, bool is_f16, const fm_f16_held *held, v128_t upper_half) {
  v128_t even = wasm_i32x4_shl(eight, 16);
  if (is_f16) return (even_odd){f16_upper(even, held), f16_upper(eight, held)};
  return (even_odd){even, wasm_v128_and(eight, upper_half)};
}

/* Two rows share each load of x and its dealing out; false where one holds Inf or NaN, which the short conversion of f16 does
 * not know. largest: of the magnitudes of both rows, as 16-bit integers without the sign. */
FM_INLINE bool dot_two_rows(const uint16_t *const w[2], const float *x, size_t n_cols, bool is_f16, float out[2]) {
  fm_f16_held held = fm_hold_f16();
  v128_t upper_half = fm_hold_i32(0xffff0000u), largest = fm_zero();
  even_odd sum[2] = {{fm_zero(), fm_zero()}, {fm_zero(), fm_zero()}};
  size_t c = 0;
  FM_NO_UNROLL
  for (; c + 8 <= n_cols; c += 8) {
    v128_t lo = wasm_v128_load(x + c), hi = wasm_v128_load(x + c + 4);
    even_odd acts = {wasm_i32x4_shuffle(lo, hi, 0, 2, 4, 6), wasm_i32x4_shuffle(lo, hi, 1, 3, 5, 7)};
    FM_UNROLL
    for (size_t r = 0; r < 2; r++) {
      v128_t eight = wasm_v128_load(w[r] + c);
      even_odd value = convert(eight, is_f16, &held, upper_half);
      if (is_f16) largest = wasm_u16x8_max(largest, wasm_i16x8_add(eight, eight));
      sum[r].even = wasm_f32x4_add(sum[r].even, wasm_f32x4_mul(value.even, acts.even));
      sum[r].odd = wasm_f32x4_add(sum[r].odd, wasm_f32x4_mul(value.odd, acts.odd));
    }
  }
  for (size_t r = 0; r < 2; r++) {
    out[r] = fm_hsum_f32(wasm_f32x4_add(sum[r].even, sum[r].odd));
    FM_NO_UNROLL
    for (size_t k = c; k < n_cols; k++) {
      out[r] += x[k] * (is_f16 ? fm_f16_to_f32(w[r][k]) : fm_f32_from_bits((uint32_t)w[r][k] << 16));
    }
  }
  return !wasm_v128_any_true(wasm_u16x8_ge(largest, wasm_i16x8_const_splat((int16_t)0xf800)));
}

bool fm_two_rows_f16__simd128(const void *const w[2], const float *x, size_t n_cols, float out[2]) {
  const uint16_t *const rows[2] = {w[0], w[1]};
  return dot_two_rows(rows, x, n_cols, true, out);
}

bool fm_two_rows_bf16__simd128(const void *const w[2], const float *x, size_t n_cols, float out[2]) {
  const uint16_t *const rows[2] = {w[0], w[1]};
  return dot_two_rows(rows, x, n_cols, false, out);
}
