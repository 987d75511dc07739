/* The matrix-matrix micro-kernel for int16 activations, SIMD128; one for every weight type. Strip layout: strip.h.
 *
 *   y[t][r] += sum_sub scale[sub][r] * d[t] * (sum code * q) - min[sub][r] * d[t] * (sum q)
 *
 * For 4 columns one 64-bit splat of a token's activations meets two vectors of codes:
 *   codes 01   r0c0 r0c1 r0c2 r0c3 r1c0 r1c1 r1c2 r1c3   (16-bit lanes)
 *   q          a0   a1   a2   a3   a0   a1   a2   a3
 *   dot_i16x8  r0(c0 c1)  r0(c2 c3)  r1(c0 c1)  r1(c2 c3)
 * and two shuffles a sub-block bring the halves of the four rows together. A lane sums at most 16 products of
 * 128 * 32767: below 2^27, and the pair below 2^28. */
#include "kernels/kernels.h"
#include "kernels/v128.h"

/* sub: columns that share a scale, 16 or 32. */
FM_INLINE void tile(const fm_strip *strip, const fm_act_i16 *x, float *y, size_t n_blocks, size_t n_tok,
                    size_t y_stride, size_t n_rows, size_t sub, bool accumulate) {
  v128_t acc[4];
  for (size_t t = 0; t < n_tok; t++) acc[t] = fm_zero();
  const uint8_t *code = &strip->code[0][0][0];
  const float *scale = strip->f32.scale[0], *min = strip->f32.min[0];
  for (size_t block = 0; block < n_blocks; block++, x++) {
    v128_t block_acc[4];
    for (size_t t = 0; t < n_tok; t++) block_acc[t] = fm_zero();
    for (size_t c = 0; c < FM_ACT_COLS; c += sub, code += 4 * sub, scale += sub / 4, min += sub / 4) {
      v128_t sum01[4], sum23[4];
      for (size_t t = 0; t < n_tok; t++) sum01[t] = sum23[t] = fm_zero();
      for (size_t k = 0; k < sub; k += 4) {
        v128_t w01 = wasm_i16x8_load8x8(code + 4 * k), w23 = wasm_i16x8_load8x8(code + 4 * k + 8);
        for (size_t t = 0; t < n_tok; t++) {
          v128_t q = wasm_v128_load64_splat(x[t * n_blocks].q + c + k);
          sum01[t] = wasm_i32x4_add(sum01[t], wasm_i32x4_dot_i16x8(w01, q));
          sum23[t] = wasm_i32x4_add(sum23[t], wasm_i32x4_dot_i16x8(w23, q));
        }
      }
      for (size_t t = 0; t < n_tok; t++) {
        v128_t sum = wasm_i32x4_add(wasm_i32x4_shuffle(sum01[t], sum23[t], 0, 2, 4, 6),
                                    wasm_i32x4_shuffle(sum01[t], sum23[t], 1, 3, 5, 7));
        const float *act_sum = sub == 32 ? x[t * n_blocks].sum32 + c / 32 : x[t * n_blocks].sum16 + c / 16;
        v128_t part = wasm_f32x4_sub(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), wasm_v128_load(scale)),
                                     wasm_f32x4_mul(wasm_v128_load32_splat(act_sum), wasm_v128_load(min)));
        block_acc[t] = wasm_f32x4_add(block_acc[t], part);
      }
    }
    for (size_t t = 0; t < n_tok; t++) {
      v128_t d = wasm_v128_load32_splat(&x[t * n_blocks].d);
      acc[t] = wasm_f32x4_add(acc[t], wasm_f32x4_mul(d, block_acc[t]));
    }
  }
  for (size_t t = 0; t < n_tok; t++) fm_store_lanes_f32(y + t * y_stride, acc[t], n_rows, accumulate);
}

FM_INLINE void tiles(const fm_strip *strip, const fm_act_i16 *x, float *y, size_t n_blocks, size_t n_tokens,
                     size_t y_stride, size_t n_rows, size_t sub, bool accumulate) {
  for (; n_tokens >= 4; n_tokens -= 4, x += 4 * n_blocks, y += 4 * y_stride) {
    tile(strip, x, y, n_blocks, 4, y_stride, n_rows, sub, accumulate);
  }
  for (; n_tokens >= 1; n_tokens--, x += n_blocks, y += y_stride) {
    tile(strip, x, y, n_blocks, 1, y_stride, n_rows, sub, accumulate);
  }
}

void fm_gemm_i16_sub32__simd128(const fm_strip *strip, const fm_act_i16 *x, float *y, size_t n_blocks,
                                size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {
  tiles(strip, x, y, n_blocks, n_tokens, y_stride, n_rows, 32, accumulate);
}
