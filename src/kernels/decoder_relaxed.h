/* Relaxed SIMD kernels for any decoder, int8 activations: the matrix-vector product with either
 * relaxed dot product.
 *
 * Codes are the second (7-bit) operand of the dot product, where 0..127 is exact and the same on
 * every engine.
 * dot16: i16x8.relaxed_dot sums pairs in int16, at most 2 * 63 * 127 = 16,002; two still fit.
 * dot32: i32x4.relaxed_dot_add sums fours in int32. It serves wide codes only where
 *        fm_probe_wide_dot__relaxed has found it exact for them.
 * K types: |sum over a group| <= 256 * 127 * code * scale < 2^31 with code <= 63 and scale <= 128
 * (Q6_K), or code <= 31 and scale <= 63 (Q5_K), or code <= 255 and scale <= 32 (IQ4_XS); the bias
 * term is smaller. */
#ifndef FM_KERNELS_DECODER_RELAXED_H
#define FM_KERNELS_DECODER_RELAXED_H

#include "fused.h"
#include "kernels/activations.h"
#include "kernels/decoder.h"
#include "kernels/group.h"
#include "kernels/wide_dot.h"

FM_INLINE v128_t fm_pair_dot(v128_t codes, const int8_t *q) {
  return wasm_i16x8_relaxed_dot_i8x16_i7x16(wasm_v128_load(q), codes);
}

FM_INLINE v128_t fm_quad_dot(v128_t codes, const int8_t *q, v128_t sum) {
  return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_v128_load(q), codes, sum);
}

/* Codes as the second operand takes them: wide ones with fm_wide_bias added. */
FM_INLINE v128_t fm_exact_codes(const fm_decoder *decoder, const uint8_t *bytes, size_t half,
                                size_t j, const fm_held *held) {
  v128_t codes = fm_decoder_codes(decoder, bytes, half, j, held);
  return decoder->layout.wide ? wasm_v128_xor(codes, held->wide) : codes;
}

/* The offset to subtract from the sums, per code. */
FM_INLINE int32_t fm_exact_bias(const fm_decoder *decoder) {
  return decoder->layout.wide ? fm_wide_bias(fm_wide_dot_of_engine) : decoder->layout.bias;
}

/* dot32: the dot product of sub-block s of a half and q, the half's activations; four int32
 * lanes. */
FM_INLINE v128_t fm_sub_quads(const fm_decoder *decoder, const uint8_t *bytes, size_t half,
                              const int8_t *q, size_t s, const fm_held *held) {
  size_t sub = decoder->layout.sub, j = s * sub / 16;
  v128_t sum = fm_quad_dot(fm_exact_codes(decoder, bytes, half, j, held), q + s * sub, fm_zero());
  return sub == 32
             ? fm_quad_dot(fm_exact_codes(decoder, bytes, half, j + 1, held), q + s * sub + 16, sum)
             : sum;
}

/* dot16: the same, each lane times `scale`, which holds every scale twice. */
FM_INLINE v128_t fm_sub_pairs(const fm_decoder *decoder, const uint8_t *bytes, size_t half,
                              const int8_t *q, size_t s, v128_t scale, const fm_held *held) {
  size_t sub = decoder->layout.sub, j = s * sub / 16;
  v128_t pairs = fm_pair_dot(fm_exact_codes(decoder, bytes, half, j, held), q + s * sub);
  if (sub == 32) {
    pairs = wasm_i16x8_add(
        pairs, fm_pair_dot(fm_exact_codes(decoder, bytes, half, j + 1, held), q + s * sub + 16));
  }
  return wasm_i32x4_dot_i16x8(pairs, scale);
}

