/* The matrix-vector product of unpacked types, int8 activations, with either relaxed dot product;
 * and the kernels of these types. Codes are 0..127; bounds: decoder_relaxed.h. */
#include "fused.h"
#include "kernels/activations.h"
#include "kernels/decoder.h"
#include "kernels/group.h"
#include "kernels/unpacked.h"

/* The dot product of 16 codes and activations, times a scale. dot16: `scale` holds it in every
 * int16 lane, and the pairs (at most 2 * 127 * 127) fit int16. dot32: in every int32 lane. */
FM_INLINE v128_t scaled_dot(const uint8_t *code, const int8_t *q, v128_t scale, int dot) {
  v128_t codes = wasm_v128_load(code), acts = wasm_v128_load(q);
  return dot == FM_DOT_I32
             ? wasm_i32x4_mul(wasm_i32x4_relaxed_dot_i8x16_i7x16_add(acts, codes, fm_zero()), scale)
             : wasm_i32x4_dot_i16x8(wasm_i16x8_relaxed_dot_i8x16_i7x16(acts, codes), scale);
}

FM_INLINE v128_t splat_scale(const int16_t *scale, int dot) {
  return dot == FM_DOT_I32 ? wasm_i32x4_splat(*scale) : wasm_v128_load16_splat(scale);
}

/* K types: the integer sum of a group, in four lanes to be added. */
FM_INLINE v128_t k_group(const fm_layout *layout, const uint8_t *code, const int16_t *scale,
                         const fm_act_i8 *a, int dot) {
  const int8_t *q = a->q;
  v128_t even = fm_zero(), odd = fm_zero(), sums;
  if (layout->sub == 32) {
    FM_NO_UNROLL
    for (size_t s = 0; s < 8; s++, code += 32, q += 32) {
      v128_t by = splat_scale(scale + s, dot);
      even = wasm_i32x4_add(even, scaled_dot(code, q, by, dot));
      odd = wasm_i32x4_add(odd, scaled_dot(code + 16, q + 16, by, dot));
    }
    sums = wasm_i32x4_dot_i16x8(wasm_v128_load(a->sum32), wasm_v128_load(scale));
  } else {
    FM_NO_UNROLL
    for (size_t s = 0; s < 16; s += 2, code += 32, q += 32) {
      even = wasm_i32x4_add(even, scaled_dot(code, q, splat_scale(scale + s, dot), dot));
      odd =
          wasm_i32x4_add(odd, scaled_dot(code + 16, q + 16, splat_scale(scale + s + 1, dot), dot));
    }
    sums = wasm_i32x4_add(
        wasm_i32x4_dot_i16x8(wasm_v128_load(a->sum16), wasm_v128_load(scale)),
        wasm_i32x4_dot_i16x8(wasm_v128_load(a->sum16 + 8), wasm_v128_load(scale + 8)));
  }
  return wasm_i32x4_sub(wasm_i32x4_add(even, odd),
                        wasm_i32x4_mul(sums, wasm_i32x4_splat(layout->bias)));
}

FM_INLINE v128_t scaled(v128_t sums, const float *scale, const float *d) {
  return wasm_f32x4_mul(
      wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sums), wasm_v128_load32_splat(scale)),
      wasm_v128_load32_splat(d));
}

/* Two scales of activations, each for two sub-blocks of 16 columns. */
FM_INLINE v128_t pairs_of(const float two[2]) {
  v128_t v = wasm_v128_load64_zero(two);
  return wasm_i32x4_shuffle(v, v, 0, 0, 1, 1);
}

/* f32 scales: the dot product of a group. */
FM_INLINE v128_t f32_group(const fm_layout *layout, const uint8_t *code, const float *scale,
                           const fm_act_i8 *a, int dot, v128_t ones) {
  const size_t sub = layout->sub, n_subs = FM_GROUP_COLS / sub;
  const int8_t *q = a->q;
  const int16_t *act_sums = sub == 32 ? a->sum32 : a->sum16;
  v128_t even = fm_zero(), odd = fm_zero(), biased = fm_zero();
  FM_NO_UNROLL
  for (size_t s = 0; s < n_subs; s += 2) { /* two sums, so that additions wait less */
    v128_t sum[2] = {scaled_dot(code, q, ones, dot), scaled_dot(code + sub, q + sub, ones, dot)};
    if (sub == 32) {
      sum[0] = wasm_i32x4_add(sum[0], scaled_dot(code + 16, q + 16, ones, dot));
      sum[1] = wasm_i32x4_add(sum[1], scaled_dot(code + 48, q + 48, ones, dot));
    }
    const float *d = a->d + s * sub / FM_ACT_SUB;
    even = wasm_f32x4_add(even, scaled(sum[0], scale + s, d));
    odd = wasm_f32x4_add(odd, scaled(sum[1], scale + s + 1, d + sub / FM_ACT_SUB));
    code += 2 * sub;
    q += 2 * sub;
  }
  for (size_t s = 0; s < n_subs; s += 4) {
    v128_t sums = wasm_f32x4_convert_i32x4(wasm_i32x4_load16x4(act_sums + s));
    v128_t by = sub == 32 ? wasm_v128_load(a->d + s) : pairs_of(a->d + s / 2);
    biased =
        wasm_f32x4_add(biased, wasm_f32x4_mul(wasm_f32x4_mul(sums, wasm_v128_load(scale + s)), by));
  }
  return wasm_f32x4_sub(wasm_f32x4_add(even, odd),
                        wasm_f32x4_mul(biased, wasm_f32x4_splat((float)layout->bias)));
}

