/* The matrix-matrix micro-kernel for int8 activations, relaxed SIMD; one for every weight type. Strip layout: strip.h.
 *
 * For 4 columns one 32-bit splat of a token's activations meets one vector of codes, rows side by side:
 *   codes   r0c0 r0c1 r0c2 r0c3  r1c0 .. r1c3  r2c0 .. r2c3  r3c0 .. r3c3
 *   q       a0   a1   a2   a3    a0   .. a3    a0   .. a3    a0   .. a3
 * dot16: pairs in int16. n_add of them are added before i32x4.dot_i16x8 applies the scale, sums pairs and widens at once:
 *        n_add * 2 * max_code * 127 < 2^15, so 8 for codes <= 15 (30,480), 4 for <= 31 (31,496), 2 for <= 63 (32,004).
 * dot32: fours in int32, then an int32 multiplication by the scale.
 *
 * K types, sums of a super-block of 256 columns exact in int32 (bound: form_relaxed.h):
 *   y[t][r] += d[t] * (d[r] * sum_sub scale * (sum code * q) - dmin[r] * sum_sub min * (sum q))
 *   with a bias d = dmin, and the two sums are subtracted before they leave int32
 * f32 scales, sums of 32 columns:
 *   y[t][r] += d[t] * sum_sub (scale * (sum code * q - bias * sum q) - min * (sum q)) */
#include "fused.h"
#include "kernels/form.h"
#include "kernels/kernels.h"

#define TILE_TOKENS FM_TILE_TOKENS

/* A member of the family; every use is a constant. */
typedef struct {
  fm_scale_kind kind;
  size_t sub; /* columns that share a scale: 16 or 32 */
  bool has_min;
  size_t n_add; /* pair sums that int16 holds */
  int dot;      /* fm_dot */
} gemm_kind;

/* Loads at constant offsets from one pointer become a single instruction only where the compiler sees that the addition
 * cannot wrap; it does where the low bits are known to be zero. */
FM_INLINE const void *aligned(const void *p, uintptr_t alignment) {
  return (const void *)((uintptr_t)p & ~(alignment - 1));
}

/* n (4 or 8) vectors of codes, 4 columns each, against one token: four int32 lanes, one a row, times the scale. */
FM_INLINE v128_t dot_rows(gemm_kind kind, const v128_t *codes, size_t n, const int8_t *q, v128_t scale) {
  v128_t sum = fm_zero();
  if (kind.dot == FM_DOT_I32) {
    v128_t odd = fm_zero();
    for (size_t k = 0; k < n; k += 2) {
      sum = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_v128_load32_splat(q + 4 * k), codes[k], sum);
      odd = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_v128_load32_splat(q + 4 * k + 4), codes[k + 1], odd);
    }
    sum = wasm_i32x4_add(sum, odd);
    return kind.kind == FM_SCALES_K ? wasm_i32x4_mul(sum, scale) : sum;
  }
  size_t n_add = kind.n_add < n ? kind.n_add : n;
  for (size_t first = 0; first < n; first += n_add) {
    v128_t pair[8];
    for (size_t k = 0; k < n_add; k++) {
      v128_t splat = wasm_v128_load32_splat(q + 4 * (first + k));
      pair[k] = wasm_i16x8_relaxed_dot_i8x16_i7x16(splat, codes[first + k]);
    }
    for (size_t width = n_add / 2; width > 0; width /= 2) {
      for (size_t k = 0; k < width; k++) pair[k] = wasm_i16x8_add(pair[k], pair[k + width]);
    }
    v128_t part = wasm_i32x4_dot_i16x8(pair[0], scale);
    sum = first == 0 ? part : wasm_i32x4_add(sum, part);
  }
  return sum;
}

FM_INLINE v128_t load_k_scale(gemm_kind kind, const fm_strip *strip, size_t entry) {
  v128_t scale = wasm_v128_load(strip->i16.scale[entry]);
  return kind.dot == FM_DOT_I32 ? wasm_i32x4_shr(scale, 16) : scale;
}

