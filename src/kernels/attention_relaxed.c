/* Attention, relaxed: products and sums are one instruction where the processor has it, for rows
 * that share a head; the rest is SIMD128. */
#include <wasm_simd128.h>

#define FM_MADD(a, b, sum) wasm_f32x4_relaxed_madd(a, b, sum)
#include "kernels/attention_products.h"

static bool is_finite(const uint8_t *row, size_t row_bytes, size_t stride, size_t n_rows) {
  return fm_attention__simd128.is_finite(row, row_bytes, stride, n_rows);
}

static void score(const fm_kv_slice *k, const float *q, size_t n_dims, fm_slice_scores scores) {
  if (k->is_shared) {
    score_rows_of_a_head(k, q, n_dims, scores);
  } else {
    fm_attention__simd128.score(k, q, n_dims, scores);
  }
}

static void weigh(fm_logits logits, fm_slice_scores scores, size_t n_positions, size_t position,
                  bool masked, fm_softmax_state *state, fm_slice_weights weights) {
  fm_attention__simd128.weigh(logits, scores, n_positions, position, masked, state, weights);
}

static void mix(const fm_kv_slice *v, fm_slice_weights weights,
                const float correction[FM_PACK_ROWS], size_t n_dims, float *out) {
  if (v->is_shared) {
    mix_rows_of_a_head(v, weights, correction, n_dims, out);
  } else {
    fm_attention__simd128.mix(v, weights, correction, n_dims, out);
  }
}

const fm_attention_kernels fm_attention__relaxed = {
    .is_finite = is_finite, .score = score, .weigh = weigh, .mix = mix};
