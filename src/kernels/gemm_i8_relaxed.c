/* The matrix-matrix micro-kernels for int8 activations, relaxed SIMD, for every weight type.
 * Layouts are in strip.h (strips) and activations.h (tiles).
 *
 * A 32-bit splat of a row's codes, 4 columns, is multiplied with a vector of the activations of 4
 * tokens:
 *   codes   c0   c1   c2   c3    c0   .. c3    c0   .. c3    c0   .. c3
 *   q       t0a0 t0a1 t0a2 t0a3  t1a0 .. t1a3  t2a0 .. t2a3  t3a0 .. t3a3
 * dot16: sums pairs in int16. n_add of them (FM_N_ADD) are added before i32x4.dot_i16x8 applies the
 *        scale, sums pairs and widens at once.
 * dot32: sums fours in int32, which an int32 multiplication scales.
 *
 * K types, sums of a super-block of 256 columns exact in int32 (bound: decoder_relaxed.h):
 *   y[t][r] += d[t] * (d[r] * sum_sub scale * (sum code * q) - dmin[r] * sum_sub min * (sum q))
 * f32 scales, sums of a sub-block, or of the n_add * 4 columns that one int16 lane holds:
 *   y[t][r] += sum_sub d[t] * (scale * (sum code * q)) - min * s[t]
 * A bias is subtracted from the sums: int32 sums start at -bias * (sum q). For dot16 of K types,
 * whose sums are in int16, min holds it instead.
 *
 * A patch of y has 8 sums in registers, each of 4 tokens and one row: 8 tokens x 4 rows, or 4 x 8
 * for the last tokens. Compilers sort straight code into one chain of products for each sum, with
 * all operands alive at once, and spill. A loop keeps steps apart, and so does a branch whose
 * condition they cannot know. Sums of outer loops are fetched anew in every turn (fm_in_memory). */
#include "fused.h"
#include "kernels/activations.h"
#include "kernels/decoder.h"
#include "kernels/wide_dot.h"

#define N_SUMS 8

/* A kernel of this family; every use is a constant. n_vectors: vectors of 4 tokens, 1 or 2; sum i
 * is row i / n_vectors. */
typedef struct {
  fm_scale_kind kind;
  int dot; /* fm_dot */
  size_t n_vectors;
} gemm_kind;

typedef struct {
  size_t sub, n_subs; /* columns of a sub-block, and sub-blocks of a group */
  size_t n_steps;     /* steps of 4 columns before a scale is applied */
  size_t n_parts;     /* parts of a sub-block, n_steps each */
  int32_t bias;
  bool has_min;
} shape;

typedef struct {
  const fm_act_tile_i8 *vector[2];
} tokens;

FM_INLINE v128_t splat_load(const void *four_bytes) { return wasm_v128_load32_splat(four_bytes); }

FM_INLINE v128_t splat_lane(v128_t v, size_t lane) {
  return lane == 0   ? wasm_i32x4_shuffle(v, v, 0, 0, 0, 0)
         : lane == 1 ? wasm_i32x4_shuffle(v, v, 1, 1, 1, 1)
         : lane == 2 ? wasm_i32x4_shuffle(v, v, 2, 2, 2, 2)
                     : wasm_i32x4_shuffle(v, v, 3, 3, 3, 3);
}

/* One step, 4 columns of a row: part[v] += codes * acts[v], v = 0..n_vectors-1. */
FM_INLINE void dot_step(gemm_kind kind, v128_t codes, const v128_t acts[2], v128_t *part) {
  FM_UNROLL
  for (size_t v = 0; v < kind.n_vectors; v++) {
    part[v] = kind.dot == FM_DOT_I32
                  ? wasm_i32x4_relaxed_dot_i8x16_i7x16_add(acts[v], codes, part[v])
                  : wasm_i16x8_add(part[v], wasm_i16x8_relaxed_dot_i8x16_i7x16(acts[v], codes));
  }
}

/* Adds the products of n_steps * 4 columns to part[i]: int16 pairs or int32. q: the first vector of
 * tokens; the second is `apart` bytes away. Every row and step has a splatting load. */
