/* The kernels of a layer's operations that are no products. y may be any of the inputs.
 *   layer_norm    one row: y[i] = (x[i] - mean) * factor * weight[i] + bias[i], factor by
 *                 fm_rms_factor of x - mean, sums in f64; weight, bias NULL: ones, zeros
 *   softmax       one row, n_values >= 1: y[i] = e^(x[i] - max) / sum, the sum in f64
 *   rotate        pair i, by the angle whose cosine and sine are given: x[i] and x[i + distance],
 *                 distance >= n_pairs; with distance 1 x[2i] and x[2i + 1]
 *   add           y[i] = a[i] + b[i]
 *   add_scaled    y[i] = a[i] + b[i] * factor, the product rounded before it is added
 *   to_f16        as fm_f32_to_f16 */
#ifndef FM_KERNELS_LAYER_H
#define FM_KERNELS_LAYER_H

#include <stddef.h>
#include <stdint.h>

typedef void fm_layer_norm_fn(const float *x, const float *weight, const float *bias, float *y,
                              size_t n_values, float eps);
typedef void fm_softmax_fn(const float *x, float *y, size_t n_values);
typedef void fm_rotate_fn(float *x, size_t distance, const float *cosine, const float *sine,
                          size_t n_pairs);
typedef void fm_add_fn(const float *a, const float *b, float *y, size_t n_values);
typedef void fm_add_scaled_fn(const float *a, const float *b, float factor, float *y,
                              size_t n_values);
typedef void fm_to_f16_fn(const float *x, uint16_t *y, size_t n_values);

fm_layer_norm_fn fm_layer_norm__scalar, fm_layer_norm__simd128;
fm_softmax_fn fm_softmax__scalar, fm_softmax__simd128;
fm_rotate_fn fm_rotate__scalar, fm_rotate__simd128;
fm_add_fn fm_add__scalar, fm_add__simd128;
fm_add_scaled_fn fm_add_scaled__scalar, fm_add_scaled__simd128;
fm_to_f16_fn fm_to_f16__scalar, fm_to_f16__simd128;

#endif
