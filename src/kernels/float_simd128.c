/* F16 and BF16 weights, and the f32 product of a dequantised row with tokens. Contracts:
 * floats.h. */
#include "formats/f16.h"
#include "kernels/floats.h"
#include "kernels/v128.h"

void fm_dequantize_f16__simd128(const void *w, float *y, size_t n_values) {
  const uint16_t *bits = w;
  fm_f16_held held = fm_hold_f16();
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 8 <= n_values; i += 8) {
    v128_t eight = wasm_v128_load(bits + i);
    wasm_v128_store(y + i, fm_f16x4_to_f32x4(wasm_u32x4_extend_low_u16x8(eight), &held));
    wasm_v128_store(y + i + 4, fm_f16x4_to_f32x4(wasm_u32x4_extend_high_u16x8(eight), &held));
  }
  FM_NO_UNROLL
  for (; i < n_values; i++) y[i] = fm_f16_to_f32(bits[i]);
}

/* n_tok (1 or 4) tokens share each load of w; 8 / n_tok vector sums per token hide the latency of
 * the addition. */
FM_INLINE void dot_tokens(const float *w, const float *x, float *y, size_t n_cols, size_t n_tok,
                          size_t x_stride, size_t y_stride, bool accumulate) {
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

void fm_dot_f32__simd128(const float *w, const float *x, float *y, size_t n_cols, size_t n_tokens,
                         size_t x_stride, size_t y_stride, bool accumulate) {
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
  const uint16_t *bits = w;
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 8 <= n_values; i += 8) {
    v128_t eight = wasm_v128_load(bits + i);
    wasm_v128_store(y + i, wasm_i16x8_shuffle(fm_zero(), eight, 0, 8, 0, 9, 0, 10, 0, 11));
    wasm_v128_store(y + i + 4, wasm_i16x8_shuffle(fm_zero(), eight, 0, 12, 0, 13, 0, 14, 0, 15));
  }
  FM_NO_UNROLL
  for (; i < n_values; i++) y[i] = fm_f32_from_bits((uint32_t)bits[i] << 16);
}

/* The matrix-vector product of 16-bit floats, converted in registers. A vector of 8 values is 4
 * lanes of two: the odd values are the upper 16 bits, and the even ones are shifted there. The
 * activations are dealt the same way, once for all rows. The bits of an f16 at their f32 places are
 * w * 2^-112; x is scaled by 2^64 and the sum by 2^48 to make up for it. With |w| >= 2^-24 and
 * 2^-54 <= |x| < 2^60 every product is a normal number, so only rounding is lost. */
#define F16_X_SCALE 0x1p64f
#define F16_SUM_SCALE 0x1p48f
#define F16_X_LOWEST 0x24800000  /* 2^-54 */
#define F16_X_HIGHEST 0x5d800000 /* 2^60 */

/* Whether a lane is neither 0 nor from 2^-54 to 2^60. */
FM_INLINE v128_t is_extreme(v128_t x) {
  v128_t magnitude = wasm_v128_and(x, wasm_i32x4_const_splat(0x7fffffff));
  v128_t out = wasm_u32x4_ge(wasm_i32x4_sub(magnitude, wasm_i32x4_const_splat(F16_X_LOWEST)),
                             wasm_i32x4_const_splat(F16_X_HIGHEST - F16_X_LOWEST));
  return wasm_v128_and(out, wasm_i32x4_ne(magnitude, fm_zero()));
}