FM_INLINE void dot_columns_by_1(gemm_kind kind, const uint8_t *code, const int8_t *q, size_t apart,
                                size_t n_steps, v128_t part[N_SUMS]) {
  const int8_t *q2 = q + apart;
  FM_NO_UNROLL
  for (size_t k = 0; k < n_steps; k++) {
    v128_t acts[2] = {wasm_v128_load(q), kind.n_vectors == 2 ? wasm_v128_load(q2) : fm_zero()};
    FM_UNROLL
    for (size_t i = 0; i < N_SUMS; i += kind.n_vectors) {
      dot_step(kind, splat_load(code + i / kind.n_vectors * FM_STRIP_STRIDE), acts, part + i);
    }
    code += 4;
    q += 16;
    q2 += 16;
  }
}

/* The same with one load for each row and 4 steps, and a shuffle for each step. It is for dot32;
 * the adds of dot16 would compete with the shuffles for ports. Every step ends in a branch on
 * `left`, which changes in every turn: that keeps steps apart (see the top). */
FM_INLINE void dot_columns_by_4(gemm_kind kind, const uint8_t *code, const int8_t *q, size_t apart,
                                size_t n_steps, v128_t part[N_SUMS]) {
  const int8_t *q2 = q + apart;
  FM_NO_UNROLL
  for (size_t left = n_steps;; left -= 4) {
    v128_t codes[N_SUMS];
    FM_UNROLL
    for (size_t i = 0; i < N_SUMS; i += kind.n_vectors) {
      codes[i] = wasm_v128_load(code + i / kind.n_vectors * FM_STRIP_STRIDE);
    }
    FM_UNROLL
    for (size_t k = 0; k < 4; k++) {
      v128_t acts[2] = {wasm_v128_load(q + 16 * k), wasm_v128_load(q2 + 16 * k)};
      FM_UNROLL
      for (size_t i = 0; i < N_SUMS; i += kind.n_vectors)
        dot_step(kind, splat_lane(codes[i], k), acts, part + i);
      if (left == k + 1) return;
    }
    code += 16;
    q += 64;
    q2 += 64;
  }
}

FM_INLINE void dot_columns(gemm_kind kind, const uint8_t *code, const int8_t *q, size_t apart,
                           size_t n_steps, v128_t part[N_SUMS]) {
  if (kind.dot == FM_DOT_I32 && kind.n_vectors == 2) {
    dot_columns_by_4(kind, code, q, apart, n_steps, part);
  } else {
    dot_columns_by_1(kind, code, q, apart, n_steps, part);
  }
}

/* dot16 for codes over 63, of which int16 holds one pair sum: the scale is applied to every
 * product, and int32 sums of the whole group stay in registers. */
FM_INLINE void k_columns_one_by_one(gemm_kind kind, const shape *s, const uint8_t *code,
                                    const int32_t *scale, const int8_t *q, size_t apart,
                                    v128_t sum[N_SUMS]) {
  FM_NO_UNROLL
  for (size_t sub = 0; sub < s->n_subs; sub++, scale++) {
    v128_t by[N_SUMS];
    FM_UNROLL
    for (size_t r = 0; r < N_SUMS / kind.n_vectors; r++)
      by[r] = splat_load(scale + r * (FM_STRIP_COLS / 16));
    const uint8_t *end = code + s->sub;
    FM_NO_UNROLL
    do {
      v128_t acts[2] = {wasm_v128_load(q),
                        kind.n_vectors == 2 ? wasm_v128_load(q + apart) : fm_zero()};
      FM_UNROLL
      for (size_t i = 0; i < N_SUMS; i += kind.n_vectors) {
        v128_t codes = splat_load(code + i / kind.n_vectors * FM_STRIP_STRIDE);
        FM_UNROLL
        for (size_t v = 0; v < kind.n_vectors; v++) {
          v128_t pairs = wasm_i16x8_relaxed_dot_i8x16_i7x16(acts[v], codes);
          sum[i + v] =
              wasm_i32x4_add(sum[i + v], wasm_i32x4_dot_i16x8(pairs, by[i / kind.n_vectors]));
        }
      }
      code += 4;
      q += 16;
    } while (code != end);
  }
}

