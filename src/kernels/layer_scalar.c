/* The operations of a layer that are no products, scalar: norm, softmax, rotation, sums,
 * conversion. Contracts: layer.h. */
#include <math.h>

#include "formats/f16.h"
#include "kernels/exp.h"
#include "kernels/layer.h"
#include "kernels/source.h"

/* Sums have four parts, like the lanes of the SIMD twin: both give the same bits. */
static double sum_parts(const double part[4]) { return (part[0] + part[2]) + (part[1] + part[3]); }

void fm_layer_norm__scalar(const float *x, const float *weight, const float *bias, float *y,
                           size_t n_values, float eps) {
  double part[4] = {0, 0, 0, 0}, square[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < n_values; i++) part[i % 4] += (double)x[i];
  double mean = sum_parts(part) / (double)n_values;
  for (size_t i = 0; i < n_values; i++)
    square[i % 4] += ((double)x[i] - mean) * ((double)x[i] - mean);
  float factor = fm_rms_factor(sum_parts(square), n_values, eps);
  for (size_t i = 0; i < n_values; i++) {
    float value = (float)((double)x[i] - mean) * factor;
    if (weight) value *= weight[i];
    y[i] = bias ? value + bias[i] : value;
  }
}

/* Where the maximum is -Inf nothing is subtracted: e^-Inf is 0, and NaN stays NaN. */
void fm_softmax__scalar(const float *x, float *y, size_t n_values) {
  float max = x[0];
  double part[4] = {0, 0, 0, 0};
  for (size_t i = 1; i < n_values; i++) max = max < x[i] ? x[i] : max;
  if (max == -(float)INFINITY) max = 0.0f;
  for (size_t i = 0; i < n_values; i++) {
    y[i] = fm_expf(x[i] - max);
    part[i % 4] += (double)y[i];
  }
  double sum = sum_parts(part);
  float factor = sum == 0.0 ? 0.0f : (float)(1.0 / sum);
  fm_scale__scalar(y, NULL, factor, y, n_values);
}

void fm_rotate__scalar(float *x, size_t distance, const float *cosine, const float *sine,
                       size_t n_pairs) {
  size_t step = distance == 1 ? 2 : 1;
  for (size_t i = 0; i < n_pairs; i++, x += step) {
    float a = x[0], b = x[distance];
    x[0] = a * cosine[i] - b * sine[i];
    x[distance] = a * sine[i] + b * cosine[i];
  }
}

void fm_add__scalar(const float *a, const float *b, float *y, size_t n_values) {
  for (size_t i = 0; i < n_values; i++) y[i] = a[i] + b[i];
}

void fm_add_scaled__scalar(const float *a, const float *b, float factor, float *y,
                           size_t n_values) {
  for (size_t i = 0; i < n_values; i++) y[i] = a[i] + b[i] * factor;
}

void fm_to_f16__scalar(const float *x, uint16_t *y, size_t n_values) {
  for (size_t i = 0; i < n_values; i++) y[i] = fm_f32_to_f16(x[i]);
}
