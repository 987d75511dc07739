/* The selective scan, scalar: the reference for the SIMD kernels. Contracts: scan.h. */
#include "kernels/scan.h"

static void step(const float *x, const float *b, const float *c, fm_scan_factors factors, float *h,
                 float *y, size_t n_state, size_t head_size) {
  for (size_t p = 0; p < head_size; p++) {
    float scaled = x[p] * factors.dt, sum = 0.0f;
    for (size_t n = 0; n < n_state; n++) {
      float *at = h + n * head_size + p;
      *at = *at * factors.decay + b[n] * scaled;
      sum += c[n] * *at;
    }
    y[p] = sum + factors.d * x[p];
  }
}

static void mix(fm_strided a, const float *x, size_t x_stride, float *y, size_t y_stride,
                size_t n_rows, size_t n_k, size_t n_cols) {
  for (size_t i = 0; i < n_rows; i++) {
    for (size_t k = 0; k < n_k; k++) {
      float factor = a.at[i * a.row + k * a.col];
      for (size_t p = 0; p < n_cols; p++) y[i * y_stride + p] += factor * x[k * x_stride + p];
    }
  }
}

const fm_scan_kernels fm_scan__scalar = {.step = step, .mix = mix};
