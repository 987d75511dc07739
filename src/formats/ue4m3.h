/* ue4m3, an 8-bit float without a sign (4 bits of exponent, 3 of mantissa), halved: (1 + m / 8) *
 * 2^(e - 8), or m * 2^-10 where e is 0. 0x7f, which is NaN, counts as 0, as in ggml; bit 7 is
 * ignored otherwise. */
#ifndef FM_FORMATS_UE4M3_H
#define FM_FORMATS_UE4M3_H

#include <stdint.h>

#include "formats/f16.h"

static inline float fm_ue4m3_half_to_f32(uint8_t byte) {
  uint32_t bits = byte & 0x7fu;
  if (byte == 0x7f) return 0.0f;
  if (bits < 8) return (float)(int32_t)bits * 0x1p-10f;
  return fm_f32_from_bits((bits << 20) + (119u << 23));
}

#endif
