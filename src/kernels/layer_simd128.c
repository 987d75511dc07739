/* The operations of a layer that are no products, four lanes at a time. The scalar twin in
 * layer_scalar.c gives the same bits. Contracts: layer.h. */
#include <math.h>
#include <string.h>

#include "formats/f16.h"
#include "kernels/exp.h"
#include "kernels/layer.h"
#include "kernels/source.h"
#include "kernels/v128.h"

/* Four numbers as two vectors of f64. */
typedef struct {
  v128_t lo, hi;
} f64x4;

FM_INLINE f64x4 widen(v128_t v) {
  return (f64x4){wasm_f64x2_promote_low_f32x4(v),
                 wasm_f64x2_promote_low_f32x4(wasm_i64x2_shuffle(v, v, 1, 1))};
}
FM_INLINE f64x4 add4(f64x4 a, f64x4 b) {
  return (f64x4){wasm_f64x2_add(a.lo, b.lo), wasm_f64x2_add(a.hi, b.hi)};
}
FM_INLINE f64x4 centred4(v128_t x, v128_t mean) {
  f64x4 doubles = widen(x);
  return (f64x4){wasm_f64x2_sub(doubles.lo, mean), wasm_f64x2_sub(doubles.hi, mean)};
}
FM_INLINE f64x4 squared(f64x4 a) {
  return (f64x4){wasm_f64x2_mul(a.lo, a.lo), wasm_f64x2_mul(a.hi, a.hi)};
}

/* The four partial sums; values left over at the end of a row are added to the first ones. */
typedef struct {
  double part[4];
} parts;

static parts spill(f64x4 sum) {
  parts out;
  wasm_v128_store(out.part, sum.lo);
  wasm_v128_store(out.part + 2, sum.hi);
  return out;
}
static double sum_parts(const parts *p) {
  return (p->part[0] + p->part[2]) + (p->part[1] + p->part[3]);
}

void fm_layer_norm__simd128(const float *x, const float *weight, const float *bias, float *y,
                            size_t n_values, float eps) {
  f64x4 sum = {fm_zero(), fm_zero()};
  size_t n = n_values & ~(size_t)3;
  FM_NO_UNROLL
  for (size_t i = 0; i < n; i += 4) sum = add4(sum, widen(wasm_v128_load(x + i)));
  parts p = spill(sum);
  FM_NO_UNROLL
  for (size_t i = n; i < n_values; i++) p.part[i - n] += (double)x[i];
  double mean = sum_parts(&p) / (double)n_values;
  v128_t means = wasm_f64x2_splat(mean);

  sum = (f64x4){fm_zero(), fm_zero()};
  FM_NO_UNROLL
  for (size_t i = 0; i < n; i += 4)
    sum = add4(sum, squared(centred4(wasm_v128_load(x + i), means)));
  p = spill(sum);
  FM_NO_UNROLL
  for (size_t i = n; i < n_values; i++)
    p.part[i - n] += ((double)x[i] - mean) * ((double)x[i] - mean);
  float factor = fm_rms_factor(sum_parts(&p), n_values, eps);
  v128_t factors = wasm_f32x4_splat(factor);

  FM_NO_UNROLL
  for (size_t i = 0; i < n; i += 4) {
    f64x4 c = centred4(wasm_v128_load(x + i), means);
    v128_t value = wasm_i64x2_shuffle(wasm_f32x4_demote_f64x2_zero(c.lo),
                                      wasm_f32x4_demote_f64x2_zero(c.hi), 0, 2);
    value = wasm_f32x4_mul(value, factors);
    if (weight) value = wasm_f32x4_mul(value, wasm_v128_load(weight + i));
    wasm_v128_store(y + i, bias ? wasm_f32x4_add(value, wasm_v128_load(bias + i)) : value);
  }
  FM_NO_UNROLL
  for (size_t i = n; i < n_values; i++) {
    float value = (float)((double)x[i] - mean) * factor;
    if (weight) value *= weight[i];
    y[i] = bias ? value + bias[i] : value;
  }
}

/* pmax(a, b) is a < b ? b : a, as the scalar twin has it; the order of a maximum changes
 * nothing. */
static float row_max(const float *x, size_t n_values) {
  float max = x[0];
  size_t i = 0;
  if (n_values >= 4) {
    v128_t four = wasm_v128_load(x);
    FM_NO_UNROLL
    for (i = 4; i + 4 <= n_values; i += 4) four = wasm_f32x4_pmax(four, wasm_v128_load(x + i));
    four = wasm_f32x4_pmax(four, wasm_i32x4_shuffle(four, four, 2, 3, 0, 1));
    four = wasm_f32x4_pmax(four, wasm_i32x4_shuffle(four, four, 1, 0, 3, 2));
    max = wasm_f32x4_extract_lane(four, 0);
  }
  FM_NO_UNROLL
  for (; i < n_values; i++) max = max < x[i] ? x[i] : max;
  return max == -(float)INFINITY ? 0.0f : max;
}

/* y = e^(x - max), and their sum; n_values is a multiple of 4. */
static __attribute__((noinline)) f64x4 exponentials(const float *x, float *y, size_t n_values,
                                                    float max, f64x4 sum) {
  fm_exp_held held = fm_hold_exp();
  v128_t maxima = wasm_f32x4_splat(max);
  FM_NO_UNROLL
  for (size_t i = 0; i < n_values; i += 4) {
    v128_t e = fm_exp_f32x4(wasm_f32x4_sub(wasm_v128_load(x + i), maxima), &held);
    wasm_v128_store(y + i, e);
    sum = add4(sum, widen(e));
  }
  return sum;
}

