/* Attention, scalar: the reference for the SIMD kernels. Interfaces: attention.h. */
#include <math.h>

#include "kernels/attention.h"
#include "kernels/exp.h"

static const float *row_at(const fm_kv_slice *slice, size_t r, size_t j) {
  return (const float *)(const void *)(slice->start + slice->offset[r] + j * slice->stride);
}

static void score(const fm_kv_slice *k, const float *q, size_t n_dims, fm_slice_scores scores) {
  for (size_t j = 0; j < k->n_positions; j++) {
    for (size_t r = 0; r < FM_PACK_ROWS; r++) {
      const float *key = row_at(k, r, j);
      float sum[4] = {0, 0, 0, 0};
      for (size_t c = 0; c < n_dims; c += 4) {
        for (size_t i = 0; i < 4; i++) sum[i] += q[(c + r) * 4 + i] * key[c + i];
      }
      scores[j][r] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    }
  }
}

/* A NaN is never the maximum, but makes its weight NaN, and so the sum. Where every score is -Inf
 * the maximum counts as 0, which makes all weights 0. */
static void weigh(fm_logits logits, fm_slice_scores scores, size_t n_positions, size_t position,
                  bool masked, fm_softmax_state *state, fm_slice_weights weights) {
  for (size_t r = 0; r < FM_PACK_ROWS; r++) {
    float max = state->max[r], sum = 0.0f;
    for (size_t j = 0; j < n_positions; j++) {
      float logit = scores[j][r] * logits.scale;
      if (logits.softcap > 0.0f) logit = logits.softcap * fm_tanhf(logit / logits.softcap);
      int32_t at = (int32_t)(position + j);
      if (masked && (at < state->first[r] || at >= state->end[r])) logit = -INFINITY;
      scores[j][r] = logit;
      max = max < logit ? logit : max;
    }
    float base = max == -INFINITY ? 0.0f : max;
    for (size_t j = 0; j < n_positions; j++) {
      float weight = fm_expf(scores[j][r] - base);
      weights[j][r][0] = weight;
      sum += weight;
    }
    state->correction[r] = fm_expf(state->max[r] - base);
    state->sum[r] = state->sum[r] * state->correction[r] + sum;
    state->max[r] = max;
  }
}

static void mix(const fm_kv_slice *v, fm_slice_weights weights,
                const float correction[FM_PACK_ROWS], size_t n_dims, float *out) {
  for (size_t r = 0; r < FM_PACK_ROWS; r++) {
    for (size_t c = 0; c < n_dims; c += 4) {
      float *o = out + (c + r) * 4;
      float sum[4];
      for (size_t i = 0; i < 4; i++) sum[i] = o[i] * correction[r];
      for (size_t j = 0; j < v->n_positions; j++) {
        const float *value = row_at(v, r, j) + c;
        for (size_t i = 0; i < 4; i++) sum[i] += weights[j][r][0] * value[i];
      }
      for (size_t i = 0; i < 4; i++) o[i] = sum[i];
    }
  }
}

const fm_attention_kernels fm_attention__scalar = {
    .is_finite = NULL, .score = score, .weigh = weigh, .mix = mix};