/* Four of eight int16 scales in 32-bit lanes: twice each for dot16, sign-extended for dot32. */
FM_INLINE v128_t fm_scale_lanes(v128_t scales, bool upper, int dot) {
  if (dot == FM_DOT_I32)
    return upper ? wasm_i32x4_extend_high_i16x8(scales) : wasm_i32x4_extend_low_i16x8(scales);
  return upper ? wasm_i16x8_shuffle(scales, scales, 4, 4, 5, 5, 6, 6, 7, 7)
               : wasm_i16x8_shuffle(scales, scales, 0, 0, 1, 1, 2, 2, 3, 3);
}

/* Sub-blocks s and s + 1 at once: the lanes of their sums fit int16 (FM_SUB_BLOCKS), and one
 * product applies both scales. lanes: each scale twice. */
FM_INLINE v128_t fm_two_subs(const fm_decoder *decoder, const uint8_t *bytes, size_t half,
                             const int8_t *q, size_t s, v128_t lanes, int dot,
                             const fm_held *held) {
  v128_t both;
  if (dot == FM_DOT_I32) {
    both = wasm_i16x8_narrow_i32x4(fm_sub_quads(decoder, bytes, half, q, s, held),
                                   fm_sub_quads(decoder, bytes, half, q, s + 1, held));
  } else {
    v128_t even = fm_pair_dot(fm_exact_codes(decoder, bytes, half, s, held), q + 16 * s);
    v128_t odd = fm_pair_dot(fm_exact_codes(decoder, bytes, half, s + 1, held), q + 16 * s + 16);
    both = wasm_i16x8_add(wasm_i64x2_shuffle(even, odd, 0, 2), wasm_i64x2_shuffle(even, odd, 1, 3));
  }
  v128_t scale = s % 4 ? wasm_i32x4_shuffle(lanes, lanes, 2, 2, 3, 3)
                       : wasm_i32x4_shuffle(lanes, lanes, 0, 0, 1, 1);
  return wasm_i32x4_dot_i16x8(both, scale);
}

/* sum over the sub-blocks of lanes[sub] * (sum of the activations), in four int32 lanes. */
FM_INLINE v128_t fm_sums_dot(const fm_decoder *decoder, fm_lanes16 lanes, const fm_act_i8 *a) {
  if (decoder->layout.sub == 32) return wasm_i32x4_dot_i16x8(wasm_v128_load(a->sum32), lanes.lo);
  return wasm_i32x4_add(wasm_i32x4_dot_i16x8(wasm_v128_load(a->sum16), lanes.lo),
                        wasm_i32x4_dot_i16x8(wasm_v128_load(a->sum16 + 8), lanes.hi));
}

/* Adds the products of a half to sum[0..1]. of_half: its scales, in the lower lanes where
 * sub-blocks have 32 columns. */
FM_INLINE void fm_k_half(const fm_decoder *decoder, const uint8_t *bytes, size_t half,
                         const fm_act_i8 *a, v128_t of_half, int dot, const fm_held *held,
                         v128_t sum[2]) {
  const fm_layout *layout = &decoder->layout;
  const bool by_two = dot == FM_DOT_I32 ? !layout->wide : layout->sub == 16;
  const int lanes_for = by_two ? FM_DOT_I16 : dot;
  const int8_t *q = a->q + 128 * half;
  v128_t first = fm_scale_lanes(of_half, false, lanes_for),
         second = fm_scale_lanes(of_half, true, lanes_for);
  FM_UNROLL
  for (size_t s = 0; s < 128 / layout->sub; s++) {
    v128_t lanes = s < 4 ? first : second, part;
    if (by_two) {
      if (s % 2) continue;
      part = fm_two_subs(decoder, bytes, half, q, s, lanes, dot, held);
    } else if (dot == FM_DOT_I32) {
      part = wasm_i32x4_mul(fm_sub_quads(decoder, bytes, half, q, s, held),
                            fm_splat_i32(lanes, s % 4));
    } else {
      part = fm_sub_pairs(decoder, bytes, half, q, s, fm_splat_i32(lanes, s % 4), held);
    }
    sum[s / 2 % 2] = wasm_i32x4_add(sum[s / 2 % 2], part);
  }
}

