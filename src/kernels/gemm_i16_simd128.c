/* The matrix-matrix micro-kernel for int16 activations, SIMD128, for every weight type. Layouts are
 * in strip.h (strips) and activations.h (tiles).
 *
 *   y[t][r] += d[t] * (sum_sub scale[r] * (sum code * q) - sum_sub min[r] * (sum q))
 *
 * A 32-bit splat of a row's codes, 2 columns, is multiplied with a vector of the activations of 4
 * tokens:
 *   codes   c0   c1    c0   c1    c0   c1    c0   c1
 *   q       t0a0 t0a1  t1a0 t1a1  t2a0 t2a1  t3a0 t3a1
 * A lane sums the products of a sub-block, at most 32 * 128 * 32767 = 2^27. Patches and
 * loops are as in gemm_i8_relaxed.c. */
#include "kernels/activations.h"
#include "kernels/coded.h"
#include "kernels/v128.h"

#define N_SUMS 8
#define SCALE_STRIDE (FM_STRIP_COLS / 16)

/* Adds the products of a group to acc; sum i is row i / n_vectors, tokens of vector i %
 * n_vectors. */
FM_INLINE void add_group(size_t n_vectors, const fm_layout *layout, const fm_strip *strip,
                         size_t row, size_t group, const fm_act_tile_i16 *const x[2],
                         v128_t acc[N_SUMS]) {
  const size_t sub = layout->sub, n_subs = FM_ACT_COLS / sub;
  const int16_t *code = strip->code.i16[row] + FM_ACT_COLS * group;
  const float *scale = &strip->f32.scale[row][n_subs * group],
              *min = &strip->f32.min[row][n_subs * group];
  const int16_t *q = x[0]->q[0][0], *q2 = x[1]->q[0][0];
  v128_t total[N_SUMS];
  for (size_t i = 0; i < N_SUMS; i++) total[i] = fm_zero();
  FM_NO_UNROLL
  for (size_t s = 0; s < n_subs; s++, scale++) {
    v128_t sum[N_SUMS];
    for (size_t i = 0; i < N_SUMS; i++) sum[i] = fm_zero();
    FM_NO_UNROLL
    for (size_t c = 0; c < sub; c += 2, code += 2, q += 8, q2 += 8) {
      v128_t acts[2] = {wasm_v128_load(q), n_vectors == 2 ? wasm_v128_load(q2) : fm_zero()};
      FM_UNROLL
      for (size_t r = 0; r < N_SUMS / n_vectors; r++) {
        v128_t codes = wasm_v128_load32_splat(code + r * FM_STRIP_STRIDE);
        FM_UNROLL
        for (size_t v = 0; v < n_vectors; v++) {
          size_t i = r * n_vectors + v;
          sum[i] = wasm_i32x4_add(sum[i], wasm_i32x4_dot_i16x8(acts[v], codes));
        }
      }
    }
    FM_UNROLL
    for (size_t i = 0; i < N_SUMS; i++) {
      v128_t factor = wasm_v128_load32_splat(scale + i / n_vectors * SCALE_STRIDE);
      total[i] = wasm_f32x4_add(total[i], wasm_f32x4_mul(factor, wasm_f32x4_convert_i32x4(sum[i])));
    }
  }
  if (layout->has_min) {
    const float *sums[2];
    for (size_t v = 0; v < 2; v++) sums[v] = sub == 32 ? x[v]->sum32[0] : x[v]->sum16[0];
    FM_NO_UNROLL
    for (size_t s = 0; s < n_subs; s++, min++) {
      FM_UNROLL
      for (size_t i = 0; i < N_SUMS; i++) {
        v128_t mins = wasm_v128_load32_splat(min + i / n_vectors * SCALE_STRIDE);
        v128_t act_sum = wasm_v128_load(sums[i % n_vectors] + FM_TILE_TOKENS * s);
        total[i] = wasm_f32x4_sub(total[i], wasm_f32x4_mul(mins, act_sum));
      }
    }
  }
  FM_UNROLL
  for (size_t i = 0; i < N_SUMS; i++) {
    acc[i] = wasm_f32x4_add(acc[i], wasm_f32x4_mul(wasm_v128_load(x[i % n_vectors]->d), total[i]));
  }
}

/* A patch, 8 tokens x rows row .. row + 3 or 4 tokens x 8 rows, over all groups. y has n_tokens
 * tokens and n_rows rows of it. */
FM_INLINE void patch(size_t n_vectors, const fm_layout *layout, const fm_strip *strip, size_t row,
                     const fm_act_tile_i16 *x, float *y, size_t n_groups, size_t n_tokens,
                     size_t y_stride, size_t n_rows, bool accumulate) {
  v128_t acc[N_SUMS];
  for (size_t i = 0; i < N_SUMS; i++) acc[i] = fm_zero();
  FM_NO_UNROLL
  for (size_t group = 0; group < n_groups; group++) {
    const fm_act_tile_i16 *const at[2] = {x + group, x + n_groups + group};
    add_group(n_vectors, layout, strip, row, group, at, acc);
  }
  fm_store_sums(y, acc, n_vectors, n_tokens, y_stride, n_rows, accumulate);
}

void fm_gemm_i16__simd128(const fm_layout *layout, const fm_strip *strip, const void *tiles,
                          float *y, size_t n_blocks, size_t n_tokens, size_t y_stride,
                          size_t n_rows, bool accumulate) {
  const fm_act_tile_i16 *x = tiles;
  while (n_tokens > FM_TILE_TOKENS) {
    size_t n = n_tokens < 2 * FM_TILE_TOKENS ? n_tokens : 2 * FM_TILE_TOKENS;
    FM_NO_UNROLL
    for (size_t row = 0; row < n_rows; row += 4) {
      patch(2, layout, strip, row, x, y + row, n_blocks, n, y_stride, n_rows - row, accumulate);
    }
    n_tokens -= n;
    x += 2 * n_blocks;
    y += n * y_stride;
  }
  if (n_tokens) patch(1, layout, strip, 0, x, y, n_blocks, n_tokens, y_stride, n_rows, accumulate);
}
