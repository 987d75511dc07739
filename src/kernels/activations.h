/* Quantised activations, which the integer kernels read: blocks of 256 columns.
 *
 *   x[i] ~ d * q[i],  d = max|x| / 127 (int8) or / 32767 (int16),  |x[i] - d * q[i]| <= d / 2
 *
 * sum16, sum32: exact sums of q over 16 and 32 columns. They take offsets and minimums of the
 * weights out of the inner loop:
 *   sum (s * code - m) * x = d * (s * sum code * q - m * sum q)
 * A block that holds NaN or Inf gets d = NaN and q = 0: the token's outputs are then NaN, and no
 * others change.
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

/* A tile: four tokens side by side, as the matrix-matrix kernels read them. A vector holds 4
 * (int16: 2) columns of each token, and a vector of sums one sub-block of each. The numbers are
 * those of the four tokens' blocks. */
#define FM_TILE_TOKENS 4

typedef struct {
  _Alignas(64) int8_t q[FM_ACT_COLS / 4][FM_TILE_TOKENS][4];
  int16_t pair16[8][FM_TILE_TOKENS][2],
      pair32[4][FM_TILE_TOKENS][2]; /* sums of sub-blocks 2p and 2p + 1 */
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

/* The kernels below take fm_act_i8 or fm_act_i16 blocks (and tiles), as their names say.
 *
 * quantize    out[0 .. ceil(n_cols / 256)) = x[0 .. n_cols) quantised; missing columns of the last
 *             block become zeros
 * deal        reorders each 16 columns of x[0 .. n_blocks) in place: the 8 even ones, then the 8
 *             odd ones. The matrix-vector kernels of int16 read them so: a mask and a shift widen
 *             16 codes of a byte to these, one instruction less than in their own order
 * interleave  out[0 .. n_blocks) = the tiles of n_tokens (1..4) tokens, token t at x + t *
 *             n_blocks; missing tokens repeat the last one */
typedef void fm_quantize_fn(const float *x, void *out, size_t n_cols);
typedef void fm_deal_blocks_fn(void *x, size_t n_blocks);
typedef void fm_interleave_fn(const void *x, size_t n_tokens, size_t n_blocks, void *out);

typedef struct {
  size_t block_bytes, tile_bytes;
  fm_quantize_fn *quantize;
  fm_deal_blocks_fn *deal;      /* SIMD128, int16; NULL elsewhere */
  fm_interleave_fn *interleave; /* SIMD128 */
} fm_act_kernels;

fm_quantize_fn fm_quantize_i8__scalar, fm_quantize_i8__simd128, fm_quantize_i16__scalar,
    fm_quantize_i16__simd128;
fm_deal_blocks_fn fm_deal_i16__simd128;
fm_interleave_fn fm_interleave_i8__simd128, fm_interleave_i16__simd128;

#endif
