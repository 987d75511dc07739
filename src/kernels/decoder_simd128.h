/* SIMD128 kernels for any decoder: the int16 matrix-vector product, and the codes and scales of
 * groups, for strips. */
#ifndef FM_KERNELS_DECODER_SIMD128_H
#define FM_KERNELS_DECODER_SIMD128_H

#include "formats/f16.h"
#include "kernels/activations.h"
#include "kernels/decoder.h"
#include "kernels/group.h"

/* Decodes the codes of n groups. */
FM_INLINE void fm_decoder_unpack(const fm_decoder *decoder, const uint8_t *group, size_t n,
                                 uint8_t *codes) {
  fm_held held = decoder->hold();
  FM_NO_UNROLL
  for (; n; n--, group += decoder->layout.group_bytes, codes += FM_GROUP_COLS) {
    if (decoder->unpack) {
      decoder->unpack(group, codes);
      continue;
    }
    FM_NO_UNROLL
    for (size_t half = 0; half < 2; half++) {
      FM_UNROLL
      for (size_t j = 0; j < 8; j++)
        wasm_v128_store(codes + 128 * half + 16 * j, decoder->codes(group, half, j, &held));
    }
  }
}

/* Stores the f32 scales or mins of a K type's group: d times the integers. */
FM_INLINE void fm_store_k_scales(float *out, fm_lanes16 lanes, float scale, size_t sub) {
  v128_t d = wasm_f32x4_splat(scale);
  wasm_v128_store(out, wasm_f32x4_mul(d, fm_low_i16_to_f32(lanes.lo)));
  wasm_v128_store(out + 4, wasm_f32x4_mul(d, fm_high_i16_to_f32(lanes.lo)));
  if (sub == 32) return;
  wasm_v128_store(out + 8, wasm_f32x4_mul(d, fm_low_i16_to_f32(lanes.hi)));
  wasm_v128_store(out + 12, wasm_f32x4_mul(d, fm_high_i16_to_f32(lanes.hi)));
}

FM_INLINE void fm_decoder_f32_scales(const fm_decoder *decoder, const uint8_t *group, size_t n,
                                     float *scale, float *min) {
  const fm_layout *layout = &decoder->layout;
  fm_held held = decoder->hold();
  FM_NO_UNROLL
  for (; n; n--, group += layout->group_bytes, scale += FM_GROUP_COLS / layout->sub,
            min += FM_GROUP_COLS / layout->sub) {
    if (layout->kind == FM_SCALES_K) {
      fm_f16_scales stored =
          decoder->f16_scales(group); /* not fm_decoder_d: dequantisation needs the sign of zero */
      fm_store_k_scales(scale, decoder->k_scales(group), fm_f16_to_f32(stored.d), layout->sub);
      if (layout->has_min)
        fm_store_k_scales(min, decoder->k_mins(group), fm_f16_to_f32(stored.dmin), layout->sub);
      continue;
    }
    FM_NO_UNROLL
    for (size_t half = 0; half < 2; half++) {
      wasm_v128_store(scale + 4 * half, decoder->f32_scales(group, half, &held));
      if (layout->has_min) wasm_v128_store(min + 4 * half, decoder->f32_mins(group, half, &held));
    }
  }
}

/* Stores the scales and mins of 8 sub-blocks; layout: strip.h. */
FM_INLINE void fm_store_strip_k(const fm_layout *layout, v128_t scales, v128_t mins, bool dot32,
                                int32_t *scale, int16_t *min) {
  if (dot32) {
    wasm_v128_store(scale, wasm_i32x4_extend_low_i16x8(scales));
    wasm_v128_store(scale + 4, wasm_i32x4_extend_high_i16x8(scales));
  } else {
    wasm_v128_store(scale, wasm_i16x8_shuffle(scales, scales, 0, 0, 1, 1, 2, 2, 3, 3));
    wasm_v128_store(scale + 4, wasm_i16x8_shuffle(scales, scales, 4, 4, 5, 5, 6, 6, 7, 7));
  }
  wasm_v128_store(min, layout->has_min
                           ? mins
                           : wasm_i16x8_mul(scales, wasm_i16x8_splat((int16_t)layout->bias)));
}

