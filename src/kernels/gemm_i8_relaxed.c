/* The matrix-matrix micro-kernel for int8 activations, relaxed SIMD; one for every weight type. Strip layout: strip.h.
 *
 * For 4 columns a 32-bit splat of a token's activations meets two vectors of codes, rows side by side:
 *   codes   r0c0 r0c1 r0c2 r0c3  r1c0 .. r1c3  r2c0 .. r2c3  r3c0 .. r3c3   and the same of rows 4..7
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

#define TILE_TOKENS 2 /* with 8 rows, all sums fit into the 16 vector registers of x86 */

/* A member of the family; every use is a constant. */
typedef struct {
  fm_scale_kind kind;
  size_t sub; /* columns that share a scale: 16 or 32 */
  bool has_min;
  size_t n_add; /* pair sums that int16 holds */
  int dot;      /* fm_dot */
} gemm_kind;

/* 16 columns of 8 rows (two vectors for every 4 columns) against one token, added to two int32 vectors of 4 rows. The token's
 * 16 activations are loaded once and spread by shuffles: V8 folds the offset of a plain load, not that of a splatting one. */
typedef struct {
  v128_t rows[2];
} eight_rows;

FM_INLINE v128_t spread(v128_t q, size_t k) {
  switch (k) {
    case 0: return wasm_i32x4_shuffle(q, q, 0, 0, 0, 0);
    case 1: return wasm_i32x4_shuffle(q, q, 1, 1, 1, 1);
    case 2: return wasm_i32x4_shuffle(q, q, 2, 2, 2, 2);
    default: return wasm_i32x4_shuffle(q, q, 3, 3, 3, 3);
  }
}

/* sum[t] += scale * (codes . q[t]) over the n vectors (4 columns each) of one sub-block; dot16 adds `n_add` pair sums in
 * int16 before it widens. q: columns of the sub-block's start. */
FM_INLINE void dot_sub_block(gemm_kind kind, const uint8_t *code, const int8_t *const q[TILE_TOKENS],
                             const v128_t scale[2], eight_rows sum[TILE_TOKENS]) {
  const size_t n_vectors = kind.sub / 4;
  v128_t part[TILE_TOKENS][2], acts[TILE_TOKENS];
  FM_UNROLL
  for (size_t k = 0; k < n_vectors; k++) {
    v128_t codes[2] = {wasm_v128_load(code + 32 * k), wasm_v128_load(code + 32 * k + 16)};
    FM_UNROLL
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      if (k % 4 == 0) acts[t] = wasm_v128_load(q[t] + 4 * k);
      v128_t splat = spread(acts[t], k % 4);
      FM_UNROLL
      for (size_t half = 0; half < 2; half++) {
        v128_t *to = &part[t][half];
        if (kind.dot == FM_DOT_I32) {
          *to = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(splat, codes[half], k == 0 ? fm_zero() : *to);
          if (k == n_vectors - 1) {
            v128_t scaled = kind.kind == FM_SCALES_K ? wasm_i32x4_mul(*to, scale[half]) : *to;
            sum[t].rows[half] = wasm_i32x4_add(sum[t].rows[half], scaled);
          }
        } else {
          v128_t pairs = wasm_i16x8_relaxed_dot_i8x16_i7x16(splat, codes[half]);
          *to = k % kind.n_add == 0 ? pairs : wasm_i16x8_add(*to, pairs);
          if ((k + 1) % kind.n_add == 0) {
            sum[t].rows[half] = wasm_i32x4_add(sum[t].rows[half], wasm_i32x4_dot_i16x8(*to, scale[half]));
          }
        }
      }
    }
  }
}

FM_INLINE void load_k_scales(gemm_kind kind, const fm_strip *strip, size_t entry, v128_t scale[2]) {
  for (size_t half = 0; half < 2; half++) {
    scale[half] = wasm_v128_load(strip->i16.scale[entry][4 * half]);
    if (kind.dot == FM_DOT_I32) scale[half] = wasm_i32x4_shr(scale[half], 16);
  }
}

