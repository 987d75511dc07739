/* The vector products of attention, for attention_simd128.c and attention_relaxed.c. Interfaces and
 * layouts: attention.h. f16 keys and values are converted in registers, once for all 4 rows where
 * these share a head.
 *
 * The including file defines FM_MADD(a, b, sum), a * b + sum: rounded twice or, in relaxed SIMD,
 * perhaps once. */
#ifndef FM_KERNELS_ATTENTION_PRODUCTS_H
#define FM_KERNELS_ATTENTION_PRODUCTS_H

#include "kernels/attention.h"
#include "kernels/v128.h"

typedef struct {
  v128_t lo, hi;
} eight;

/* 8 values in order. Each lane takes two copies of an f16, of which the mask removes the lower one.
 * Inf and NaN become 65536 and more; is_finite looks for them. */
FM_INLINE eight load8(const uint8_t *p, bool is_f16, const fm_f16_held *held) {
  v128_t v = wasm_v128_load(p);
  if (!is_f16) return (eight){v, wasm_v128_load(p + 16)};
  v128_t lo = wasm_i32x4_shr(wasm_i16x8_shuffle(v, v, 0, 0, 1, 1, 2, 2, 3, 3), 3);
  v128_t hi = wasm_i32x4_shr(wasm_i16x8_shuffle(v, v, 4, 4, 5, 5, 6, 6, 7, 7), 3);
  return (eight){wasm_f32x4_mul(wasm_v128_and(lo, held->sign_and_magnitude), held->scale),
                 wasm_f32x4_mul(wasm_v128_and(hi, held->sign_and_magnitude), held->scale)};
}

FM_INLINE size_t bytes_of_8(bool is_f16) { return is_f16 ? 16 : 32; }

/* {sum v[0], .. sum v[3]}, each in the order (0 + 2) + (1 + 3). */
FM_INLINE v128_t hsum4(const v128_t v[4]) {
  v128_t a = wasm_f32x4_add(wasm_i32x4_shuffle(v[0], v[1], 0, 4, 1, 5),
                            wasm_i32x4_shuffle(v[0], v[1], 2, 6, 3, 7));
  v128_t b = wasm_f32x4_add(wasm_i32x4_shuffle(v[2], v[3], 0, 4, 1, 5),
                            wasm_i32x4_shuffle(v[2], v[3], 2, 6, 3, 7));
  return wasm_f32x4_add(wasm_i64x2_shuffle(a, b, 0, 2), wasm_i64x2_shuffle(a, b, 1, 3));
}

FM_INLINE void add_product(v128_t *sum, v128_t a, v128_t b) { *sum = FM_MADD(a, b, *sum); }

/* Scores rows that share a head, two positions at once, so that each load of q serves both. */
FM_INLINE void score_shared(const fm_kv_slice *k, const float *q, size_t n_dims,
                            fm_slice_scores scores, bool is_f16) {
  fm_f16_held held = fm_hold_f16();
  const uint8_t *key = k->start + k->offset[0];
  FM_NO_UNROLL
  for (size_t j = 0; j < k->n_positions; j += 2, key += 2 * k->stride) {
    const uint8_t *a = key, *b = j + 1 < k->n_positions ? key + k->stride : key;
    const float *at = q, *end = q + FM_PACK_ROWS * n_dims;
    v128_t sum[8];
    FM_UNROLL
    for (size_t i = 0; i < 8; i++) sum[i] = fm_zero();
    FM_NO_UNROLL
    for (; at < end; at += 8 * FM_PACK_ROWS, a += bytes_of_8(is_f16), b += bytes_of_8(is_f16)) {
      eight first = load8(a, is_f16, &held), second = load8(b, is_f16, &held);
      FM_UNROLL
      for (size_t r = 0; r < FM_PACK_ROWS; r++) {
        v128_t query = wasm_v128_load(at + 4 * r);
        add_product(&sum[r], query, first.lo);
        add_product(&sum[4 + r], query, second.lo);
      }
      FM_UNROLL
      for (size_t r = 0; r < FM_PACK_ROWS; r++) {
        v128_t query = wasm_v128_load(at + 4 * FM_PACK_ROWS + 4 * r);
        add_product(&sum[r], query, first.hi);
        add_product(&sum[4 + r], query, second.hi);
      }
    }
    wasm_v128_store(scores[j], hsum4(sum));
    wasm_v128_store(scores[j + 1], hsum4(sum + 4));
  }
}

/* Mixes 8 columns at a time, with the sums of all 4 rows in registers. */
FM_INLINE void mix_slice(const fm_kv_slice *v, fm_slice_weights weights, const float *correction,
                         size_t n_dims, float *out, bool is_shared, bool is_f16) {
  fm_f16_held held = fm_hold_f16();
  size_t column = 0;
  FM_NO_UNROLL
  for (float *end = out + FM_PACK_ROWS * n_dims; out < end;
       out += 8 * FM_PACK_ROWS, column += bytes_of_8(is_f16)) {
    const uint8_t *value[FM_PACK_ROWS];
    const float *weight = weights[0][0], *weights_end = weights[v->n_positions - 1][0];
    v128_t sum[8];
    FM_UNROLL
    for (size_t r = 0; r < FM_PACK_ROWS; r++) {
      v128_t factor = wasm_v128_load32_splat(correction + r);
      sum[r] = wasm_f32x4_mul(wasm_v128_load(out + 4 * r), factor);
      sum[4 + r] = wasm_f32x4_mul(wasm_v128_load(out + 4 * FM_PACK_ROWS + 4 * r), factor);
      value[r] = v->start + v->offset[r] + column;
    }
    FM_NO_UNROLL
    for (; weight <= weights_end; weight += 4 * FM_PACK_ROWS) {
      eight one = load8(value[0], is_f16, &held);
      FM_UNROLL
      for (size_t r = 0; r < FM_PACK_ROWS; r++) {
        if (r > 0 && !is_shared) one = load8(value[r], is_f16, &held);
        v128_t factor = wasm_v128_load(weight + 4 * r);
        add_product(&sum[r], factor, one.lo);
        add_product(&sum[4 + r], factor, one.hi);
        value[r] += v->stride;
      }
    }
    FM_UNROLL
    for (size_t r = 0; r < 2 * FM_PACK_ROWS; r++) wasm_v128_store(out + 4 * r, sum[r]);
  }
}

/* The kernels for rows that share a head. */
static void score_rows_of_a_head(const fm_kv_slice *k, const float *q, size_t n_dims,
                                 fm_slice_scores scores) {
  if (k->is_f16) {
    score_shared(k, q, n_dims, scores, true);
  } else {
    score_shared(k, q, n_dims, scores, false);
  }
}

static void mix_rows_of_a_head(const fm_kv_slice *v, fm_slice_weights weights,
                               const float correction[FM_PACK_ROWS], size_t n_dims, float *out) {
  if (v->is_f16) {
    mix_slice(v, weights, correction, n_dims, out, true, true);
  } else {
    mix_slice(v, weights, correction, n_dims, out, true, false);
  }
}

#endif