FM_INLINE void fm_decoder_k_scales(const fm_decoder *decoder, const uint8_t *group, size_t n,
                                   bool dot32, fm_strip_k_row out) {
  const fm_layout *layout = &decoder->layout;
  FM_NO_UNROLL
  for (size_t i = 0; i < n; i++, group += layout->group_bytes) {
    fm_lanes16 scales = decoder->k_scales(group),
               mins = layout->has_min ? decoder->k_mins(group) : scales;
    __asm__("" : "+r"(dot32)); /* keeps compilers from making two loops */
    fm_store_strip_k(layout, scales.lo, mins.lo, dot32, out.scale, out.min);
    if (layout->sub == 16)
      fm_store_strip_k(layout, scales.hi, mins.hi, dot32, out.scale + 8, out.min + 8);
    fm_d_dmin dd = fm_decoder_d(decoder, group);
    out.d[i] = dd.d;
    out.dmin[i] = layout->has_min ? dd.dmin : dd.d;
    out.scale += FM_GROUP_COLS / layout->sub;
    out.min += FM_GROUP_COLS / layout->sub;
  }
}

/* The dot product of 16 codes and 16 activations, as fm_deal_i16 leaves them: four int32 lanes, at
 * most 4 * 255 * 32767 each. */
FM_INLINE v128_t fm_dot16_i16(const fm_decoder *decoder, const uint8_t *bytes, const int16_t *q,
                              size_t half, size_t j, const fm_held *held) {
  v128_t even, odd;
  if (decoder->nibbles) {
    fm_nibbles n = decoder->nibbles(bytes, half, j);
    even = wasm_v128_and(n.upper ? wasm_u16x8_shr(n.bytes, 4) : n.bytes, held->even_bytes);
    odd = n.upper ? wasm_u16x8_shr(n.bytes, 12)
                  : wasm_v128_and(wasm_u16x8_shr(n.bytes, 8), held->even_bytes);
  } else {
    v128_t codes = fm_decoder_codes(decoder, bytes, half, j, held);
    if (decoder->layout.wide) {
      even = wasm_i16x8_shr(wasm_i16x8_shl(codes, 8), 8);
      odd = wasm_i16x8_shr(codes, 8);
    } else {
      even = wasm_v128_and(codes, held->even_bytes);
      odd = wasm_u16x8_shr(codes, 8);
    }
  }
  return wasm_i32x4_add(wasm_i32x4_dot_i16x8(even, wasm_v128_load(q + 16 * j)),
                        wasm_i32x4_dot_i16x8(odd, wasm_v128_load(q + 16 * j + 8)));
}

/* The scales (mins) of one half, four sub-blocks a vector: one vector where sub-blocks have 32
 * columns, two where they have 16. For a K type these are the integers. */
typedef struct {
  v128_t quad[2];
} fm_half_scales;

FM_INLINE fm_half_scales fm_k_half_scales(v128_t of_half) {
  return (fm_half_scales){{fm_low_i16_to_f32(of_half), fm_high_i16_to_f32(of_half)}};
}

FM_INLINE v128_t fm_second_half(fm_lanes16 lanes, size_t sub) {
  return sub == 32 ? wasm_i64x2_shuffle(lanes.lo, lanes.lo, 1, 1) : lanes.hi;
}

/* The sums of a group, scale * (sum code * q) and min * (sum q), in four lanes to be added. */
typedef struct {
  v128_t codes, mins;
} fm_i16_sums;

/* Adds the sums of one half. The int32 sums of four sub-blocks (at most 32 * 255 * 32767 < 2^28)
 * are collected in one vector, which is multiplied by their four scales. */
