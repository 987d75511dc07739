/* The strip: a few weight rows decoded once into the nearest cache, which all tokens of a
 * matrix-matrix product then reuse.
 *
 * It holds codes, never weights: the inner kernel multiplies integers, and scales the sums. Codes
 * stay row by row, as they come out of the blocks; activations are interleaved instead
 * (fm_act_tile_i8), once for all rows. Rows are an odd number of cache lines apart, so that the
 * same columns of all rows do not share a cache set.
 *
 * value = scale * code - min, sub-block s of block b at entry b * 256 / sub + s.
 *   int16 activations   code int16, signed: the bias is gone; scales and mins f32
 *   int8, K types       code 0..127 (wide codes: plus fm_wide_bias); d * scale and dmin * min with
 *                       integer scale and min. scale: int32 for dot32; for dot16 the int16 value
 *                       twice, so that i32x4.dot_i16x8 applies it to both numbers of a pair
 *   int8, f32 scales    code as above; scales and mins f32
 * Where a type has a bias instead of mins, min holds bias * scale for dot16 of K types; the other
 * int8 kernels subtract bias * (sum q) from the sums. */
#ifndef FM_KERNELS_STRIP_H
#define FM_KERNELS_STRIP_H

#include <stdint.h>

#define FM_STRIP_ROWS 8
#define FM_STRIP_COLS 2048 /* 16 KB of int8 codes + 26 KB of int8 activations for 8 tokens */
#define FM_STRIP_STRIDE (FM_STRIP_COLS + 64)

typedef struct {
  union {
    _Alignas(128) uint8_t i8[FM_STRIP_ROWS][FM_STRIP_STRIDE];
    int16_t i16[FM_STRIP_ROWS][FM_STRIP_STRIDE];
  } code;
  union {
    struct {
      float scale[FM_STRIP_ROWS][FM_STRIP_COLS / 16];
      float min[FM_STRIP_ROWS][FM_STRIP_COLS / 16];
    } f32;
    struct {
      int32_t scale[FM_STRIP_ROWS][FM_STRIP_COLS / 16];
      int16_t min[FM_STRIP_ROWS][FM_STRIP_COLS / 16];
      float d[FM_STRIP_ROWS][FM_STRIP_COLS / 256];
      float dmin[FM_STRIP_ROWS][FM_STRIP_COLS / 256];
    } k;
  };
} fm_strip;

/* The places of a row's integer scales. */
typedef struct {
  int32_t *scale;
  int16_t *min;
  float *d, *dmin;
} fm_strip_k_row;

#endif
