/* The vector kernels of the gated delta net, for delta_simd128.c and delta_relaxed.c. Contracts:
 * delta.h.
 *
 * The including file defines FM_MADD(a, b, sum), a * b + sum: rounded twice or, in relaxed SIMD,
 * perhaps once. */
#ifndef FM_KERNELS_DELTA_VECTORS_H
#define FM_KERNELS_DELTA_VECTORS_H

#include "kernels/delta.h"
#include "kernels/v128.h"

#define PATCH_ROWS 4
#define PATCH_COLS 8
#define PACKED_ROWS 16 /* from so many rows on, copying the columns of b pays */

/* 4 rows x 8 columns of y, with the sums in registers; rows of b are b_row floats apart. */
FM_INLINE void patch(const fm_delta_product *p, const float *a, const float *b, size_t b_row,
                     float *y) {
  const float *row[PATCH_ROWS] = {a, a + p->a_row, a + 2 * p->a_row, a + 3 * p->a_row};
  size_t a_col = p->a_col;
  v128_t sum[2 * PATCH_ROWS];
  FM_UNROLL
  for (size_t i = 0; i < 2 * PATCH_ROWS; i++) sum[i] = fm_zero();
  FM_NO_UNROLL
  for (size_t d = p->depth; d > 0; d--, b += b_row) {
    v128_t lo = wasm_v128_load(b), hi = wasm_v128_load(b + 4);
    FM_UNROLL
    for (size_t r = 0; r < PATCH_ROWS; r++) {
      v128_t factor = wasm_v128_load32_splat(row[r]);
      sum[2 * r] = FM_MADD(factor, lo, sum[2 * r]);
      sum[2 * r + 1] = FM_MADD(factor, hi, sum[2 * r + 1]);
      row[r] += a_col;
    }
  }
  v128_t factor = wasm_f32x4_splat(p->factor);
  FM_UNROLL
  for (size_t r = 0; r < PATCH_ROWS; r++, y += p->y_row) {
    if (!p->is_new) {
      sum[2 * r] = FM_MADD(factor, wasm_v128_load(y), sum[2 * r]);
      sum[2 * r + 1] = FM_MADD(factor, wasm_v128_load(y + 4), sum[2 * r + 1]);
    }
    wasm_v128_store(y, sum[2 * r]);
    wasm_v128_store(y + 4, sum[2 * r + 1]);
  }
}

/* Rows of b are often a power of two apart and would evict each other from L1: where many rows of y
 * read them, 8 columns are copied side by side. */
static void products(const fm_delta_product *p) {
  _Alignas(16) float packed[FM_DELTA_SIZE_MAX * PATCH_COLS];
  FM_NO_UNROLL
  for (size_t n = 0; n < p->n_cols; n += PATCH_COLS) {
    const float *b = p->b + n;
    size_t b_row = p->b_row;
    if (p->n_rows >= PACKED_ROWS) {
      FM_NO_UNROLL
      for (size_t d = 0; d < p->depth; d++) {
        wasm_v128_store(packed + PATCH_COLS * d, wasm_v128_load(b + d * b_row));
        wasm_v128_store(packed + PATCH_COLS * d + 4, wasm_v128_load(b + d * b_row + 4));
      }
      b = packed;
      b_row = PATCH_COLS;
    }
    FM_NO_UNROLL
    for (size_t m = 0; m < p->n_rows; m += PATCH_ROWS)
      patch(p, p->a + m * p->a_row, b, b_row, p->y + m * p->y_row + n);
  }
}

/* n_vectors * 4 columns of the state, from `first` on: twice through its rows. */
FM_INLINE void step_columns(const fm_delta_token *t, size_t first, const size_t n_vectors) {
  size_t stride = t->value_size, n_rows = t->key_size;
  float *state = t->state + first;
  const float *row = state, *k = t->k, *q = t->q;
  v128_t even[4], odd[4], r[4], out[4];
  FM_UNROLL
  for (size_t i = 0; i < n_vectors; i++) even[i] = odd[i] = out[i] = fm_zero();
  FM_NO_UNROLL
  for (size_t n = n_rows; n > 0; n -= 2, row += 2 * stride, k += 2) {
    v128_t k0 = wasm_v128_load32_splat(k), k1 = wasm_v128_load32_splat(k + 1);
    FM_UNROLL
    for (size_t i = 0; i < n_vectors; i++) {
      even[i] = FM_MADD(k0, wasm_v128_load(row + 4 * i), even[i]);
      odd[i] = FM_MADD(k1, wasm_v128_load(row + stride + 4 * i), odd[i]);
    }
  }
  v128_t decay = wasm_f32x4_splat(t->decay), beta = wasm_f32x4_splat(t->beta);
  FM_UNROLL
  for (size_t i = 0; i < n_vectors; i++) {
    v128_t seen = wasm_f32x4_mul(decay, wasm_f32x4_add(even[i], odd[i]));
    r[i] = wasm_f32x4_mul(beta, wasm_f32x4_sub(wasm_v128_load(t->v + first + 4 * i), seen));
  }
  k = t->k;
  FM_NO_UNROLL
  for (size_t n = n_rows; n > 0; n--, state += stride, k++, q++) {
    v128_t key = wasm_v128_load32_splat(k), query = wasm_v128_load32_splat(q);
    FM_UNROLL
    for (size_t i = 0; i < n_vectors; i++) {
      v128_t kept = wasm_f32x4_mul(decay, wasm_v128_load(state + 4 * i));
      v128_t value = FM_MADD(key, r[i], kept);
      wasm_v128_store(state + 4 * i, value);
      out[i] = FM_MADD(query, value, out[i]);
    }
  }
  FM_UNROLL
  for (size_t i = 0; i < n_vectors; i++) wasm_v128_store(t->out + first + 4 * i, out[i]);
}

static void step(const fm_delta_token *t) {
  size_t c = 0;
  FM_NO_UNROLL
  for (; c + 16 <= t->value_size; c += 16) step_columns(t, c, 4);
  if (c < t->value_size) step_columns(t, c, 2);
}

#endif