/* The decoded scales of a group, which several tokens share. */
typedef struct {
  fm_lanes16 scales, mins;
  fm_d_dmin d;
} fm_k_group;

/* of: the group's scales, or NULL where they are still to be decoded. */
FM_INLINE v128_t fm_k_group_value(const fm_decoder *decoder, const uint8_t *group,
                                  const fm_k_group *of, const uint8_t *bytes, const fm_act_i8 *a,
                                  int dot, const fm_held *held) {
  const fm_layout *layout = &decoder->layout;
  fm_lanes16 scales = of ? of->scales : decoder->k_scales(group);
  v128_t sum[2] = {fm_zero(), fm_zero()};
  if (layout->sub == 32) { /* few vectors are alive, and code without a loop is faster */
    fm_k_half(decoder, bytes, 0, a, scales.lo, dot, held, sum);
    fm_k_half(decoder, bytes, 1, a, wasm_i64x2_shuffle(scales.lo, scales.lo, 1, 1), dot, held, sum);
  } else {
    v128_t of_half = scales.lo;
    FM_NO_UNROLL
    for (size_t half = 0; half < 2; half++) {
      fm_k_half(decoder, bytes, half, a, of_half, dot, held, sum);
      of_half = scales.hi;
    }
  }
  v128_t code_sum = wasm_i32x4_add(sum[0], sum[1]);
  if (layout->bias || layout->wide) {
    v128_t bias =
        wasm_i32x4_mul(fm_sums_dot(decoder, scales, a), wasm_i32x4_splat(fm_exact_bias(decoder)));
    code_sum = wasm_i32x4_sub(code_sum, bias);
  }
  fm_d_dmin dd = of ? of->d : fm_decoder_d(decoder, group);
  v128_t value =
      wasm_f32x4_mul(wasm_f32x4_convert_i32x4(code_sum), wasm_f32x4_splat(dd.d * a->d[0]));
  if (layout->has_min) {
    fm_lanes16 mins = of ? of->mins : decoder->k_mins(group);
    v128_t min_sum = wasm_f32x4_convert_i32x4(fm_sums_dot(decoder, mins, a));
    value = wasm_f32x4_sub(value, wasm_f32x4_mul(min_sum, wasm_f32x4_splat(dd.dmin * a->d[0])));
  }
  return value;
}

/* The dot product of a half. */
FM_INLINE v128_t fm_f32_half(const fm_decoder *decoder, const uint8_t *group, const uint8_t *bytes,
                             size_t half, const fm_act_i8 *a, int dot, const fm_held *held) {
  const fm_layout *layout = &decoder->layout;
  const int8_t *q = a->q + 128 * half;
  v128_t sum[4], four, ones = held->ones;
  FM_UNROLL
  for (size_t s = 0; s < 4; s++) {
    sum[s] = dot == FM_DOT_I32 ? fm_sub_quads(decoder, bytes, half, q, s, held)
                               : fm_sub_pairs(decoder, bytes, half, q, s, ones, held);
  }
  if (dot == FM_DOT_I32 && !layout->wide) { /* lanes of sub-blocks fit int16: FM_SUB_BLOCKS */
    v128_t ab = wasm_i32x4_dot_i16x8(wasm_i16x8_narrow_i32x4(sum[0], sum[1]), ones);
    v128_t cd = wasm_i32x4_dot_i16x8(wasm_i16x8_narrow_i32x4(sum[2], sum[3]), ones);
    four = wasm_i32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 2, 4, 6),
                          wasm_i32x4_shuffle(ab, cd, 1, 3, 5, 7));
  } else {
    four = fm_sum_four(sum[0], sum[1], sum[2], sum[3]);
  }
  if (layout->bias || layout->wide) {
    v128_t act_sums = wasm_i32x4_load16x4(a->sum32 + 4 * half);
    four = wasm_i32x4_sub(four, wasm_i32x4_mul(act_sums, wasm_i32x4_splat(fm_exact_bias(decoder))));
  }
  v128_t value =
      wasm_f32x4_mul(wasm_f32x4_convert_i32x4(four), decoder->f32_scales(group, half, held));
  value = wasm_f32x4_mul(value, wasm_v128_load(a->d + 4 * half));
  if (!layout->has_min) return value;
  v128_t mins = decoder->f32_mins(group, half, held);
  return wasm_f32x4_sub(value, wasm_f32x4_mul(wasm_v128_load(a->s + 4 * half), mins));
}

