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

/* Four tokens side by side, as the matrix-matrix kernels read them: a vector holds 4 (int16: 2) columns of each token, and a
 * vector of sums one sub-block of each. The same numbers as above. */
#define FM_TILE_TOKENS 4

typedef struct {
  _Alignas(64) int8_t q[FM_ACT_COLS / 4][FM_TILE_TOKENS][4];
  int16_t pair16[8][FM_TILE_TOKENS][2], pair32[4][FM_TILE_TOKENS][2]; /* sums of sub-blocks 2p and 2p + 1 */
  int32_t sum16[16][FM_TILE_TOKENS], sum32[8][FM_TILE_TOKENS];
  float d[FM_TILE_TOKENS];
} fm_act_tile_i8;
static_assert(sizeof(fm_act_tile_i8) == 1664, "26 cache lines");

typedef struct {
  _Alignas(64) int16_t q[FM_ACT_COLS / 2][FM_TILE_TOKENS][2];
  float sum16[16][FM_TILE_TOKENS], sum32[8][FM_TILE_TOKENS];
  float d[FM_TILE_TOKENS];
} fm_act_tile_i16;
static_assert(sizeof(fm_act_tile_i16) == 2496, "39 cache lines");

/* out[0 .. n_blocks) = n_tokens (1..4) tokens, token t at x + t * n_blocks; past the last one it stands again. */
typedef void fm_pack_i8_fn(const fm_act_i8 *x, size_t n_tokens, size_t n_blocks, fm_act_tile_i8 *out);
typedef void fm_pack_i16_fn(const fm_act_i16 *x, size_t n_tokens, size_t n_blocks, fm_act_tile_i16 *out);

fm_pack_i8_fn fm_pack_i8__simd128;
fm_pack_i16_fn fm_pack_i16__simd128;

/* Deals each 16 columns of x[0 .. n_blocks), in place: the 8 even ones, then the 8 odd ones. What the matrix-vector kernel of int16
 * reads: a mask and a shift widen 16 codes of a byte to these, one instruction less than in their own order. */
typedef void fm_deal_i16_fn(fm_act_i16 *x, size_t n_blocks);

fm_deal_i16_fn fm_deal_i16__simd128;

/* out[0 .. ceil(n_cols / 256)) = x[0 .. n_cols) quantised; missing columns of the last block become zeros. */
typedef void fm_quantize_i8_fn(const float *x, fm_act_i8 *out, size_t n_cols);
typedef void fm_quantize_i16_fn(const float *x, fm_act_i16 *out, size_t n_cols);

fm_quantize_i8_fn fm_quantize_i8__scalar, fm_quantize_i8__simd128;
fm_quantize_i16_fn fm_quantize_i16__scalar, fm_quantize_i16__simd128;

#endif
