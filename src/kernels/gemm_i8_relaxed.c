/* The matrix-matrix micro-kernel for int8 activations, relaxed SIMD; one for every weight type. Strip layout: strip.h.
 *
 * For 4 columns a 32-bit splat of a token's activations meets a vector of codes, rows side by side:
 *   codes   r0c0 r0c1 r0c2 r0c3  r1c0 .. r1c3  r2c0 .. r2c3  r3c0 .. r3c3
 *   q       a0   a1   a2   a3    a0   .. a3    a0   .. a3    a0   .. a3
 * dot16: pairs in int16. n_add of them are added before i32x4.dot_i16x8 applies the scale, sums pairs and widens at once:
 *        n_add * 2 * max_code * 127 < 2^15, so 8 for codes <= 15 (30,480), 4 for <= 31 (31,496), 2 for <= 63 (32,004).
 * dot32: fours in int32, then an int32 multiplication by the scale.
 *
 * K types, sums of a super-block of 256 columns exact in int32 (bound: form_relaxed.h); where the type has a bias, dmin is d and
 * min is bias * scale:
 *   y[t][r] += d[t] * (d[r] * sum_sub scale * (sum code * q) - dmin[r] * sum_sub min * (sum q))
 * f32 scales, sums of 32 columns; min holds bias * scale where the type has a bias:
 *   y[t][r] += d[t] * (sum_sub scale * (sum code * q) - sum_sub min * (sum q)) */
#include "fused.h"
#include "kernels/form.h"
#include "kernels/kernels.h"

#define TILE_TOKENS 4
#define TILE_ROWS 4 /* half a strip: 8 vectors of codes, shared by the tokens, leave 8 of 16 registers for the rest */

/* A member of the family; every use is a constant. */
typedef struct {
  fm_scale_kind kind;
  size_t sub;   /* columns that share a scale: 16 or 32 */
  size_t n_add; /* pair sums that int16 holds */
  int dot;      /* fm_dot */
} gemm_kind;

/* n (4 or 8) vectors of codes, 4 columns each, against one token, times the scale: four int32 lanes, one a row. 16 activations
 * are loaded once and spread by shuffles: V8 folds the offset of a plain load, not that of a splatting one. */
FM_INLINE v128_t dot_rows(gemm_kind kind, const v128_t *codes, size_t n, const int8_t *q, v128_t scale) {
  v128_t total = fm_zero(), part = fm_zero(), acts = fm_zero();
  FM_UNROLL
  for (size_t k = 0; k < n; k++) {
    if (k % 4 == 0) acts = wasm_v128_load(q + 4 * k);
    v128_t splat = fm_splat_i32(acts, k % 4);
    if (kind.dot == FM_DOT_I32) {
      part = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(splat, codes[k], part);
      continue;
    }
    v128_t pairs = wasm_i16x8_relaxed_dot_i8x16_i7x16(splat, codes[k]);
    part = k % kind.n_add == 0 ? pairs : wasm_i16x8_add(part, pairs);
    if ((k + 1) % kind.n_add == 0) {
      v128_t scaled = wasm_i32x4_dot_i16x8(part, scale);
      total = k < kind.n_add ? scaled : wasm_i32x4_add(total, scaled);
    }
  }
  if (kind.dot == FM_DOT_I16) return total;
  return kind.kind == FM_SCALES_K ? wasm_i32x4_mul(part, scale) : part;
}

FM_INLINE v128_t load_k_scale(gemm_kind kind, const int16_t *scale) {
  v128_t pairs = wasm_v128_load(scale);
  return kind.dot == FM_DOT_I32 ? wasm_i32x4_shr(pairs, 16) : pairs;
}

FM_INLINE void load_codes(v128_t codes[8], const uint8_t *code) {
  FM_UNROLL
  for (size_t k = 0; k < 8; k++) codes[k] = wasm_v128_load(code + 4 * FM_STRIP_ROWS * k);
}

/* 4 tokens x rows row .. row + 3 x one group of 256 columns, K types: acc[t] += the group's share. */
FM_INLINE void k_group(gemm_kind kind, const fm_strip *strip, size_t row, size_t group,
                       const fm_act_i8 *const x[TILE_TOKENS], v128_t acc[TILE_TOKENS]) {
  v128_t sum[TILE_TOKENS];
  for (size_t t = 0; t < TILE_TOKENS; t++) sum[t] = fm_zero();
  const uint8_t *code = strip->code[64 * group][row];
  const int16_t *scale = strip->i16.scale[16 * group][row];
  FM_NO_UNROLL
  for (size_t c = 0; c < FM_GROUP_COLS; c += 32) {
    v128_t codes[8];
    load_codes(codes, code);
    v128_t first = load_k_scale(kind, scale);
    v128_t second = kind.sub == 16 ? load_k_scale(kind, scale + 2 * FM_STRIP_ROWS) : first;
    FM_UNROLL
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      const int8_t *q = x[t]->q + c;
      if (kind.sub == 32) {
        sum[t] = wasm_i32x4_add(sum[t], dot_rows(kind, codes, 8, q, first));
      } else {
        v128_t halves =
            wasm_i32x4_add(dot_rows(kind, codes, 4, q, first), dot_rows(kind, codes + 4, 4, q + 16, second));
        sum[t] = wasm_i32x4_add(sum[t], halves);
      }
    }
    code += 32 * FM_STRIP_ROWS;
    scale += 2 * 2 * FM_STRIP_ROWS;
  }
  const int16_t *min = strip->i16.min[8 * group][row];
  v128_t d = wasm_v128_load(strip->i16.d[group] + row), dmin = wasm_v128_load(strip->i16.dmin[group] + row);
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    v128_t min_sum = fm_zero(), sums = fm_zero();
    FM_UNROLL
    for (size_t pair = 0; pair < FM_GROUP_COLS / kind.sub / 2; pair++) {
      if (pair % 4 == 0) sums = wasm_v128_load((kind.sub == 32 ? x[t]->sum32 : x[t]->sum16) + 2 * pair);
      v128_t mins = wasm_v128_load(min + 2 * FM_STRIP_ROWS * pair);
      min_sum = wasm_i32x4_add(min_sum, wasm_i32x4_dot_i16x8(fm_splat_i32(sums, pair % 4), mins));
    }
    v128_t value = wasm_f32x4_sub(wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(sum[t])),
                                  wasm_f32x4_mul(dmin, wasm_f32x4_convert_i32x4(min_sum)));
    acc[t] = wasm_f32x4_add(acc[t], wasm_f32x4_mul(wasm_v128_load32_splat(&x[t]->d), value));
  }
}

