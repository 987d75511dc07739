/* The attention kernels: a pack, which is 4 query rows, one in each lane of a vector, against a
 * slice of the cache, which is some consecutive positions.
 *
 * The query rows and the results of a pack are f32, interleaved by 4 columns:
 *   [n_dims / 4][4 rows][4 columns],  n_dims = head_size rounded up to 8, with zeros behind
 * so that every load has a constant offset. Lanes without a query row hold zeros or any finite
 * numbers. */
#ifndef FM_KERNELS_ATTENTION_H
#define FM_KERNELS_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FM_PACK_ROWS 4
#define FM_SLICE_POSITIONS 32
#define FM_HEAD_SIZE_MAX 576

/* The keys or the values of a slice. Row r's head at position j starts start + offset[r] + j *
 * stride, in bytes. */
typedef struct {
  const uint8_t *start;
  size_t stride, offset[FM_PACK_ROWS];
  size_t n_positions; /* 1..FM_SLICE_POSITIONS */
  bool is_shared;     /* all offsets are equal */
  bool is_f16;        /* or f32; the scalar kernels know f32 only */
} fm_kv_slice;

/* The state of the online softmax: the largest score and the sum of the weights so far, and the
 * factor that the last slice applies to older results. */
typedef struct {
  _Alignas(16) float max[FM_PACK_ROWS], sum[FM_PACK_ROWS], correction[FM_PACK_ROWS];
  int32_t first[FM_PACK_ROWS],
      end[FM_PACK_ROWS]; /* the positions that a row sees: first .. end - 1 */
} fm_softmax_state;

typedef struct {
  float scale, softcap; /* 0: none */
} fm_logits;

/* Indexed by position and row. A weight has four copies; the scalar kernels use the first. */
typedef float fm_slice_scores[FM_SLICE_POSITIONS + 1][FM_PACK_ROWS];
typedef float fm_slice_weights[FM_SLICE_POSITIONS][FM_PACK_ROWS][4];

typedef struct {
  /* Whether all f16 of n_rows rows are finite: the kernels of is_f16 slices cannot represent Inf
   * and NaN.
   * row_bytes: a multiple of 16. NULL where the kernels take no f16. */
  bool (*is_finite)(const uint8_t *row, size_t row_bytes, size_t stride, size_t n_rows);
  /* scores[j][r] = sum_c q[r][c] * k[j][c]; may also write the entry behind the last position. */
  void (*score)(const fm_kv_slice *k, const float *q, size_t n_dims, fm_slice_scores scores);
  /* weights = e^(logit - max), for the scores of the positions from `position` on; updates the
   * state. masked: some row does not see all of them. */
  void (*weigh)(fm_logits logits, fm_slice_scores scores, size_t n_positions, size_t position,
                bool masked, fm_softmax_state *state, fm_slice_weights weights);
  /* out = out * correction + sum over positions of weight * v. */
  void (*mix)(const fm_kv_slice *v, fm_slice_weights weights, const float correction[FM_PACK_ROWS],
              size_t n_dims, float *out);
} fm_attention_kernels;

extern const fm_attention_kernels fm_attention__scalar, fm_attention__simd128,
    fm_attention__relaxed;

#endif
