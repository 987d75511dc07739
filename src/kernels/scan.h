/* The kernels of the selective scan, for one head. h [n_state][head_size]: its state.
 *   step  a token: h[n][p] = h[n][p] * decay + b[n] * (x[p] * dt),
 *         y[p] = sum_n c[n] * h[n][p] + d * x[p]
 *   mix   y[i][p] += sum_k a[i][k] * x[k][p], the terms added to y in the order of k; a has any
 *         strides, the rows of x and y have n_cols values next to each other */
#ifndef FM_KERNELS_SCAN_H
#define FM_KERNELS_SCAN_H

#include <stddef.h>

/* The factors of a token. */
typedef struct {
  float dt, decay, d;
} fm_scan_factors;

/* A matrix whose element (i, k) is at[i * row + k * col], strides in elements. */
typedef struct {
  const float *at;
  size_t row, col;
} fm_strided;

typedef struct {
  void (*step)(const float *x, const float *b, const float *c, fm_scan_factors factors, float *h,
               float *y, size_t n_state, size_t head_size);
  void (*mix)(fm_strided a, const float *x, size_t x_stride, float *y, size_t y_stride,
              size_t n_rows, size_t n_k, size_t n_cols);
} fm_scan_kernels;

extern const fm_scan_kernels fm_scan__scalar, fm_scan__simd128;

#endif