FM_INLINE v128_t fm_f32_group_value(const fm_decoder *decoder, const uint8_t *group,
                                    const uint8_t *bytes, const fm_act_i8 *a, int dot,
                                    const fm_held *held) {
  if (decoder->straight && dot == FM_DOT_I32) {
    return wasm_f32x4_add(fm_f32_half(decoder, group, bytes, 0, a, dot, held),
                          fm_f32_half(decoder, group, bytes, 1, a, dot, held));
  }
  v128_t total = fm_zero();
  FM_NO_UNROLL
  for (size_t half = 0; half < 2; half++) {
    total = wasm_f32x4_add(total, fm_f32_half(decoder, group, bytes, half, a, dot, held));
  }
  return total;
}

FM_INLINE void fm_decoder_gemv_i8(const fm_decoder *decoder, const uint8_t *w, size_t row_bytes,
                                  const uint8_t *end, const void *x, float *y, size_t n_rows,
                                  size_t n_values, bool accumulate, int dot) {
  uint8_t padded[FM_MAX_GROUP_BYTES], buffer[FM_GROUP_COLS];
  fm_held held = decoder->hold();
  held.ones = fm_hold_i32(0x00010001);
  if (decoder->layout.wide) held.wide = fm_hold_i8((int8_t)fm_wide_bias(fm_wide_dot_of_engine));
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const uint8_t *next = w;
    const fm_act_i8 *a = x;
    v128_t acc = fm_zero();
    size_t c = 0;
    do {
      fm_ask_ahead(&decoder->layout, next, end);
      const uint8_t *group = fm_group(&decoder->layout, next, n_values - c, padded);
      const uint8_t *bytes = fm_code_bytes(decoder, group, buffer);
      acc = wasm_f32x4_add(acc, decoder->layout.kind == FM_SCALES_K
                                    ? fm_k_group_value(decoder, group, NULL, bytes, a, dot, &held)
                                    : fm_f32_group_value(decoder, group, bytes, a, dot, &held));
      c += FM_GROUP_COLS;
      next += decoder->layout.group_bytes;
      a++;
    } while (c < n_values);
    float sum = fm_hsum_f32(acc);
    y[r] = accumulate ? y[r] + sum : sum;
  }
}

/* The product of fm_gemv_many_fn for a K type: a group is decoded once for all tokens. The
 * operations of a token, and so its bits, are those of fm_decoder_gemv_i8. */
FM_INLINE void fm_decoder_gemv_many_i8(const fm_decoder *decoder, const uint8_t *w,
                                       size_t row_bytes, const uint8_t *end, const void *x,
                                       float *y, size_t n_rows, size_t n_values, size_t n_tokens,
                                       size_t y_stride, bool accumulate, int dot) {
  uint8_t codes[FM_GROUP_COLS];
  v128_t acc[FM_MANY_TOKENS];
  const size_t n_groups = n_values / FM_GROUP_COLS;
  fm_held held = decoder->hold();
  fm_decoder decoded = *decoder; /* without codes(), they are loaded */
  decoded.codes = NULL;
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const uint8_t *group = w;
    const fm_act_i8 *blocks = x;
    for (size_t t = 0; t < n_tokens; t++) acc[t] = fm_zero();
    FM_NO_UNROLL
    for (size_t i = 0; i < n_groups; i++, group += decoder->layout.group_bytes, blocks++) {
      const fm_act_i8 *a = blocks;
      fm_ask_ahead(&decoder->layout, group, end);
      fm_k_group of = {.scales = decoder->k_scales(group), .d = fm_decoder_d(decoder, group)};
      if (decoder->layout.has_min) of.mins = decoder->k_mins(group);
      FM_NO_UNROLL
      for (size_t half = 0; half < 2; half++) {
        FM_UNROLL
        for (size_t j = 0; j < 8; j++)
          wasm_v128_store(codes + 128 * half + 16 * j, decoder->codes(group, half, j, &held));
      }
      FM_NO_UNROLL
      for (size_t t = 0; t < n_tokens; t++, a += n_groups) {
        v128_t value = fm_k_group_value(&decoded, group, &of, codes, a, dot, &held);
        acc[t] = wasm_f32x4_add(acc[t], value);
      }
    }
    for (size_t t = 0; t < n_tokens; t++) {
      float *out = y + t * y_stride + r, sum = fm_hsum_f32(acc[t]);
      *out = accumulate ? *out + sum : sum;
    }
  }
}

