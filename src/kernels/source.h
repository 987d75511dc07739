/* The kernels that make activations on the way into a product. They serve fm_rms_norm, fm_scale and
 * fm_gated as well, so that both ways give the same bits. y may be any of the inputs.
 *   sum_squares   sum of x[i]^2, in f64, where no square of an f32 overflows
 *   scale         y[i] = x[i] * factor * weight[i]; weight NULL: ones
 *   gated         y[i] = act(gate[i]) * up[i]; act: an fm_gate; up NULL: ones. FM_GATE_CLAMPED:
 *                 fm_clamped_up(up[i]) in place of up[i] */
#ifndef FM_KERNELS_SOURCE_H
#define FM_KERNELS_SOURCE_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>

typedef double fm_sum_squares_fn(const float *x, size_t n_values);
typedef void fm_scale_fn(const float *x, const float *weight, float factor, float *y,
                         size_t n_values);
typedef void fm_gated_fn(const float *gate, const float *up, float *y, size_t n_values,
                         int32_t act);

fm_sum_squares_fn fm_sum_squares__scalar, fm_sum_squares__simd128;
fm_scale_fn fm_scale__scalar, fm_scale__simd128;
fm_gated_fn fm_gated__scalar, fm_gated__simd128;

/* 1 / sqrt(mean of squares + eps), at most FLT_MAX: a row of zeros stays one with eps 0 too. */
static inline float fm_rms_factor(double sum_squares, size_t n_values, float eps) {
  double factor = 1.0 / __builtin_sqrt(sum_squares / (double)n_values + (double)eps);
  return factor > (double)FLT_MAX ? FLT_MAX : (float)factor;
}

#endif
