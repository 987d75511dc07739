/* The kernels of the gated delta net. Sizes are multiples of 8, up to FM_DELTA_SIZE_MAX.
 *
 *   products  of a chunk of tokens: y[m][n] = factor * y[m][n] + sum over p < depth of
 *             a[m][p] * b[p][n], where is_new without the first term. a[m][p] is at
 *             a + m * a_row + p * a_col; rows of b and y are b_row and y_row floats apart.
 *             n_rows is a multiple of 4, n_cols of 8, depth any number up to FM_DELTA_SIZE_MAX.
 *             y overlaps neither a nor b.
 *
 *   step      one token of a head, whose state S [key_size][value_size] is read and written:
 *             S = decay * S;  r = beta * (v - S^T k);  S = S + k r^T;  out = S^T q
 */
#ifndef FM_KERNELS_DELTA_H
#define FM_KERNELS_DELTA_H

#include <stdbool.h>
#include <stddef.h>

#include "fused.h"

typedef struct {
  const float *a, *b;
  float *y;
  size_t a_row, a_col, b_row, y_row;
  size_t n_rows, depth, n_cols;
  float factor;
  bool is_new;
} fm_delta_product;

typedef struct {
  float *state;
  const float *q, *k, *v; /* [key_size], [key_size], [value_size] */
  float *out;             /* [value_size] */
  size_t key_size, value_size;
  float decay, beta;
} fm_delta_token;

typedef struct {
  void (*products)(const fm_delta_product *p);
  void (*step)(const fm_delta_token *t);
} fm_delta_kernels;

extern const fm_delta_kernels fm_delta__scalar, fm_delta__simd128, fm_delta__relaxed;

#endif
