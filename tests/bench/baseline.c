/* The benchmark's opponent: Q4_K the way the wasm kernel of llama.cpp works, written for SIMD128 from its description.
 *
 * int8 activations per 256 columns (quantised as ours are). For each block and each sub-block of 32: nibbles and
 * activations are extended to int16, multiplied by i32x4.dot_i16x8, summed horizontally, and the scalar sum is multiplied
 * by the scalar scale. One row and one token at a time, whatever n_tokens is. */
#include <stdlib.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/activations.h"
#include "kernels/q4_k.h"
#include "kernels/v128.h"

#define EXPORT __attribute__((visibility("default"), used))

EXPORT void *bl_alloc(size_t bytes) { return aligned_alloc(64, (bytes + 63) & ~(size_t)63); }

EXPORT size_t bl_act_bytes(size_t n_tokens, size_t n_cols) { return n_tokens * (n_cols / 256) * sizeof(fm_act_i8); }

EXPORT void bl_quantize(const float *x, fm_act_i8 *act, size_t n_tokens, size_t n_cols) {
  for (size_t t = 0; t < n_tokens; t++) fm_quantize_i8__simd128(x + t * n_cols, act + t * (n_cols / 256), n_cols);
}

FM_INLINE int32_t horizontal_sum(v128_t v) {
  return wasm_i32x4_extract_lane(v, 0) + wasm_i32x4_extract_lane(v, 1) + wasm_i32x4_extract_lane(v, 2) +
         wasm_i32x4_extract_lane(v, 3);
}

FM_INLINE int32_t dot_sub_block(const uint8_t *qs, const int8_t *q, int high) {
  v128_t sum = fm_zero();
  for (int half = 0; half < 32; half += 16) {
    v128_t packed = wasm_v128_load(qs + half), acts = wasm_v128_load(q + half);
    v128_t codes = high ? wasm_u8x16_shr(packed, 4) : wasm_v128_and(packed, wasm_i8x16_const_splat(15));
    sum = wasm_i32x4_add(sum,
                         wasm_i32x4_dot_i16x8(wasm_u16x8_extend_low_u8x16(codes), wasm_i16x8_extend_low_i8x16(acts)));
    sum = wasm_i32x4_add(sum,
                         wasm_i32x4_dot_i16x8(wasm_u16x8_extend_high_u8x16(codes), wasm_i16x8_extend_high_i8x16(acts)));
  }
  return horizontal_sum(sum);
}

EXPORT void bl_matmul_q4_k(const fm_block_q4_k *w, const fm_act_i8 *act, float *y, size_t n_tokens, size_t n_rows,
                           size_t n_cols) {
  size_t n_blocks = n_cols / 256;
  for (size_t t = 0; t < n_tokens; t++) {
    for (size_t r = 0; r < n_rows; r++) {
      const fm_block_q4_k *b = w + r * n_blocks;
      const fm_act_i8 *a = act + t * n_blocks;
      float total = 0.0f;
      for (size_t i = 0; i < n_blocks; i++, b++, a++) {
        fm_scales8 s = fm_q4_k_scales(b->scales);
        int32_t code_sum = 0, min_sum = 0;
        for (int sub = 0; sub < 8; sub++) {
          int32_t dot = dot_sub_block(b->qs + 32 * (sub / 2), a->q + 32 * sub, sub % 2);
          code_sum += dot * (int32_t)(s.scales >> 8 * sub & 63);
          min_sum += a->sum32[sub] * (int32_t)(s.mins >> 8 * sub & 63);
        }
        total += a->d * (fm_f16_to_f32(b->d) * (float)code_sum - fm_f16_to_f32(b->dmin) * (float)min_sum);
      }
      y[t * n_rows + r] = total;
    }
  }
}

/* The plainest read loop: what the memory gives one core. bytes is a multiple of 64. */
EXPORT int32_t bl_read(const uint8_t *p, size_t bytes) {
  v128_t sum[4] = {fm_zero(), fm_zero(), fm_zero(), fm_zero()};
  FM_NO_UNROLL
  for (const uint8_t *end = p + bytes; p < end; p += 64) {
    FM_UNROLL
    for (size_t i = 0; i < 4; i++) sum[i] = wasm_i32x4_add(sum[i], wasm_v128_load(p + 16 * i));
  }
  return wasm_i32x4_extract_lane(wasm_i32x4_add(wasm_i32x4_add(sum[0], sum[1]), wasm_i32x4_add(sum[2], sum[3])), 0);
}
