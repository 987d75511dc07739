/* binary16 -> binary32, exact for every input, Inf and NaN included. */
#ifndef FM_FORMATS_F16_H
#define FM_FORMATS_F16_H

#include <stdint.h>
#include <string.h>

static inline float fm_f32_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t fm_f32_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* Exponent and mantissa move to their f32 places; the product with 2^112 corrects the bias and normalises
 * subnormals in one exact step. */
static inline float fm_f16_to_f32(uint16_t half) {
  uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13;
  uint32_t bits = fm_f32_to_bits(fm_f32_from_bits(magnitude) * 0x1p112f);
  if (magnitude >= 0x0f800000u) bits = magnitude | 0x7f800000u;
  return fm_f32_from_bits(bits | (uint32_t)(half & 0x8000u) << 16);
}

#endif