/* 2 tokens x 8 rows x one group of 256 columns, K types: acc += the group's share. */
FM_INLINE void k_group(gemm_kind kind, const fm_strip *strip, size_t group, const fm_act_i8 *const x[TILE_TOKENS],
                       eight_rows acc[TILE_TOKENS]) {
  eight_rows sum[TILE_TOKENS];
  for (size_t t = 0; t < TILE_TOKENS; t++) sum[t].rows[0] = sum[t].rows[1] = fm_zero();
  const uint8_t *code = strip->code[64 * group][0];
  const int8_t *q[TILE_TOKENS];
  for (size_t t = 0; t < TILE_TOKENS; t++) q[t] = x[t][group].q;
  size_t entry = 16 * group;
  FM_NO_UNROLL
  for (size_t c = 0; c < FM_GROUP_COLS; c += 32, entry += 2) {
    v128_t scale[2];
    load_k_scales(kind, strip, entry, scale);
    dot_sub_block(kind, code, q, scale, sum);
    if (kind.sub == 16) {
      const int8_t *second[TILE_TOKENS];
      for (size_t t = 0; t < TILE_TOKENS; t++) second[t] = q[t] + 16;
      load_k_scales(kind, strip, entry + 1, scale);
      dot_sub_block(kind, code + 128, second, scale, sum);
    }
    code += 256;
    for (size_t t = 0; t < TILE_TOKENS; t++) q[t] += 32;
  }
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    const fm_act_i8 *a = &x[t][group];
    const int16_t *act_sums = kind.sub == 32 ? a->sum32 : a->sum16;
    v128_t min_sum[2] = {fm_zero(), fm_zero()}, d_act = wasm_v128_load32_splat(&a->d);
    for (size_t pair = 0; pair < FM_GROUP_COLS / kind.sub / 2; pair++) {
      v128_t sums = wasm_v128_load32_splat(act_sums + 2 * pair);
      for (size_t half = 0; half < 2; half++) {
        v128_t mins = wasm_v128_load(strip->i16.min[8 * group + pair][4 * half]);
        min_sum[half] = wasm_i32x4_add(min_sum[half], wasm_i32x4_dot_i16x8(sums, mins));
      }
    }
    for (size_t half = 0; half < 2; half++) {
      v128_t d = wasm_v128_load(strip->i16.d[group] + 4 * half), value;
      if (kind.has_min) {
        v128_t dmin = wasm_v128_load(strip->i16.dmin[group] + 4 * half);
        value = wasm_f32x4_sub(wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(sum[t].rows[half])),
                               wasm_f32x4_mul(dmin, wasm_f32x4_convert_i32x4(min_sum[half])));
      } else {
        value = wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(wasm_i32x4_sub(sum[t].rows[half], min_sum[half])));
      }
      acc[t].rows[half] = wasm_f32x4_add(acc[t].rows[half], wasm_f32x4_mul(d_act, value));
    }
  }
}

/* The same for f32 scales, one for each 32 columns. */
FM_INLINE void f32_group(gemm_kind kind, const fm_strip *strip, size_t group, const fm_act_i8 *const x[TILE_TOKENS],
                         eight_rows acc[TILE_TOKENS]) {
  const v128_t ones[2] = {fm_hold_i32(0x00010001), fm_hold_i32(0x00010001)};
  eight_rows total[TILE_TOKENS];
  const int8_t *q[TILE_TOKENS];
  const int16_t *act_sums[TILE_TOKENS];
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    total[t].rows[0] = total[t].rows[1] = fm_zero();
    q[t] = x[t][group].q;
    act_sums[t] = x[t][group].sum32;
  }
  const uint8_t *code = strip->code[64 * group][0];
  size_t entry = 16 * group;
  FM_NO_UNROLL
  for (size_t c = 0; c < FM_GROUP_COLS; c += 32, entry += 2, code += 256) {
    eight_rows sum[TILE_TOKENS];
    v128_t act_sum[TILE_TOKENS];
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      act_sum[t] = wasm_i32x4_splat(*act_sums[t]);
      sum[t].rows[0] = sum[t].rows[1] = fm_zero();
      if (!kind.has_min) sum[t].rows[0] = sum[t].rows[1] = wasm_i32x4_splat(-strip->bias * *act_sums[t]);
    }
    dot_sub_block(kind, code, q, ones, sum);
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      for (size_t half = 0; half < 2; half++) {
        v128_t scale = wasm_v128_load(strip->f32.scale[entry] + 4 * half);
        v128_t part = wasm_f32x4_mul(scale, wasm_f32x4_convert_i32x4(sum[t].rows[half]));
        if (kind.has_min) {
          v128_t min = wasm_v128_load(strip->f32.min[entry] + 4 * half);
          part = wasm_f32x4_sub(part, wasm_f32x4_mul(min, wasm_f32x4_convert_i32x4(act_sum[t])));
        }
        total[t].rows[half] = wasm_f32x4_add(total[t].rows[half], part);
      }
      q[t] += 32;
      act_sums[t]++;
    }
  }
  for (size_t t = 0; t < TILE_TOKENS; t++) {
    v128_t d = wasm_v128_load32_splat(&x[t][group].d);
    for (size_t half = 0; half < 2; half++) {
      acc[t].rows[half] = wasm_f32x4_add(acc[t].rows[half], wasm_f32x4_mul(d, total[t].rows[half]));
    }
  }
}

/* An odd token at the end stands twice, and is stored once: one tile size serves every n_tokens. */
FM_INLINE void tiles(gemm_kind kind, const fm_strip *strip, const fm_act_i8 *x, float *y, size_t n_groups,
                     size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate) {
  FM_NO_UNROLL
  for (size_t first = 0; first < n_tokens; first += TILE_TOKENS) {
    size_t n = n_tokens - first < TILE_TOKENS ? n_tokens - first : TILE_TOKENS;
    const fm_act_i8 *token[TILE_TOKENS];
    eight_rows acc[TILE_TOKENS];
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      token[t] = x + (first + (t < n ? t : n - 1)) * n_groups;
      acc[t].rows[0] = acc[t].rows[1] = fm_zero();
    }
    FM_NO_UNROLL
    for (size_t group = 0; group < n_groups; group++) {
      if (kind.kind == FM_SCALES_K) {
        k_group(kind, strip, group, token, acc);
      } else {
        f32_group(kind, strip, group, token, acc);
      }
    }
    for (size_t t = 0; t < TILE_TOKENS; t++) {
      if (t < n) fm_store_rows(y + (first + t) * y_stride, acc[t].rows, n_rows, accumulate);
    }
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