/* The same for f32 scales, one for each 32 columns; the bias is part of the mins. */
FM_INLINE void f32_group(gemm_kind kind, const fm_strip *strip, size_t row, size_t group,
                         const fm_act_i8 *const x[TILE_TOKENS], v128_t acc[TILE_TOKENS]) {
  v128_t total[TILE_TOKENS], ones = fm_hold_i32(0x00010001);
  for (size_t t = 0; t < TILE_TOKENS; t++) total[t] = fm_zero();
  const uint8_t *code = strip->code[64 * group][row];
  const float *scale = strip->f32.scale[16 * group] + row, *min = strip->f32.min[16 * group] + row;
  FM_NO_UNROLL
  for (size_t c = 0; c < FM_GROUP_COLS; c += 32) {
    v128_t codes[8], scales = wasm_v128_load(scale);
    load_codes(codes, code);
    FM_UNROLL
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      v128_t sum = wasm_f32x4_convert_i32x4(dot_rows(kind, codes, 8, x[t]->q + c, ones));
      total[t] = wasm_f32x4_add(total[t], wasm_f32x4_mul(scales, sum));
    }
    code += 32 * FM_STRIP_ROWS;
    scale += 2 * FM_STRIP_ROWS;
  }
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    v128_t sums = wasm_v128_load(x[t]->sum32), min_sum = fm_zero();
    v128_t act_sum[2] = {fm_low_i16_to_f32(sums), fm_high_i16_to_f32(sums)};
    FM_UNROLL
    for (size_t sub = 0; sub < 8; sub++) {
      v128_t mins = wasm_v128_load(min + 2 * FM_STRIP_ROWS * sub);
      min_sum = wasm_f32x4_add(min_sum, wasm_f32x4_mul(fm_splat_i32(act_sum[sub / 4], sub % 4), mins));
    }
    v128_t d = wasm_v128_load32_splat(&x[t]->d);
    acc[t] = wasm_f32x4_add(acc[t], wasm_f32x4_mul(d, wasm_f32x4_sub(total[t], min_sum)));
  }
}

/* Past the last token the last one stands again, and its result is not stored: one tile size serves every n_tokens. */
FM_INLINE void tiles(gemm_kind kind, const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_groups,
                     size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {
  FM_NO_UNROLL
  for (size_t first = 0; first < n_tokens; first += TILE_TOKENS) {
    size_t n = n_tokens - first < TILE_TOKENS ? n_tokens - first : TILE_TOKENS;
    FM_NO_UNROLL
    for (size_t row = 0; row < n_rows; row += TILE_ROWS) {
      const fm_act_i8 *token[TILE_TOKENS];
      v128_t acc[TILE_TOKENS];
      for (size_t t = 0; t < TILE_TOKENS; t++) {
        token[t] = x + (first + (t < n ? t : n - 1)) * n_groups;
        acc[t] = fm_zero();
      }
      FM_NO_UNROLL
      for (size_t group = 0; group < n_groups; group++) {
        if (kind.kind == FM_SCALES_K) {
          k_group(kind, strip, row, group, token, acc);
        } else {
          f32_group(kind, strip, row, group, token, acc);
        }
        for (size_t t = 0; t < TILE_TOKENS; t++) token[t]++;
      }
      fm_store_tile(y + first * y_stride + row, acc, n, y_stride, n_rows - row, accumulate);
    }
  }
}

#define GEMM_I8(name, ...)                                                                                             \
  void fm_gemm_i8_##name##__relaxed(const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_blocks,              \
                                    size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {                \
    tiles((gemm_kind){__VA_ARGS__}, strip, x, y, n_blocks, n_tokens, y_stride, n_rows, accumulate);                    \
  }

/* name, kind of scales, sub, n_add, dot */
GEMM_I8(k16_3bit_dot16, FM_SCALES_K, 16, 4, FM_DOT_I16)
GEMM_I8(k16_6bit_dot16, FM_SCALES_K, 16, 2, FM_DOT_I16)
GEMM_I8(k32_4bit_dot16, FM_SCALES_K, 32, 8, FM_DOT_I16)
GEMM_I8(k32_5bit_dot16, FM_SCALES_K, 32, 4, FM_DOT_I16)
GEMM_I8(k16_dot32, FM_SCALES_K, 16, 0, FM_DOT_I32)
GEMM_I8(k32_dot32, FM_SCALES_K, 32, 0, FM_DOT_I32)
GEMM_I8(f32_4bit_dot16, FM_SCALES_F32, 32, 8, FM_DOT_I16)
GEMM_I8(f32_5bit_dot16, FM_SCALES_F32, 32, 4, FM_DOT_I16)
GEMM_I8(f32_dot32, FM_SCALES_F32, 32, 0, FM_DOT_I32)
