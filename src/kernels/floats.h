/* The kernels of F32, F16 and BF16 weights, and the f32 product that serves every type once a row
 * is dequantised. */
#ifndef FM_KERNELS_FLOATS_H
#define FM_KERNELS_FLOATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* y[0 .. n_values) = values of the blocks from w on; n_values is a multiple of block_values. y
 * 4-byte aligned. */
typedef void fm_dequantize_fn(const void *w, float *y, size_t n_values);

/* The f32 product of one dequantised row with many tokens: y[t * y_stride] = (or +=) sum_c x[t *
 * x_stride + c] * w[c]. */
typedef void fm_dot_f32_fn(const float *w, const float *x, float *y, size_t n_cols, size_t n_tokens,
                           size_t x_stride, size_t y_stride, bool accumulate);

/* Deals one token's activations for fm_row_dot: of each 8 columns the even ones, then the odd ones,
 * scaled as the type's kernel wants them. Returns false, and no result, where a value is too large
 * or too small for that. */
typedef bool fm_deal_fn(const float *x, float *dealt, size_t n_cols);

/* One row of 16-bit floats with one token, converted in registers. Returns false, and no result,
 * where the row holds values that it cannot convert: the caller then dequantises. */
typedef bool fm_row_dot_fn(const void *w, const float *dealt, size_t n_cols, float *out);

fm_dequantize_fn fm_dequantize_f32__scalar, fm_dequantize_f16__scalar, fm_dequantize_bf16__scalar;
fm_dequantize_fn fm_dequantize_f16__simd128, fm_dequantize_bf16__simd128;
fm_dot_f32_fn fm_dot_f32__scalar, fm_dot_f32__simd128;
fm_deal_fn fm_deal_f16__simd128, fm_deal_bf16__simd128;
fm_row_dot_fn fm_row_dot_f16__simd128, fm_row_dot_bf16__simd128;

#endif
