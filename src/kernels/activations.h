/* Quantised activations, which the integer kernels read: blocks of 256 columns.
 *
 *   x[i] ~ d * q[i],  d = max|x| / 127 (int8) or / 32767 (int16),  |x[i] - d * q[i]| <= d / 2
 *
 * The maximum is that of the block. int8 has a second form, FM_ACT_INT8_BY_32, for weights in
 * blocks of fewer than 256 values: the maximum is that of 32 columns, and d is rounded to the 11
 * bits that the scales of Q8_0 blocks have. So is s = d * sum32, which is made before d is rounded.
 * llama.cpp rounds in these ways too. d[i] is for columns 32i .. 32i + 31 in both forms.
 *
 * sum16, sum32: exact sums of q over 16 and 32 columns. They take offsets and minimums of the
 * weights out of the inner loop:
 *   sum (s * code - m) * x = d * (s * sum code * q - m * sum q)
 * Columns that share a scale and hold NaN or Inf get d = NaN and q = 0: the token's outputs are
 * then NaN, and no others change.
 *
 * Sizes are multiples of 64 bytes, so that no 16-byte load of q crosses a cache line. */
#ifndef FM_KERNELS_ACTIVATIONS_H
#define FM_KERNELS_ACTIVATIONS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/f16.h"
#include "fused.h"

#define FM_ACT_COLS 256 /* columns of a block */
#define FM_ACT_SUB 32   /* columns that share an int8 scale in the form BY_32 */

/* The forms of activations: those of fm_activation, and the second one of FM_ACT_INT8. */
enum {
  FM_ACT_INT8_BY_32 = FM_ACT_INT8 + 1,
  FM_ACT_FORMS
};

typedef struct {
  _Alignas(64) int8_t q[FM_ACT_COLS];
  int16_t sum32[8];  /* at most 32 * 127 */
  int16_t sum16[16]; /* at most 16 * 127 */
  float d[8], s[8];
} fm_act_i8;
static_assert(sizeof(fm_act_i8) == 384, "6 cache lines");

typedef struct {
  _Alignas(64) int16_t q[FM_ACT_COLS];
  float sum32[8];  /* at most 32 * 32767 < 2^24: exact in f32 */
  float sum16[16]; /* at most 16 * 32767 */
  float d;
} fm_act_i16;
static_assert(sizeof(fm_act_i16) == 640, "10 cache lines");

/* Sets d and s of 32 columns, whose sum is there. */
static inline void fm_act_set_scale(fm_act_i8 *act, size_t sub, float d, bool by_32) {
  float s = d * (float)act->sum32[sub];
  act->d[sub] = by_32 ? fm_round_to_11_bits(d) : d;
  act->s[sub] = by_32 ? fm_round_to_11_bits(s) : s;
}

/* A tile: four tokens side by side, as the matrix-matrix kernels read them. A vector holds 4
 * (int16: 2) columns of each token, and a vector of sums one sub-block of each. The numbers are
 * those of the four tokens' blocks. */
#define FM_TILE_TOKENS 4

typedef struct {
  _Alignas(64) int8_t q[FM_ACT_COLS / 4][FM_TILE_TOKENS][4];
  int16_t pair16[8][FM_TILE_TOKENS][2],
      pair32[4][FM_TILE_TOKENS][2]; /* sums of sub-blocks 2p and 2p + 1 */
  int32_t sum16[16][FM_TILE_TOKENS], sum32[8][FM_TILE_TOKENS];
  float d[8][FM_TILE_TOKENS], s[8][FM_TILE_TOKENS];
} fm_act_tile_i8;
static_assert(sizeof(fm_act_tile_i8) == 1856, "29 cache lines");

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

fm_quantize_fn fm_quantize_i8__scalar, fm_quantize_i8_by_32__scalar, fm_quantize_i8__simd128,
    fm_quantize_i8_by_32__simd128, fm_quantize_i16__scalar, fm_quantize_i16__simd128;
fm_deal_blocks_fn fm_deal_i16__simd128;
fm_interleave_fn fm_interleave_i8__simd128, fm_interleave_i16__simd128;

#endif