/* 4 tokens x 4 rows x one group of 256 columns, K types: acc[t] += the group's share. */
FM_INLINE void k_group(gemm_kind kind, const fm_strip *strip, size_t group, const fm_act_i8 *const x[TILE_TOKENS],
                       v128_t acc[TILE_TOKENS]) {
  v128_t sum[TILE_TOKENS];
  for (size_t t = 0; t < TILE_TOKENS; t++) sum[t] = fm_zero();
  const uint8_t *code = &strip->code[64 * group][0][0];
  FM_NO_UNROLL
  for (size_t i = 0; i < 8; i++) {
    v128_t codes[8];
    for (size_t k = 0; k < 8; k++) codes[k] = wasm_v128_load((const uint8_t *)aligned(code + 128 * i, 128) + 16 * k);
    size_t entry = 16 * group + 2 * i;
    v128_t scale = load_k_scale(kind, strip, entry);
    v128_t second = kind.sub == 16 ? load_k_scale(kind, strip, entry + 1) : scale;
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      const int8_t *q = aligned(x[t][group].q + 32 * i, 32);
      if (kind.sub == 32) {
        sum[t] = wasm_i32x4_add(sum[t], dot_rows(kind, codes, 8, q, scale));
      } else {
        v128_t halves = wasm_i32x4_add(dot_rows(kind, codes, 4, q, scale), dot_rows(kind, codes + 4, 4, q + 16, second));
        sum[t] = wasm_i32x4_add(sum[t], halves);
      }
    }
  }
  v128_t d = wasm_v128_load(strip->i16.d[group]);
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    const fm_act_i8 *a = &x[t][group];
    const int16_t *act_sums = kind.sub == 32 ? a->sum32 : a->sum16;
    v128_t min_sum = fm_zero();
    for (size_t pair = 0; pair < FM_GROUP_COLS / kind.sub / 2; pair++) {
      v128_t mins = wasm_v128_load(strip->i16.min[8 * group + pair]);
      min_sum = wasm_i32x4_add(min_sum, wasm_i32x4_dot_i16x8(wasm_v128_load32_splat(act_sums + 2 * pair), mins));
    }
    v128_t value;
    if (kind.has_min) {
      v128_t dmin = wasm_v128_load(strip->i16.dmin[group]);
      value = wasm_f32x4_sub(wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(sum[t])),
                             wasm_f32x4_mul(dmin, wasm_f32x4_convert_i32x4(min_sum)));
    } else {
      value = wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(wasm_i32x4_sub(sum[t], min_sum)));
    }
    acc[t] = wasm_f32x4_add(acc[t], wasm_f32x4_mul(wasm_v128_load32_splat(&a->d), value));
  }
}

/* The same for f32 scales, one for each 32 columns. */
FM_INLINE void f32_group(gemm_kind kind, const fm_strip *strip, size_t group, const fm_act_i8 *const x[TILE_TOKENS],
                         v128_t acc[TILE_TOKENS]) {
  v128_t total[TILE_TOKENS], ones = fm_hold_i32(0x00010001);
  for (size_t t = 0; t < TILE_TOKENS; t++) total[t] = fm_zero();
  /* Activation sums come in pairs {even, odd} of int16: a dot product with {bias, 0} or {0, bias} picks one. */
  v128_t factor = wasm_i32x4_splat(kind.has_min ? 1 : strip->bias);
  const uint8_t *code = &strip->code[64 * group][0][0];
  FM_NO_UNROLL
  for (size_t i = 0; i < 8; i++) {
    v128_t codes[8];
    for (size_t k = 0; k < 8; k++) codes[k] = wasm_v128_load((const uint8_t *)aligned(code + 128 * i, 128) + 16 * k);
    v128_t scale = wasm_v128_load(strip->f32.scale[16 * group + 2 * i]);
    v128_t pick = i % 2 ? wasm_i32x4_shl(factor, 16) : factor;
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      const fm_act_i8 *a = &x[t][group];
      v128_t sum = dot_rows(kind, codes, 8, aligned(a->q + 32 * i, 32), ones);
      v128_t act_sum = wasm_i32x4_dot_i16x8(wasm_v128_load32_splat(a->sum32 + i / 2 * 2), pick);
      if (kind.has_min) {
        v128_t min = wasm_v128_load(strip->f32.min[16 * group + 2 * i]);
        v128_t part = wasm_f32x4_sub(wasm_f32x4_mul(scale, wasm_f32x4_convert_i32x4(sum)),
                                     wasm_f32x4_mul(min, wasm_f32x4_convert_i32x4(act_sum)));
        total[t] = wasm_f32x4_add(total[t], part);
      } else {
        v128_t part = wasm_f32x4_mul(scale, wasm_f32x4_convert_i32x4(wasm_i32x4_sub(sum, act_sum)));
        total[t] = wasm_f32x4_add(total[t], part);
      }
    }
  }
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    acc[t] = wasm_f32x4_add(acc[t], wasm_f32x4_mul(wasm_v128_load32_splat(&x[t][group].d), total[t]));
  }
}