/* -bias * (sum q) of a part of n_cols columns: entry `at` of sum16 or sum32. */
FM_INLINE v128_t minus_bias(const fm_act_tile_i8 *x, size_t n_cols, size_t at, v128_t bias) {
  return wasm_i32x4_mul(wasm_v128_load(n_cols == 32 ? x->sum32[at] : x->sum16[at]), bias);
}

/* Adds the products of a group to acc: K types. */
FM_INLINE void k_group(gemm_kind kind, const shape *s, const fm_strip *strip, size_t row,
                       size_t group, tokens x, v128_t acc[N_SUMS]) {
  const size_t n_rows = N_SUMS / kind.n_vectors;
  const uint8_t *code = strip->code.i8[row] + FM_GROUP_COLS * group;
  const int32_t *scale = &strip->k.scale[row][s->n_subs * group];
  const int8_t *q = x.vector[0]->q[0][0];
  size_t apart = (size_t)((const char *)x.vector[1] - (const char *)x.vector[0]);
  const int32_t *sums_of = s->sub == 32 ? x.vector[0]->sum32[0] : x.vector[0]->sum16[0];
  v128_t bias = wasm_i32x4_splat(-s->bias), sum_of[N_SUMS], *sum = fm_in_memory(sum_of),
         zero = fm_hold_i32(0);
  FM_UNROLL
  for (size_t i = 0; i < N_SUMS; i++) sum[i] = zero;
  bool one_by_one = kind.dot == FM_DOT_I16 && s->n_steps == 1;
  if (one_by_one) {
    v128_t whole[N_SUMS];
    for (size_t i = 0; i < N_SUMS; i++) whole[i] = fm_zero();
    k_columns_one_by_one(kind, s, code, scale, q, apart, whole);
    for (size_t i = 0; i < N_SUMS; i++) sum[i] = whole[i];
  }
  FM_NO_UNROLL
  for (size_t sub = one_by_one ? s->n_subs : 0; sub < s->n_subs; sub++) {
    FM_NO_UNROLL
    for (size_t n = 0; n < s->n_parts; n++) {
      v128_t part[N_SUMS], start[2] = {fm_zero(), fm_zero()}, factor[N_SUMS];
      sum = fm_in_memory(sum);
      if (kind.dot == FM_DOT_I32 && s->bias) {
        for (size_t v = 0; v < kind.n_vectors; v++)
          start[v] = wasm_i32x4_mul(wasm_v128_load((const char *)sums_of + v * apart), bias);
      }
      for (size_t i = 0; i < N_SUMS; i++) part[i] = start[i % kind.n_vectors];
      dot_columns(kind, code, q, apart, s->n_steps, part);
      FM_UNROLL
      for (size_t r = 0; r < n_rows; r++) factor[r] = splat_load(scale + r * (FM_STRIP_COLS / 16));
      FM_UNROLL
      for (size_t i = 0; i < N_SUMS; i++) {
        v128_t by = factor[i / kind.n_vectors];
        sum[i] = wasm_i32x4_add(sum[i], kind.dot == FM_DOT_I32 ? wasm_i32x4_mul(part[i], by)
                                                               : wasm_i32x4_dot_i16x8(part[i], by));
      }
      code += 4 * s->n_steps;
      q += 16 * s->n_steps;
    }
    scale++;
    sums_of += FM_TILE_TOKENS;
  }
  bool with_min = s->has_min || (kind.dot == FM_DOT_I16 && s->bias);
  v128_t d_act[2];
  for (size_t v = 0; v < kind.n_vectors; v++) d_act[v] = wasm_v128_load(x.vector[v]->d[0]);
  FM_NO_UNROLL
  for (size_t r = row; r < row + n_rows; r++) {
    v128_t min_sum[2] = {fm_zero(), fm_zero()};
    if (with_min) {
      const int16_t *min = &strip->k.min[r][s->n_subs * group];
      const char *pairs = (const char *)(s->sub == 32 ? x.vector[0]->pair32 : x.vector[0]->pair16);
      FM_NO_UNROLL
      for (size_t sub = 0; sub < s->n_subs; sub += 8) {
        v128_t mins = wasm_v128_load(min + sub);
        FM_UNROLL
        for (size_t pair = 0; pair < 4; pair++) {
          v128_t two_mins = splat_lane(mins, pair);
          FM_UNROLL
          for (size_t v = 0; v < kind.n_vectors; v++) {
            v128_t two = wasm_v128_load(pairs + v * apart + 16 * pair);
            min_sum[v] = wasm_i32x4_add(min_sum[v], wasm_i32x4_dot_i16x8(two, two_mins));
          }
        }
        pairs += 64;
      }
    }
    v128_t d = splat_load(&strip->k.d[r][group]), dmin = splat_load(&strip->k.dmin[r][group]);
    FM_UNROLL
    for (size_t v = 0; v < kind.n_vectors; v++, sum++, acc++) {
      v128_t value = wasm_f32x4_sub(wasm_f32x4_mul(d, wasm_f32x4_convert_i32x4(*sum)),
                                    wasm_f32x4_mul(dmin, wasm_f32x4_convert_i32x4(min_sum[v])));
      *acc = wasm_f32x4_add(*acc, wasm_f32x4_mul(d_act[v], value));
    }
  }
}