FM_INLINE void fm_decoder_half_i16(const fm_decoder *decoder, const uint8_t *bytes,
                                   const fm_act_i16 *a, size_t half, fm_half_scales scales,
                                   fm_half_scales mins, const fm_held *held, fm_i16_sums *sums) {
  const size_t sub = decoder->layout.sub, per_sub = sub / 16;
  const int16_t *q = a->q + 128 * half;
  const float *act_sums = sub == 32 ? a->sum32 + 4 * half : a->sum16 + 8 * half;
  FM_UNROLL
  for (size_t quad = 0; quad < 32 / sub; quad++) {
    v128_t sum[4];
    FM_UNROLL
    for (size_t s = 0; s < 4; s++) {
      size_t j = (4 * quad + s) * per_sub;
      sum[s] = fm_dot16_i16(decoder, bytes, q, half, j, held);
      if (sub == 32)
        sum[s] = wasm_i32x4_add(sum[s], fm_dot16_i16(decoder, bytes, q, half, j + 1, held));
    }
    v128_t four = wasm_f32x4_convert_i32x4(fm_sum_four(sum[0], sum[1], sum[2], sum[3]));
    v128_t act_sum = wasm_v128_load(act_sums + 4 * quad);
    if (decoder->layout.bias) {
      four = wasm_f32x4_sub(four,
                            wasm_f32x4_mul(act_sum, wasm_f32x4_splat((float)decoder->layout.bias)));
    }
    sums->codes = wasm_f32x4_add(sums->codes, wasm_f32x4_mul(four, scales.quad[quad]));
    if (decoder->layout.has_min)
      sums->mins = wasm_f32x4_add(sums->mins, wasm_f32x4_mul(act_sum, mins.quad[quad]));
  }
}

/* The dot product of a group, without the activations' scale: K types. */
FM_INLINE v128_t fm_k_group_i16(const fm_decoder *decoder, const uint8_t *group,
                                const uint8_t *bytes, const fm_act_i16 *a, const fm_held *held) {
  const size_t sub = decoder->layout.sub;
  fm_lanes16 scales = decoder->k_scales(group),
             mins = decoder->layout.has_min ? decoder->k_mins(group) : scales;
  fm_i16_sums sums = {fm_zero(), fm_zero()};
  if (sub == 32) { /* without a loop, as in decoder_relaxed.h */
    fm_decoder_half_i16(decoder, bytes, a, 0, fm_k_half_scales(scales.lo),
                        fm_k_half_scales(mins.lo), held, &sums);
    fm_decoder_half_i16(decoder, bytes, a, 1, fm_k_half_scales(fm_second_half(scales, sub)),
                        fm_k_half_scales(fm_second_half(mins, sub)), held, &sums);
  } else {
    v128_t of_half = scales.lo, min_of_half = mins.lo;
    FM_NO_UNROLL
    for (size_t half = 0; half < 2; half++) {
      fm_decoder_half_i16(decoder, bytes, a, half, fm_k_half_scales(of_half),
                          fm_k_half_scales(min_of_half), held, &sums);
      of_half = fm_second_half(scales, sub);
      min_of_half = fm_second_half(mins, sub);
    }
  }
  fm_d_dmin dd = fm_decoder_d(decoder, group);
  v128_t total = wasm_f32x4_mul(sums.codes, wasm_f32x4_splat(dd.d));
  return decoder->layout.has_min
             ? wasm_f32x4_sub(total, wasm_f32x4_mul(sums.mins, wasm_f32x4_splat(dd.dmin)))
             : total;
}

/* The same for f32 scales. */
FM_INLINE v128_t fm_f32_group_i16(const fm_decoder *decoder, const uint8_t *group,
                                  const uint8_t *bytes, const fm_act_i16 *a, const fm_held *held) {
  fm_i16_sums sums = {fm_zero(), fm_zero()};
  FM_NO_UNROLL
  for (size_t half = 0; half < 2; half++) {
    fm_half_scales scale = {{decoder->f32_scales(group, half, held), fm_zero()}}, min = scale;
    if (decoder->layout.has_min)
      min = (fm_half_scales){{decoder->f32_mins(group, half, held), fm_zero()}};
    fm_decoder_half_i16(decoder, bytes, a, half, scale, min, held, &sums);
  }
  return decoder->layout.has_min ? wasm_f32x4_sub(sums.codes, sums.mins) : sums.codes;
}