FM_INLINE void gemv(const fm_simd128_kernels *type, const uint8_t *w, size_t row_bytes,
                    const void *x, float *y, size_t n_rows, size_t n_values, bool accumulate,
                    int dot) {
  uint8_t padded[FM_MAX_GROUP_BYTES], codes[FM_STRIP_COLS];
  int16_t integers[FM_STRIP_COLS / 16];
  float scale[FM_STRIP_COLS / 16], d[FM_STRIP_COLS / FM_GROUP_COLS];
  const fm_layout *layout = type->layout;
  const size_t n_groups = (n_values + FM_GROUP_COLS - 1) / FM_GROUP_COLS,
               n_subs = FM_GROUP_COLS / layout->sub;
  v128_t ones = fm_hold_i32(dot == FM_DOT_I32 ? 1 : 0x00010001);
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const fm_act_i8 *a = x;
    v128_t acc = fm_zero();
    for (size_t first = 0; first < n_groups;) {
      fm_row_part part = fm_part_of(layout, w, first, n_values, padded);
      if (part.n > FM_STRIP_COLS / FM_GROUP_COLS) part.n = FM_STRIP_COLS / FM_GROUP_COLS;
      type->unpack(part.group, part.n, codes);
      if (type->integers) {
        type->integers(part.group, part.n, integers, d);
        FM_NO_UNROLL
        for (size_t i = 0; i < part.n; i++, a++) {
          v128_t sum = k_group(layout, codes + FM_GROUP_COLS * i, integers + n_subs * i, a, dot);
          acc = wasm_f32x4_add(
              acc, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), wasm_f32x4_splat(d[i] * a->d[0])));
        }
      } else {
        type->f32_scales(part.group, part.n, scale, NULL);
        FM_NO_UNROLL
        for (size_t i = 0; i < part.n; i++, a++) {
          v128_t sum =
              f32_group(layout, codes + FM_GROUP_COLS * i, scale + n_subs * i, a, dot, ones);
          acc = wasm_f32x4_add(acc, sum);
        }
      }
      first += part.n;
    }
    float sum = fm_hsum_f32(acc);
    y[r] = accumulate ? y[r] + sum : sum;
  }
}

static void fm_gemv_unpacked_i8_dot16__relaxed(const fm_simd128_kernels *type, const uint8_t *w,
                                               size_t row_bytes, const void *x, float *y,
                                               size_t n_rows, size_t n_values, bool accumulate) {
  gemv(type, w, row_bytes, x, y, n_rows, n_values, accumulate, FM_DOT_I16);
}

static void fm_gemv_unpacked_i8_dot32__relaxed(const fm_simd128_kernels *type, const uint8_t *w,
                                               size_t row_bytes, const void *x, float *y,
                                               size_t n_rows, size_t n_values, bool accumulate) {
  gemv(type, w, row_bytes, x, y, n_rows, n_values, accumulate, FM_DOT_I32);
}

#define FM_GEMV_UNPACKED(name, dot)                                                                \
  static void gemv_##name##_i8_##dot##__relaxed(const uint8_t *w, size_t row_bytes,                \
                                                const uint8_t *end, const void *x, float *y,       \
                                                size_t n_rows, size_t n_values, bool accumulate) { \
    (void)end;                                                                                     \
    fm_gemv_unpacked_i8_##dot##__relaxed(&fm_##name##__simd128, w, row_bytes, x, y, n_rows,        \
                                         n_values, accumulate);                                    \
  }

/* Makes the kernels of a type, fm_<name>__relaxed; scales: k or f32, as in its layout. */
#define FM_UNPACKED_KERNELS(name, scales)                                                          \
  FM_GEMV_UNPACKED(name, dot16)                                                                    \
  FM_GEMV_UNPACKED(name, dot32)                                                                    \
  const fm_relaxed_kernels fm_##name##__relaxed = {                                                \
      {gemv_##name##_i8_dot16__relaxed, gemv_##name##_i8_dot32__relaxed},                          \
      {fm_gemm_i8_##scales##_dot16__relaxed, fm_gemm_i8_##scales##_dot32__relaxed},                \
      {NULL, NULL}};

FM_UNPACKED_KERNELS(q1_0, f32)
FM_UNPACKED_KERNELS(q2_0, f32)
FM_UNPACKED_KERNELS(nvfp4, f32)
FM_UNPACKED_KERNELS(iq1_s, k)
FM_UNPACKED_KERNELS(iq1_m, k)
FM_UNPACKED_KERNELS(iq2_xxs, k)
FM_UNPACKED_KERNELS(iq2_xs, k)
FM_UNPACKED_KERNELS(iq2_s, k)
FM_UNPACKED_KERNELS(iq3_xxs, k)
FM_UNPACKED_KERNELS(iq3_s, k)
