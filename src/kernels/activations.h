/* Activations, quantised per 256 columns: what the integer kernels read.
 *
 *   x[i] ~ d * q[i],  d = max|x| / 127 (int8) or / 32767 (int16) over the block,  |x[i] - d * q[i]| <= d / 2
 *
 * sum16, sum32: exact sums of q over 16 and 32 columns; with them offsets and minimums of the weights leave the inner loop:
 *   sum (s * code - m) * x = d * (s * sum code * q - m * sum q)
 * A block that holds NaN or Inf gets d = NaN and q = 0: the token's outputs are then NaN, all others are as ever.
 *
 * Sizes are multiples of 64 bytes, so that no 16-byte load of q crosses a cache line. */
#ifndef FM_KERNELS_ACTIVATIONS_H
#define FM_KERNELS_ACTIVATIONS_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define FM_ACT_COLS 256 /* columns that share one activation scale */

typedef struct {
  _Alignas(64) int8_t q[FM_ACT_COLS];
  int16_t sum32[8];  /* at most 32 * 127 */
  int16_t sum16[16]; /* at most 16 * 127 */
  float d;
} fm_act_i8;
static_assert(sizeof(fm_act_i8) == 320, "5 cache lines");

typedef struct {
  _Alignas(64) int16_t q[FM_ACT_COLS];
  float sum32[8];  /* at most 32 * 32767 < 2^24: exact in f32 */
  float sum16[16]; /* at most 16 * 32767 */
  float d;
} fm_act_i16;
static_assert(sizeof(fm_act_i16) == 640, "10 cache lines");

/* out[0 .. ceil(n_cols / 256)) = x[0 .. n_cols) quantised; missing columns of the last block become zeros. */
typedef void fm_quantize_i8_fn(const float *x, fm_act_i8 *out, size_t n_cols);
typedef void fm_quantize_i16_fn(const float *x, fm_act_i16 *out, size_t n_cols);

fm_quantize_i8_fn fm_quantize_i8__scalar, fm_quantize_i8__simd128;
fm_quantize_i16_fn fm_quantize_i16__scalar, fm_quantize_i16__simd128;

#endif