#define FM_GEMV_I8(name, suffix, dot)                                                              \
  static void gemv_##name##_i8_##suffix##__relaxed(                                                \
      const uint8_t *w, size_t row_bytes, const uint8_t *end, const void *x, float *y,             \
      size_t n_rows, size_t n_values, bool accumulate) {                                           \
    fm_decoder_gemv_i8(&fm_##name##_decoder, w, row_bytes, end, x, y, n_rows, n_values,            \
                       accumulate, dot);                                                           \
  }

/* Makes the kernels of a type, fm_<name>__relaxed, from fm_<name>_decoder and the GEMM kernels of
 * its scales, k or f32. */
#define FM_KERNELS(name, scales) FM_KERNELS_AND(name, scales, NULL, NULL)
#define FM_KERNELS_AND(name, scales, many_dot16, many_dot32)                                       \
  FM_GEMV_I8(name, dot16, FM_DOT_I16)                                                              \
  FM_GEMV_I8(name, dot32, FM_DOT_I32)                                                              \
  const fm_relaxed_kernels fm_##name##__relaxed = {                                                \
      {gemv_##name##_i8_dot16__relaxed, gemv_##name##_i8_dot32__relaxed},                          \
      {fm_gemm_i8_##scales##_dot16__relaxed, fm_gemm_i8_##scales##_dot32__relaxed},                \
      {many_dot16, many_dot32}};

#define FM_GEMV_MANY_I8(name, suffix, dot)                                                         \
  static void gemv_many_##name##_i8_##suffix##__relaxed(                                           \
      const uint8_t *w, size_t row_bytes, const uint8_t *end, const void *x, float *y,             \
      size_t n_rows, size_t n_values, size_t n_tokens, size_t y_stride, bool accumulate) {         \
    fm_decoder_gemv_many_i8(&fm_##name##_decoder, w, row_bytes, end, x, y, n_rows, n_values,       \
                            n_tokens, y_stride, accumulate, dot);                                  \
  }

/* The same for a K type, with kernels for several tokens. */
#define FM_KERNELS_FOR_MANY(name)                                                                  \
  FM_GEMV_MANY_I8(name, dot16, FM_DOT_I16)                                                         \
  FM_GEMV_MANY_I8(name, dot32, FM_DOT_I32)                                                         \
  FM_KERNELS_AND(name, k, gemv_many_##name##_i8_dot16__relaxed,                                    \
                 gemv_many_##name##_i8_dot32__relaxed)

/* The same for wide codes, whose pair sums do not fit int16. */
#define FM_WIDE_KERNELS(name, scales)                                                              \
  FM_GEMV_I8(name, dot32, FM_DOT_I32)                                                              \
  const fm_relaxed_kernels fm_##name##__relaxed = {{NULL, gemv_##name##_i8_dot32__relaxed},        \
                                                   {NULL, fm_gemm_i8_##scales##_dot32__relaxed},   \
                                                   {NULL, NULL}};

#endif
