/* Attention, SIMD128: each product is rounded before it is added. Interfaces: attention.h. */
#include <wasm_simd128.h>

#define FM_MADD(a, b, sum) wasm_f32x4_add(sum, wasm_f32x4_mul(a, b))
#include "kernels/attention_products.h"
#include "kernels/exp.h"

/* Rows are read in order and nothing waits for them, so this also brings a slice from memory as
 * fast as possible. */
static bool is_finite(const uint8_t *row, size_t row_bytes, size_t stride, size_t n_rows) {
  v128_t largest[4] = {fm_zero(), fm_zero(), fm_zero(), fm_zero()};
  FM_NO_UNROLL
  for (; n_rows > 0; n_rows--, row += stride) {
    const uint8_t *p = row, *end = row + row_bytes;
    FM_NO_UNROLL
    for (; p + 64 <= end; p += 64) {
      FM_UNROLL
      for (size_t i = 0; i < 4; i++) {
        v128_t v = wasm_v128_load(p + 16 * i);
        largest[i] = wasm_u16x8_max(largest[i], wasm_i16x8_add(v, v));
      }
    }
    FM_NO_UNROLL
    for (; p < end; p += 16) {
      v128_t v = wasm_v128_load(p);
      largest[0] = wasm_u16x8_max(largest[0], wasm_i16x8_add(v, v));
    }
  }
  v128_t all = wasm_u16x8_max(wasm_u16x8_max(largest[0], largest[1]),
                              wasm_u16x8_max(largest[2], largest[3]));
  return !wasm_v128_any_true(wasm_u16x8_ge(all, wasm_i16x8_const_splat((int16_t)0xf800)));
}

FM_INLINE void score_apart(const fm_kv_slice *k, const float *q, size_t n_dims,
                           fm_slice_scores scores, bool is_f16) {
  fm_f16_held held = fm_hold_f16();
  FM_NO_UNROLL
  for (size_t j = 0; j < k->n_positions; j++) {
    const uint8_t *key[FM_PACK_ROWS];
    const float *at = q, *end = q + FM_PACK_ROWS * n_dims;
    v128_t sum[4];
    FM_UNROLL
    for (size_t r = 0; r < FM_PACK_ROWS; r++) {
      key[r] = k->start + k->offset[r] + j * k->stride;
      sum[r] = fm_zero();
    }
    FM_NO_UNROLL
    for (; at < end; at += 8 * FM_PACK_ROWS) {
      FM_UNROLL
      for (size_t r = 0; r < FM_PACK_ROWS; r++) {
        eight one = load8(key[r], is_f16, &held);
        add_product(&sum[r], wasm_v128_load(at + 4 * r), one.lo);
        add_product(&sum[r], wasm_v128_load(at + 4 * FM_PACK_ROWS + 4 * r), one.hi);
        key[r] += bytes_of_8(is_f16);
      }
    }
    wasm_v128_store(scores[j], hsum4(sum));
  }
}

static void score(const fm_kv_slice *k, const float *q, size_t n_dims, fm_slice_scores scores) {
  if (k->is_shared) {
    score_rows_of_a_head(k, q, n_dims, scores);
  } else if (k->is_f16) {
    score_apart(k, q, n_dims, scores, true);
  } else {
    score_apart(k, q, n_dims, scores, false);
  }
}

/* Turns scores into logits, in place; returns the maximum of them and of the older ones. */
FM_INLINE v128_t logits_of(fm_logits logits, fm_slice_scores scores, size_t n_positions,
                           size_t position, bool masked, const fm_softmax_state *state,
                           const fm_exp_held *held) {
  v128_t scale = wasm_f32x4_splat(logits.scale), softcap = wasm_f32x4_splat(logits.softcap);
  v128_t max = wasm_v128_load(state->max), lowest = fm_hold_i32(0xff800000u);
  v128_t at = wasm_i32x4_splat((int32_t)position), one = fm_hold_i32(1);
  v128_t first = wasm_v128_load(state->first), end = wasm_v128_load(state->end);
  FM_NO_UNROLL
  for (size_t j = 0; j < n_positions; j++) {
    v128_t logit = wasm_f32x4_mul(wasm_v128_load(scores[j]), scale);
    if (logits.softcap > 0.0f) {
      logit = wasm_f32x4_mul(softcap, fm_tanh_f32x4(wasm_f32x4_div(logit, softcap), held));
    }
    if (masked) {
      v128_t seen = wasm_v128_and(wasm_i32x4_ge(at, first), wasm_i32x4_lt(at, end));
      logit = wasm_v128_bitselect(logit, lowest, seen);
      at = wasm_i32x4_add(at, one);
    }
    wasm_v128_store(scores[j], logit);
    max = wasm_f32x4_pmax(max, logit);
  }
  return max;
}

static void weigh(fm_logits logits, fm_slice_scores scores, size_t n_positions, size_t position,
                  bool masked, fm_softmax_state *state, fm_slice_weights weights) {
  fm_exp_held held = fm_hold_exp();
  v128_t max = logits_of(logits, scores, n_positions, position, masked, state, &held);
  v128_t base =
      wasm_v128_andnot(max, wasm_f32x4_eq(max, wasm_i32x4_const_splat((int32_t)0xff800000)));
  v128_t sum = fm_zero();
  FM_NO_UNROLL
  for (size_t j = 0; j < n_positions; j++) {
    v128_t weight = fm_exp_f32x4(wasm_f32x4_sub(wasm_v128_load(scores[j]), base), &held);
    sum = wasm_f32x4_add(sum, weight);
    wasm_v128_store(weights[j][0], wasm_i32x4_shuffle(weight, weight, 0, 0, 0, 0));
    wasm_v128_store(weights[j][1], wasm_i32x4_shuffle(weight, weight, 1, 1, 1, 1));
    wasm_v128_store(weights[j][2], wasm_i32x4_shuffle(weight, weight, 2, 2, 2, 2));
    wasm_v128_store(weights[j][3], wasm_i32x4_shuffle(weight, weight, 3, 3, 3, 3));
  }
  v128_t correction = fm_exp_f32x4(wasm_f32x4_sub(wasm_v128_load(state->max), base), &held);
  wasm_v128_store(state->correction, correction);
  wasm_v128_store(state->sum,
                  wasm_f32x4_add(wasm_f32x4_mul(wasm_v128_load(state->sum), correction), sum));
  wasm_v128_store(state->max, max);
}

static void mix(const fm_kv_slice *v, fm_slice_weights weights,
                const float correction[FM_PACK_ROWS], size_t n_dims, float *out) {
  if (v->is_shared) {
    mix_rows_of_a_head(v, weights, correction, n_dims, out);
  } else if (v->is_f16) {
    mix_slice(v, weights, correction, n_dims, out, false, true);
  } else {
    mix_slice(v, weights, correction, n_dims, out, false, false);
  }
}

const fm_attention_kernels fm_attention__simd128 = {
    .is_finite = is_finite, .score = score, .weigh = weigh, .mix = mix};