static bool deal(const float *x, float *dealt, size_t n_cols, float scale) {
  v128_t factor = wasm_f32x4_splat(scale), extreme = fm_zero();
  size_t c = 0;
  FM_NO_UNROLL
  for (; c + 8 <= n_cols; c += 8) {
    v128_t lo = wasm_v128_load(x + c), hi = wasm_v128_load(x + c + 4);
    extreme = wasm_v128_or(extreme, wasm_v128_or(is_extreme(lo), is_extreme(hi)));
    wasm_v128_store(dealt + c, wasm_f32x4_mul(wasm_i32x4_shuffle(lo, hi, 0, 2, 4, 6), factor));
    wasm_v128_store(dealt + c + 4, wasm_f32x4_mul(wasm_i32x4_shuffle(lo, hi, 1, 3, 5, 7), factor));
  }
  FM_NO_UNROLL
  for (; c < n_cols; c++) dealt[c] = x[c];
  return !wasm_v128_any_true(extreme);
}

bool fm_deal_f16__simd128(const float *x, float *dealt, size_t n_cols) {
  return deal(x, dealt, n_cols, F16_X_SCALE);
}
bool fm_deal_bf16__simd128(const float *x, float *dealt, size_t n_cols) {
  return deal(x, dealt, n_cols, 1.0f);
}

/* The constants of a row's loop. */
typedef struct {
  v128_t f16_mask, upper_half;
} row_held;

/* Adds 8 columns of W * x to sum, and keeps the largest magnitudes of W, as 16-bit integers without
 * the sign. */
FM_INLINE void dot8(const uint16_t *w, const float *x, bool is_f16, const row_held *held,
                    v128_t sum[2], v128_t *largest) {
  v128_t odd = wasm_v128_load(w), even = wasm_i32x4_shl(odd, 16);
  if (is_f16) {
    *largest = wasm_u16x8_max(*largest, wasm_i16x8_add(odd, odd));
    even = wasm_v128_and(wasm_i32x4_shr(even, 3), held->f16_mask);
    odd = wasm_v128_and(wasm_i32x4_shr(odd, 3), held->f16_mask);
  } else {
    odd = wasm_v128_and(odd, held->upper_half);
  }
  sum[0] = wasm_f32x4_add(sum[0], wasm_f32x4_mul(even, wasm_v128_load(x)));
  sum[1] = wasm_f32x4_add(sum[1], wasm_f32x4_mul(odd, wasm_v128_load(x + 4)));
}

/* One row with dealt activations; false where an f16 is Inf or NaN, which this conversion does not
 * support. */
FM_INLINE bool dot_row(const uint16_t *w, const float *x, size_t n_cols, bool is_f16, float *out) {
  row_held held = {fm_hold_i32(0x8fffe000u), fm_hold_i32(0xffff0000u)};
  v128_t largest = fm_zero(), sum[4] = {fm_zero(), fm_zero(), fm_zero(), fm_zero()};
  size_t c = 0;
  FM_NO_UNROLL
  for (; c + 16 <= n_cols; c += 16) {
    dot8(w + c, x + c, is_f16, &held, sum, &largest);
    dot8(w + c + 8, x + c + 8, is_f16, &held, sum + 2, &largest);
  }
  if (c + 8 <= n_cols) {
    dot8(w + c, x + c, is_f16, &held, sum, &largest);
    c += 8;
  }
  bool finite =
      !wasm_v128_any_true(wasm_u16x8_ge(largest, wasm_i16x8_const_splat((int16_t)0xf800)));
  float total =
      fm_hsum_f32(wasm_f32x4_add(wasm_f32x4_add(sum[0], sum[1]), wasm_f32x4_add(sum[2], sum[3])));
  if (is_f16) total *= F16_SUM_SCALE;
  FM_NO_UNROLL
  for (; c < n_cols; c++)
    total += x[c] * (is_f16 ? fm_f16_to_f32(w[c]) : fm_f32_from_bits((uint32_t)w[c] << 16));
  *out = total;
  return finite;
}

bool fm_row_dot_f16__simd128(const void *w, const float *dealt, size_t n_cols, float *out) {
  return dot_row(w, dealt, n_cols, true, out);
}

bool fm_row_dot_bf16__simd128(const void *w, const float *dealt, size_t n_cols, float *out) {
  return dot_row(w, dealt, n_cols, false, out);
}
