/* The matrix-matrix micro-kernel for int8 activations, relaxed SIMD. Strip layout: strip.h.
 *
 *   y[t][r] += d[t] * (d[r] * sum_sub scale[sub][r] * (sum code * q) - dmin[r] * sum_sub min[sub][r] * (sum q))
 *
 * For 4 columns one 32-bit splat of a token's activations meets one vector of codes, rows side by side:
 *   codes   r0c0 r0c1 r0c2 r0c3  r1c0 .. r1c3  r2c0 .. r2c3  r3c0 .. r3c3
 *   q       a0   a1   a2   a3    a0   .. a3    a0   .. a3    a0   .. a3
 * dot16: pairs in int16, 8 of them added (8 * 2 * 15 * 127 = 30,480 < 2^15), then i32x4.dot_i16x8 with the scale pairs.
 * dot32: fours in int32, then an int32 multiplication by the scale.
 * A lane of a block is at most 256 * 15 * 127 * 63 < 2^31. */
#include "fused.h"
#include "kernels/kernels.h"
#include "kernels/v128.h"

/* Loads at constant offsets from one pointer become a single instruction only where the compiler sees that the addition
 * cannot wrap; it does where the low bits are known to be zero. */
FM_INLINE const void *aligned(const void *p, uintptr_t alignment) {
  return (const void *)((uintptr_t)p & ~(alignment - 1));
}

/* 32 columns of one token: the scaled sums of 4 rows. */
FM_INLINE v128_t sub32(const v128_t codes[8], const int8_t *q, v128_t scale, int dot) {
  if (dot == FM_DOT_I32) {
    v128_t even = fm_zero(), odd = fm_zero();
    for (int k = 0; k < 8; k += 2) {
      even = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_v128_load32_splat(q + 4 * k), codes[k], even);
      odd = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_v128_load32_splat(q + 4 * k + 4), codes[k + 1], odd);
    }
    return wasm_i32x4_mul(wasm_i32x4_add(even, odd), scale);
  }
  v128_t pair[8];
  for (int k = 0; k < 8; k++) pair[k] = wasm_i16x8_relaxed_dot_i8x16_i7x16(wasm_v128_load32_splat(q + 4 * k), codes[k]);
  for (int width = 4; width > 0; width /= 2) {
    for (int k = 0; k < width; k++) pair[k] = wasm_i16x8_add(pair[k], pair[k + width]);
  }
  return wasm_i32x4_dot_i16x8(pair[0], scale);
}

FM_INLINE void tile(const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_blocks, size_t n_tok,
                    size_t y_stride, size_t n_rows, int dot, bool accumulate) {
  v128_t acc[4];
  for (size_t t = 0; t < n_tok; t++) acc[t] = fm_zero();
  const uint8_t *code = &strip->code[0][0][0];
  for (size_t block = 0; block < n_blocks; block++, x++) {
    v128_t sum[4];
    for (size_t t = 0; t < n_tok; t++) sum[t] = fm_zero();
    for (size_t sub = 0; sub < 8; sub++, code += 128) {
      v128_t codes[8];
      for (size_t k = 0; k < 8; k++) codes[k] = wasm_v128_load((const uint8_t *)aligned(code, 128) + 16 * k);
      v128_t scale = wasm_v128_load(strip->i16.scale[16 * block + 2 * sub]);
      if (dot == FM_DOT_I32) scale = wasm_i32x4_shr(scale, 16);
      for (size_t t = 0; t < n_tok; t++) {
        const int8_t *q = aligned(x[t * n_blocks].q + 32 * sub, 32);
        sum[t] = wasm_i32x4_add(sum[t], sub32(codes, q, scale, dot));
      }
    }
    v128_t d = wasm_v128_load(strip->i16.d[block]), dmin = wasm_v128_load(strip->i16.dmin[block]);
    for (size_t t = 0; t < n_tok; t++) {
      const fm_act_i8 *a = &x[t * n_blocks];
      v128_t min_sum = fm_zero();
      for (size_t pair = 0; pair < 4; pair++) {
        v128_t sums = wasm_v128_load32_splat(a->sum32 + 2 * pair);
        v128_t mins = wasm_v128_load(strip->i16.min[16 * block + 2 * pair]);
        min_sum = wasm_i32x4_add(min_sum, wasm_i32x4_dot_i16x8(sums, mins));
      }
      v128_t value = wasm_f32x4_sub(wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(sum[t])),
                                    wasm_f32x4_mul(dmin, wasm_f32x4_convert_i32x4(min_sum)));
      acc[t] = wasm_f32x4_add(acc[t], wasm_f32x4_mul(wasm_v128_load32_splat(&a->d), value));
    }
  }
  for (size_t t = 0; t < n_tok; t++) fm_store_lanes_f32(y + t * y_stride, acc[t], n_rows, accumulate);
}

FM_INLINE void tiles(const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_blocks, size_t n_tokens,
                     size_t y_stride, size_t n_rows, int dot, bool accumulate) {
  for (; n_tokens >= 4; n_tokens -= 4, x += 4 * n_blocks, y += 4 * y_stride) {
    tile(strip, x, y, n_blocks, 4, y_stride, n_rows, dot, accumulate);
  }
  for (; n_tokens >= 1; n_tokens--, x += n_blocks, y += y_stride) {
    tile(strip, x, y, n_blocks, 1, y_stride, n_rows, dot, accumulate);
  }
}

void fm_gemm_i8_k32_dot16__relaxed(const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_blocks,
                                   size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {
  tiles(strip, x, y, n_blocks, n_tokens, y_stride, n_rows, FM_DOT_I16, accumulate);
}

void fm_gemm_i8_k32_dot32__relaxed(const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_blocks,
                                   size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {
  tiles(strip, x, y, n_blocks, n_tokens, y_stride, n_rows, FM_DOT_I32, accumulate);
}
