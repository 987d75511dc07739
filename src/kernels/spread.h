/* Spreading of packed bits and fields over bytes, by interleaving vectors with each other: these
 * shuffles are one instruction everywhere. */
#ifndef FM_KERNELS_SPREAD_H
#define FM_KERNELS_SPREAD_H

#include "kernels/v128.h"

FM_INLINE v128_t fm_interleave_low8(v128_t a, v128_t b) {
  return wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
FM_INLINE v128_t fm_interleave_high8(v128_t a, v128_t b) {
  return wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
FM_INLINE v128_t fm_interleave_low16(v128_t a, v128_t b) {
  return wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}
FM_INLINE v128_t fm_interleave_high16(v128_t a, v128_t b) {
  return wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

/* Four vectors whose byte l is field k of a byte l become 64 bytes in the order of fields: the
 * fields 0..3 of byte 0, those of byte 1, .. */
FM_INLINE void fm_interleave_fields(v128_t field[4]) {
  v128_t low01 = fm_interleave_low8(field[0], field[1]),
         high01 = fm_interleave_high8(field[0], field[1]),
         low23 = fm_interleave_low8(field[2], field[3]),
         high23 = fm_interleave_high8(field[2], field[3]);
  field[0] = fm_interleave_low16(low01, low23);
  field[1] = fm_interleave_high16(low01, low23);
  field[2] = fm_interleave_low16(high01, high23);
  field[3] = fm_interleave_high16(high01, high23);
}

/* Four bytes, each repeated 8 times: two vectors. */
FM_INLINE void fm_bytes_by_8(uint32_t four_bytes, v128_t out[2]) {
  v128_t v = wasm_i32x4_splat((int32_t)four_bytes);
  v = fm_interleave_low8(v, v);
  v = fm_interleave_low16(v, v);
  out[0] = wasm_i32x4_shuffle(v, v, 0, 4, 1, 5);
  out[1] = wasm_i32x4_shuffle(v, v, 2, 6, 3, 7);
}

static const uint8_t fm_bits_of_bytes[16] = {1, 2, 4, 8, 16, 32, 64, 128,
                                             1, 2, 4, 8, 16, 32, 64, 128};

#endif