/* Past the last token the last one stands again, and its result is not stored: one tile size serves every n_tokens. */
FM_INLINE void tiles(gemm_kind kind, const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_groups,
                     size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {
  for (size_t first = 0; first < n_tokens; first += TILE_TOKENS) {
    size_t n = n_tokens - first < TILE_TOKENS ? n_tokens - first : TILE_TOKENS;
    const fm_act_i8 *token[TILE_TOKENS];
    v128_t acc[TILE_TOKENS];
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      token[t] = x + (first + (t < n ? t : n - 1)) * n_groups;
      acc[t] = fm_zero();
    }
    FM_NO_UNROLL
    for (size_t group = 0; group < n_groups; group++) {
      if (kind.kind == FM_SCALES_K) {
        k_group(kind, strip, group, token, acc);
      } else {
        f32_group(kind, strip, group, token, acc);
      }
    }
    fm_store_tile(y + first * y_stride, acc, n, y_stride, n_rows, accumulate);
  }
}

#define GEMM_I8(name, ...)                                                                                      \
  void fm_gemm_i8_##name##__relaxed(const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_blocks,       \
                                    size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {         \
    tiles((gemm_kind){__VA_ARGS__}, strip, x, y, n_blocks, n_tokens, y_stride, n_rows, accumulate);             \
  }

/*      name              kind           sub  has_min  n_add  dot */
GEMM_I8(q2_k_dot16,       FM_SCALES_K,   16,  true,    4,     FM_DOT_I16)
GEMM_I8(q3_k_dot16,       FM_SCALES_K,   16,  false,   4,     FM_DOT_I16)
GEMM_I8(q4_k_dot16,       FM_SCALES_K,   32,  true,    8,     FM_DOT_I16)
GEMM_I8(q5_k_dot16,       FM_SCALES_K,   32,  true,    4,     FM_DOT_I16)
GEMM_I8(q6_k_dot16,       FM_SCALES_K,   16,  false,   2,     FM_DOT_I16)
GEMM_I8(min16_dot32,      FM_SCALES_K,   16,  true,    0,     FM_DOT_I32)
GEMM_I8(min32_dot32,      FM_SCALES_K,   32,  true,    0,     FM_DOT_I32)
GEMM_I8(bias16_dot32,     FM_SCALES_K,   16,  false,   0,     FM_DOT_I32)
GEMM_I8(f32_bias4_dot16,  FM_SCALES_F32, 32,  false,   8,     FM_DOT_I16)
GEMM_I8(f32_bias5_dot16,  FM_SCALES_F32, 32,  false,   4,     FM_DOT_I16)
GEMM_I8(f32_min4_dot16,   FM_SCALES_F32, 32,  true,    8,     FM_DOT_I16)
GEMM_I8(f32_min5_dot16,   FM_SCALES_F32, 32,  true,    4,     FM_DOT_I16)
GEMM_I8(f32_bias_dot32,   FM_SCALES_F32, 32,  false,   0,     FM_DOT_I32)
GEMM_I8(f32_min_dot32,    FM_SCALES_F32, 32,  true,    0,     FM_DOT_I32)