void fm_softmax__simd128(const float *x, float *y, size_t n_values) {
  float max = row_max(x, n_values);
  size_t n = n_values & ~(size_t)3, rest = n_values - n;
  f64x4 sum = exponentials(x, y, n, max, (f64x4){fm_zero(), fm_zero()});
  if (rest > 0) {
    float four[4];
    wasm_v128_store(four, wasm_f32x4_const_splat(-(float)INFINITY));
    memcpy(four, x + n, rest * sizeof *x);
    sum = exponentials(four, four, 4, max, sum);
    memcpy(y + n, four, rest * sizeof *y);
  }
  parts p = spill(sum);
  double total = sum_parts(&p);
  fm_scale__simd128(y, NULL, total == 0.0 ? 0.0f : (float)(1.0 / total), y, n_values);
}

/* Adjacent pairs, a0 b0 a1 b1 | a2 b2 a3 b3, are split into a and b and put together again. */
void fm_rotate__simd128(float *x, size_t distance, const float *cosine, const float *sine,
                        size_t n_pairs) {
  const bool adjacent = distance == 1;
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 4 <= n_pairs; i += 4, x += adjacent ? 8 : 4) {
    float *second = adjacent ? x + 4 : x + distance;
    v128_t a = wasm_v128_load(x), b = wasm_v128_load(second);
    v128_t c = wasm_v128_load(cosine + i), s = wasm_v128_load(sine + i);
    if (adjacent) {
      v128_t even = wasm_i32x4_shuffle(a, b, 0, 2, 4, 6);
      b = wasm_i32x4_shuffle(a, b, 1, 3, 5, 7);
      a = even;
    }
    v128_t first = wasm_f32x4_sub(wasm_f32x4_mul(a, c), wasm_f32x4_mul(b, s));
    v128_t other = wasm_f32x4_add(wasm_f32x4_mul(a, s), wasm_f32x4_mul(b, c));
    if (adjacent) {
      v128_t low = wasm_i32x4_shuffle(first, other, 0, 4, 1, 5);
      other = wasm_i32x4_shuffle(first, other, 2, 6, 3, 7);
      first = low;
    }
    wasm_v128_store(x, first);
    wasm_v128_store(second, other);
  }
  fm_rotate__scalar(x, distance, cosine + i, sine + i, n_pairs - i);
}

void fm_add__simd128(const float *a, const float *b, float *y, size_t n_values) {
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 8 <= n_values; i += 8) {
    v128_t lo = wasm_f32x4_add(wasm_v128_load(a + i), wasm_v128_load(b + i));
    v128_t hi = wasm_f32x4_add(wasm_v128_load(a + i + 4), wasm_v128_load(b + i + 4));
    wasm_v128_store(y + i, lo);
    wasm_v128_store(y + i + 4, hi);
  }
  fm_add__scalar(a + i, b + i, y + i, n_values - i);
}

void fm_add_scaled__simd128(const float *a, const float *b, float factor, float *y,
                            size_t n_values) {
  v128_t factors = wasm_f32x4_splat(factor);
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 8 <= n_values; i += 8) {
    v128_t lo = wasm_f32x4_mul(wasm_v128_load(b + i), factors),
           hi = wasm_f32x4_mul(wasm_v128_load(b + i + 4), factors);
    lo = wasm_f32x4_add(wasm_v128_load(a + i), lo);
    hi = wasm_f32x4_add(wasm_v128_load(a + i + 4), hi);
    wasm_v128_store(y + i, lo);
    wasm_v128_store(y + i + 4, hi);
  }
  fm_add_scaled__scalar(a + i, b + i, factor, y + i, n_values - i);
}

/* fm_f32_to_f16, with its four cases selected by masks. */
FM_INLINE v128_t to_f16x4(v128_t x) {
  v128_t magnitude = wasm_v128_and(x, wasm_i32x4_const_splat(0x7fffffff));
  v128_t sign = wasm_u32x4_shr(wasm_v128_xor(x, magnitude), 16);
  v128_t odd = wasm_v128_and(wasm_u32x4_shr(magnitude, 13), wasm_i32x4_const_splat(1));
  v128_t rounded =
      wasm_i32x4_add(wasm_i32x4_add(magnitude, odd), wasm_i32x4_const_splat(0xfff - 0x38000000));
  v128_t f16 = wasm_u32x4_shr(rounded, 13);
  v128_t tiny = wasm_i32x4_sub(wasm_f32x4_add(magnitude, wasm_f32x4_const_splat(0.5f)),
                               wasm_i32x4_const_splat(0x3f000000));
  f16 =
      wasm_v128_bitselect(tiny, f16, wasm_i32x4_lt(magnitude, wasm_i32x4_const_splat(0x38800000)));
  v128_t over = wasm_i32x4_ge(magnitude, wasm_i32x4_const_splat(0x477ff000));
  v128_t nan = wasm_i32x4_gt(magnitude, wasm_i32x4_const_splat(0x7f800000));
  v128_t special = wasm_v128_or(wasm_i32x4_const_splat(0x7c00),
                                wasm_v128_and(nan, wasm_i32x4_const_splat(0x200)));
  return wasm_v128_or(wasm_v128_bitselect(special, f16, over), sign);
}

void fm_to_f16__simd128(const float *x, uint16_t *y, size_t n_values) {
  size_t i = 0;
  FM_NO_UNROLL
  for (; i + 4 <= n_values; i += 4) {
    v128_t f16 = to_f16x4(wasm_v128_load(x + i));
    wasm_v128_store64_lane(y + i, wasm_u16x8_narrow_i32x4(f16, f16), 0);
  }
  fm_to_f16__scalar(x + i, y + i, n_values - i);
}