/* The same for f32 scales. */
FM_INLINE void f32_group(gemm_kind kind, const shape *s, const fm_strip *strip, size_t row,
                         size_t group, tokens x, v128_t acc[N_SUMS]) {
  const uint8_t *code = strip->code.i8[row] + FM_GROUP_COLS * group;
  const float *scale = &strip->f32.scale[row][s->n_subs * group],
              *min = &strip->f32.min[row][s->n_subs * group];
  const int8_t *q = x.vector[0]->q[0][0];
  size_t apart = (size_t)((const char *)x.vector[1] - (const char *)x.vector[0]),
         n_cols = 4 * s->n_steps, at = 0;
  v128_t bias = wasm_i32x4_splat(-s->bias), ones = fm_hold_i32(0x00010001);
  FM_NO_UNROLL
  for (size_t sub = 0; sub < s->n_subs; sub++) {
    size_t at_d = sub * s->sub / FM_ACT_SUB;
    FM_NO_UNROLL
    for (size_t n = 0; n < s->n_parts; n++, at++) {
      v128_t part[N_SUMS], start[2] = {fm_zero(), fm_zero()}, factor[N_SUMS], d_act[2];
      acc = fm_in_memory(acc);
      for (size_t v = 0; v < kind.n_vectors; v++)
        start[v] = minus_bias(x.vector[v], n_cols, at, bias);
      for (size_t i = 0; i < N_SUMS; i++)
        part[i] = kind.dot == FM_DOT_I32 ? start[i % kind.n_vectors] : fm_zero();
      dot_columns(kind, code, q, apart, s->n_steps, part);
      FM_UNROLL
      for (size_t r = 0; r < N_SUMS / kind.n_vectors; r++)
        factor[r] = splat_load(scale + r * (FM_STRIP_COLS / 16));
      for (size_t v = 0; v < kind.n_vectors; v++) d_act[v] = wasm_v128_load(x.vector[v]->d[at_d]);
      FM_UNROLL
      for (size_t i = 0; i < N_SUMS; i++) {
        v128_t whole = kind.dot == FM_DOT_I32 ? part[i]
                                              : wasm_i32x4_add(wasm_i32x4_dot_i16x8(part[i], ones),
                                                               start[i % kind.n_vectors]);
        v128_t scaled = wasm_f32x4_mul(factor[i / kind.n_vectors], wasm_f32x4_convert_i32x4(whole));
        acc[i] = wasm_f32x4_add(acc[i], wasm_f32x4_mul(d_act[i % kind.n_vectors], scaled));
      }
      code += n_cols;
      q += 4 * n_cols;
    }
    scale++;
  }
  if (s->has_min) {
    FM_NO_UNROLL
    for (size_t sub = 0; sub < s->n_subs; sub++, min++) {
      v128_t act_sum[2];
      for (size_t v = 0; v < kind.n_vectors; v++) act_sum[v] = wasm_v128_load(x.vector[v]->s[sub]);
      FM_UNROLL
      for (size_t i = 0; i < N_SUMS; i++) {
        v128_t mins = splat_load(min + i / kind.n_vectors * (FM_STRIP_COLS / 16));
        acc[i] = wasm_f32x4_sub(acc[i], wasm_f32x4_mul(mins, act_sum[i % kind.n_vectors]));
      }
    }
  }
}

