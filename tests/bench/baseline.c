/* The benchmark's opponents: Q4_K, Q6_K, Q8_0 and Q4_0 the way the wasm kernels of llama.cpp work,
 * written for SIMD128 from their description.
 *
 * int8 activations with a scale for 256 columns, for every type. For each block that has a scale of
 * its own: codes and activations are extended to int16, multiplied by i32x4.dot_i16x8, summed
 * horizontally, and the scalar sum is multiplied by the scalar scale. One row and one token at a
 * time, whatever n_tokens is. */
#include <stdlib.h>

#include "baseline.h"
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/activations.h"
#include "kernels/q4_k.h"
#include "kernels/v128.h"

EXPORT void *bl_alloc(size_t bytes) { return aligned_alloc(64, (bytes + 63) & ~(size_t)63); }

EXPORT size_t bl_act_bytes(size_t n_tokens, size_t n_cols) {
  return n_tokens * (n_cols / 256) * sizeof(fm_act_i8);
}

EXPORT void bl_quantize(const float *x, fm_act_i8 *act, size_t n_tokens, size_t n_cols) {
  for (size_t t = 0; t < n_tokens; t++)
    fm_quantize_i8__simd128(x + t * n_cols, act + t * (n_cols / 256), n_cols);
}

FM_INLINE int32_t horizontal_sum(v128_t v) {
  return wasm_i32x4_extract_lane(v, 0) + wasm_i32x4_extract_lane(v, 1) +
         wasm_i32x4_extract_lane(v, 2) + wasm_i32x4_extract_lane(v, 3);
}

/* Sums of 16 products of int8, four lanes to be added. */
FM_INLINE v128_t dot_16(v128_t codes, const int8_t *q) {
  v128_t acts = wasm_v128_load(q);
  return wasm_i32x4_add(
      wasm_i32x4_dot_i16x8(wasm_i16x8_extend_low_i8x16(codes), wasm_i16x8_extend_low_i8x16(acts)),
      wasm_i32x4_dot_i16x8(wasm_i16x8_extend_high_i8x16(codes),
                           wasm_i16x8_extend_high_i8x16(acts)));
}

FM_INLINE v128_t nibbles(v128_t packed, int high) {
  return high ? wasm_u8x16_shr(packed, 4) : wasm_v128_and(packed, wasm_i8x16_const_splat(15));
}

FM_INLINE float q4_k_block(const fm_block_q4_k *b, const fm_act_i8 *a) {
  fm_scales8 s = fm_q4_k_scales(b->scales);
  int32_t code_sum = 0, min_sum = 0;
  FM_UNROLL
  for (int sub = 0; sub < 8; sub++) {
    const uint8_t *qs = b->qs + 32 * (sub / 2);
    const int8_t *q = a->q + 32 * sub;
    v128_t sums = wasm_i32x4_add(dot_16(nibbles(wasm_v128_load(qs), sub % 2), q),
                                 dot_16(nibbles(wasm_v128_load(qs + 16), sub % 2), q + 16));
    code_sum += horizontal_sum(sums) * (int32_t)(s.scales >> 8 * sub & 63);
    min_sum += a->sum32[sub] * (int32_t)(s.mins >> 8 * sub & 63);
  }
  return a->d[0] *
         (fm_f16_to_f32(b->d) * (float)code_sum - fm_f16_to_f32(b->dmin) * (float)min_sum);
}

FM_INLINE float q6_k_block(const fm_block_q6_k *b, const fm_act_i8 *a) {
  int32_t sum = 0;
  FM_UNROLL
  for (int sub = 0; sub < 16; sub++) {
    int group = sub / 8, part = sub % 8 / 2, half = sub % 2;
    v128_t low =
        nibbles(wasm_v128_load(b->ql + 64 * group + 32 * (part % 2) + 16 * half), part / 2);
    v128_t high =
        wasm_u8x16_shr(wasm_v128_load(b->qh + 32 * group + 16 * half), (uint32_t)(2 * part));
    high = wasm_i8x16_shl(wasm_v128_and(high, wasm_i8x16_const_splat(3)), 4);
    v128_t codes = wasm_i8x16_sub(wasm_v128_or(low, high), wasm_i8x16_const_splat(32));
    sum += horizontal_sum(dot_16(codes, a->q + 16 * sub)) * b->scales[sub];
  }
  return a->d[0] * fm_f16_to_f32(b->d) * (float)sum;
}

FM_INLINE float q8_0_group(const fm_block_q8_0 *b, const fm_act_i8 *a) {
  float sum = 0.0f;
  FM_UNROLL
  for (int i = 0; i < 8; i++, b++) {
    const int8_t *q = a->q + 32 * i;
    v128_t sums = wasm_i32x4_add(dot_16(wasm_v128_load(b->qs), q),
                                 dot_16(wasm_v128_load(b->qs + 16), q + 16));
    sum += fm_f16_to_f32(b->d) * (float)horizontal_sum(sums);
  }
  return a->d[0] * sum;
}

FM_INLINE float q4_0_group(const fm_block_q4_0 *b, const fm_act_i8 *a) {
  v128_t eight = wasm_i8x16_const_splat(8);
  float sum = 0.0f;
  FM_UNROLL
  for (int i = 0; i < 8; i++, b++) {
    const int8_t *q = a->q + 32 * i;
    v128_t packed = wasm_v128_load(b->qs);
    v128_t sums = wasm_i32x4_add(dot_16(wasm_i8x16_sub(nibbles(packed, 0), eight), q),
                                 dot_16(wasm_i8x16_sub(nibbles(packed, 1), eight), q + 16));
    sum += fm_f16_to_f32(b->d) * (float)horizontal_sum(sums);
  }
  return a->d[0] * sum;
}

BASELINE(q4_k, 1, q4_k_block)
BASELINE(q6_k, 1, q6_k_block)
BASELINE(q8_0, 8, q8_0_group)
BASELINE(q4_0, 8, q4_0_group)
