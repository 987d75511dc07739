/* The strip: a few weight rows decoded once into L1, which all tokens of a matrix-matrix product then reuse.
 *
 * It holds codes, never weights: the inner kernel multiplies integers, and scales the sums.
 * code, 32 bytes for 4 columns c..c+3 of the 8 rows:
 *   byte  0    1    2    3  |  4 ..  7 |  8 .. 11 | .. | 28 .. 31
 *         r0c0 r0c1 r0c2 r0c3  r1c0..3    r2c0..3   ..   r7c0..3
 *
 * Scales for int16 activations and for types with f32 scales (f32, 8 rows for each 16 columns):
 *   value = scale_f32[c/16] * code - min_f32[c/16],  code signed for int16; 0..127 for int8, where min holds bias * scale
 * Scales for int8 activations of K types (int16, each row's value twice, so that i32x4.dot_i16x8 applies it to both halves
 * of a pair sum):
 *   value = d[c/256] * scale_i16[c/16] * code - dmin[c/256] * min_i16,  code 0..127
 * where a type with a bias has min_i16 = bias * scale_i16 and d for dmin.
 * A type with sub-blocks of 32 fills every second entry only (c/32 * 2); its GEMM kernel reads just those. */
#ifndef FM_KERNELS_STRIP_H
#define FM_KERNELS_STRIP_H

#include <stdint.h>

#define FM_STRIP_ROWS 8
#define FM_PANEL_COLS 2048 /* 16 KB of codes + 10 KB of int8 activations for 4 tokens: together within a 32 KB L1 */

typedef struct {
  _Alignas(128) uint8_t code[FM_PANEL_COLS / 4][FM_STRIP_ROWS][4];
  union {
    struct {
      float scale[FM_PANEL_COLS / 16][FM_STRIP_ROWS];
      float min[FM_PANEL_COLS / 16][FM_STRIP_ROWS];
    } f32;
    struct {
      int16_t scale[FM_PANEL_COLS / 16][FM_STRIP_ROWS][2];
      int16_t min[FM_PANEL_COLS / 32][FM_STRIP_ROWS][2]; /* of sub-blocks 2p and 2p + 1 of block b: entry 8b + p */
      float d[FM_PANEL_COLS / 256][FM_STRIP_ROWS];
      float dmin[FM_PANEL_COLS / 256][FM_STRIP_ROWS];
    } i16;
  };
} fm_strip;

#endif