/* A patch, 8 tokens x rows row .. row + 3 or 4 tokens x 8 rows, over all groups. y has n_tokens
 * tokens and n_rows rows of it. */
FM_INLINE void patch(gemm_kind kind, const shape *s, const fm_strip *strip, size_t row,
                     const fm_act_tile_i8 *x, float *y, size_t n_groups, size_t n_tokens,
                     size_t y_stride, size_t n_rows, bool accumulate) {
  tokens at = {{x, x + n_groups}};
  v128_t acc_of[N_SUMS], *acc = fm_in_memory(acc_of), zero = fm_hold_i32(0);
  FM_UNROLL
  for (size_t i = 0; i < N_SUMS; i++) acc[i] = zero;
  FM_NO_UNROLL
  for (size_t group = 0; group < n_groups; group++) {
    if (kind.kind == FM_SCALES_K) {
      k_group(kind, s, strip, row, group, at, acc);
    } else {
      f32_group(kind, s, strip, row, group, at, acc);
    }
    at.vector[0]++;
    at.vector[1]++;
  }
  fm_store_sums(y, acc, kind.n_vectors, n_tokens, y_stride, n_rows, accumulate);
}

FM_INLINE void gemm(fm_scale_kind kind, int dot, const fm_layout *layout, const fm_strip *strip,
                    const void *tiles, float *y, size_t n_groups, size_t n_tokens, size_t y_stride,
                    size_t n_rows, bool accumulate) {
  const fm_act_tile_i8 *x = tiles;
  size_t n_steps =
      dot == FM_DOT_I16 && layout->n_add < layout->sub / 4 ? layout->n_add : layout->sub / 4;
  const shape s = {.sub = layout->sub,
                   .n_subs = FM_GROUP_COLS / layout->sub,
                   .n_steps = n_steps,
                   .n_parts = layout->sub / 4 / n_steps,
                   .bias = layout->wide ? fm_wide_bias(fm_wide_dot_of_engine) : layout->bias,
                   .has_min = layout->has_min};
  while (n_tokens > FM_TILE_TOKENS) {
    size_t n = n_tokens < 2 * FM_TILE_TOKENS ? n_tokens : 2 * FM_TILE_TOKENS;
    FM_NO_UNROLL
    for (size_t row = 0; row < n_rows; row += 4) {
      patch((gemm_kind){kind, dot, 2}, &s, strip, row, x, y + row, n_groups, n, y_stride,
            n_rows - row, accumulate);
    }
    n_tokens -= n;
    x += 2 * n_groups;
    y += n * y_stride;
  }
  if (n_tokens) {
    patch((gemm_kind){kind, dot, 1}, &s, strip, 0, x, y, n_groups, n_tokens, y_stride, n_rows,
          accumulate);
  }
}

#define GEMM_I8(name, kind, dot)                                                                   \
  void fm_gemm_i8_##name##__relaxed(const fm_layout *layout, const fm_strip *strip, const void *x, \
                                    float *y, size_t n_blocks, size_t n_tokens, size_t y_stride,   \
                                    size_t n_rows, bool accumulate) {                              \
    gemm(kind, dot, layout, strip, x, y, n_blocks, n_tokens, y_stride, n_rows, accumulate);        \
  }
GEMM_I8(k_dot16, FM_SCALES_K, FM_DOT_I16)
GEMM_I8(k_dot32, FM_SCALES_K, FM_DOT_I32)
GEMM_I8(f32_dot16, FM_SCALES_F32, FM_DOT_I16)
GEMM_I8(f32_dot32, FM_SCALES_F32, FM_DOT_I32)