FM_INLINE void fm_decoder_gemv_i16(const fm_decoder *decoder, const uint8_t *w, size_t row_bytes,
                                   const uint8_t *end, const void *x, float *y, size_t n_rows,
                                   size_t n_values, bool accumulate) {
  uint8_t padded[FM_MAX_GROUP_BYTES], buffer[FM_GROUP_COLS];
  fm_held held = decoder->hold();
  held.even_bytes = fm_hold_i32(decoder->nibbles ? 0x000f000f : 0x00ff00ff);
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const uint8_t *next = w;
    const fm_act_i16 *a = x;
    v128_t acc = fm_zero();
    size_t c = 0;
    do {
      fm_ask_ahead(&decoder->layout, next, end);
      const uint8_t *group = fm_group(&decoder->layout, next, n_values - c, padded);
      const uint8_t *bytes = fm_code_bytes(decoder, group, buffer);
      v128_t total = decoder->layout.kind == FM_SCALES_K
                         ? fm_k_group_i16(decoder, group, bytes, a, &held)
                         : fm_f32_group_i16(decoder, group, bytes, a, &held);
      acc = wasm_f32x4_add(acc, wasm_f32x4_mul(total, wasm_v128_load32_splat(&a->d)));
      c += FM_GROUP_COLS;
      next += decoder->layout.group_bytes;
      a++;
    } while (c < n_values);
    float sum = fm_hsum_f32(acc);
    y[r] = accumulate ? y[r] + sum : sum;
  }
}

/* Makes the kernels of a type, fm_<name>__simd128, from fm_<name>_decoder. scales: k or f32, as in
 * its layout. */
#define FM_KERNELS(name, scales) FM_KERNELS_##scales(name)
#define FM_WIDE_KERNELS(name, scales) FM_KERNELS_##scales(name)
#define FM_KERNELS_FOR_MANY(name) FM_KERNELS_k(name)
#define FM_KERNELS_f32(name) FM_SIMD128_KERNELS(name, NULL)
#define FM_KERNELS_k(name)                                                                         \
  static void k_scales_##name##__simd128(const uint8_t *group, size_t n, bool dot32,               \
                                         fm_strip_k_row out) {                                     \
    fm_decoder_k_scales(&fm_##name##_decoder, group, n, dot32, out);                               \
  }                                                                                                \
  FM_SIMD128_KERNELS(name, k_scales_##name##__simd128)
#define FM_SIMD128_KERNELS(name, k_scales_fn)                                                      \
  FM_UNPACK_AND_SCALES(name)                                                                       \
  static void gemv_##name##_i16__simd128(const uint8_t *w, size_t row_bytes, const uint8_t *end,   \
                                         const void *x, float *y, size_t n_rows, size_t n_values,  \
                                         bool accumulate) {                                        \
    fm_decoder_gemv_i16(&fm_##name##_decoder, w, row_bytes, end, x, y, n_rows, n_values,           \
                        accumulate);                                                               \
  }                                                                                                \
  FM_SIMD128_ROW(name, k_scales_fn)
#define FM_UNPACK_AND_SCALES(name)                                                                 \
  static void unpack_##name##__simd128(const uint8_t *group, size_t n, uint8_t *codes) {           \
    fm_decoder_unpack(&fm_##name##_decoder, group, n, codes);                                      \
  }                                                                                                \
  static void f32_scales_##name##__simd128(const uint8_t *group, size_t n, float *scale,           \
                                           float *min) {                                           \
    fm_decoder_f32_scales(&fm_##name##_decoder, group, n, scale, min);                             \
  }
#define FM_SIMD128_ROW(name, k_scales_fn)                                                          \
  const fm_simd128_kernels fm_##name##__simd128 = {.layout = &fm_##name##_decoder.layout,          \
                                                   .unpack = unpack_##name##__simd128,             \
                                                   .f32_scales = f32_scales_##name##__simd128,     \
                                                   .k_scales = k_scales_fn,                        \
                                                   .gemv_i16 = gemv_##name##_i16__simd128};

#endif
