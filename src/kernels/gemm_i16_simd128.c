/* The matrix-matrix micro-kernel for int16 activations, SIMD128; one for every weight type. Strip layout: strip.h.
 *
 *   y[t][r] += sum_sub scale[sub][r] * d[t] * (sum code * q) - min[sub][r] * d[t] * (sum q)
 *
 * For 4 columns one 64-bit splat of a token's activations meets two vectors of codes (rows 0..3 of a tile):
 *   codes 01   r0c0 r0c1 r0c2 r0c3 r1c0 r1c1 r1c2 r1c3   (16-bit lanes)
 *   q          a0   a1   a2   a3   a0   a1   a2   a3
 *   dot_i16x8  r0(c0 c1)  r0(c2 c3)  r1(c0 c1)  r1(c2 c3)
 * and two shuffles a sub-block bring the halves of the four rows together. A lane sums at most 16 products of
 * 128 * 32767: below 2^27, and the pair below 2^28. */
#include "kernels/kernels.h"
#include "kernels/v128.h"

#define TILE_TOKENS 4
#define TILE_ROWS 4 /* half a strip: 8 int32 sums and 4 totals leave 4 of 16 vector registers for the operands */

/* 4 tokens x 4 rows x one group of 256 columns: acc[t] += the group's share. sub: columns that share a scale, 16 or 32.
 * code, scale, min: of the tile's first row. */
FM_INLINE void group_tile(const uint8_t *code, const float *scale, const float *min,
                          const fm_act_i16 *const x[TILE_TOKENS], v128_t acc[TILE_TOKENS], size_t sub) {
  v128_t total[TILE_TOKENS];
  for (size_t t = 0; t < TILE_TOKENS; t++) total[t] = fm_zero();
  FM_NO_UNROLL
  for (size_t c = 0; c < FM_ACT_COLS; c += sub) {
    v128_t sum01[TILE_TOKENS], sum23[TILE_TOKENS];
    for (size_t t = 0; t < TILE_TOKENS; t++) sum01[t] = sum23[t] = fm_zero();
    FM_UNROLL
    for (size_t k = 0; k < sub; k += 4) {
      v128_t codes = wasm_v128_load(code + FM_STRIP_ROWS * k);
      v128_t w01 = wasm_i16x8_extend_low_i8x16(codes), w23 = wasm_i16x8_extend_high_i8x16(codes);
      FM_UNROLL
      for (size_t t = 0; t < TILE_TOKENS; t++) {
        v128_t eight = wasm_v128_load(x[t]->q + c + k / 8 * 8);
        v128_t q = k % 8 ? wasm_i64x2_shuffle(eight, eight, 1, 1) : wasm_i64x2_shuffle(eight, eight, 0, 0);
        sum01[t] = wasm_i32x4_add(sum01[t], wasm_i32x4_dot_i16x8(w01, q));
        sum23[t] = wasm_i32x4_add(sum23[t], wasm_i32x4_dot_i16x8(w23, q));
      }
    }
    v128_t scales = wasm_v128_load(scale), mins = wasm_v128_load(min);
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      v128_t sum = wasm_i32x4_add(wasm_i32x4_shuffle(sum01[t], sum23[t], 0, 2, 4, 6),
                                  wasm_i32x4_shuffle(sum01[t], sum23[t], 1, 3, 5, 7));
      const float *act_sum = sub == 32 ? x[t]->sum32 + c / 32 : x[t]->sum16 + c / 16;
      v128_t part = wasm_f32x4_sub(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), scales),
                                   wasm_f32x4_mul(wasm_v128_load32_splat(act_sum), mins));
      total[t] = wasm_f32x4_add(total[t], part);
    }
    code += FM_STRIP_ROWS * sub;
    scale += FM_STRIP_ROWS * sub / 16;
    min += FM_STRIP_ROWS * sub / 16;
  }
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    acc[t] = wasm_f32x4_add(acc[t], wasm_f32x4_mul(wasm_v128_load32_splat(&x[t]->d), total[t]));
  }
}

/* Past the last token the last one stands again, and its result is not stored: one tile size serves every n_tokens. */
FM_INLINE void tiles(const fm_strip *strip, const fm_act_i16 *x, float *y, size_t n_groups, size_t n_tokens,
                     size_t y_stride, size_t n_rows, size_t sub, bool accumulate) {
  FM_NO_UNROLL
  for (size_t first = 0; first < n_tokens; first += TILE_TOKENS) {
    size_t n = n_tokens - first < TILE_TOKENS ? n_tokens - first : TILE_TOKENS;
    FM_NO_UNROLL
    for (size_t row = 0; row < n_rows; row += TILE_ROWS) {
      const fm_act_i16 *token[TILE_TOKENS];
      v128_t acc[TILE_TOKENS];
      for (size_t t = 0; t < TILE_TOKENS; t++) {
        token[t] = x + (first + (t < n ? t : n - 1)) * n_groups;
        acc[t] = fm_zero();
      }
      FM_NO_UNROLL
      for (size_t group = 0; group < n_groups; group++) {
        group_tile(strip->code[64 * group][row], strip->f32.scale[16 * group] + row, strip->f32.min[16 * group] + row,
                   token, acc, sub);
        for (size_t t = 0; t < TILE_TOKENS; t++) token[t]++;
      }
      fm_store_tile(y + first * y_stride + row, acc, n, y_stride, n_rows - row, accumulate);
    }
  }
}

void fm_gemm_i16_sub16__simd128(const fm_strip *strip, const fm_act_i16 *x, float *y, size_t n_blocks, size_t n_tokens,
                                size_t y_stride, size_t n_rows, bool accumulate) {
  tiles(strip, x, y, n_blocks, n_tokens, y_stride, n_rows, 16, accumulate);
}

void fm_gemm_i16_sub32__simd128(const fm_strip *strip, const fm_act_i16 *x, float *y, size_t n_blocks, size_t n_tokens,
                                size_t y_stride, size_t n_rows, bool accumulate) {
  tiles(strip, x, y, n_blocks, n_tokens, y_stride, n_rows, 32, accumulate);
}
