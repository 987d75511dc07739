/* binary16 <-> binary32. To f32: exact for every input, Inf and NaN included. To f16: round to
 * nearest, ties to even. */
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

/* Exponent and mantissa move to their f32 places, and 112 is added to the exponent. A subnormal is
 * converted as an integer times 2^-24, so that no subnormal f32 is ever an operand: processors take
 * some 100 cycles for those, and the scales of Q4_K and Q6_K files are often subnormal. */
static inline float fm_f16_to_f32(uint16_t f16) {
  uint32_t magnitude = (uint32_t)(f16 & 0x7fffu) << 13;
  uint32_t bits = magnitude + 0x38000000u;
  if (magnitude < 0x00800000u) bits = fm_f32_to_bits((float)(int32_t)(f16 & 0x03ffu) * 0x1p-24f);
  if (magnitude >= 0x0f800000u) bits = magnitude | 0x7f800000u;
  return fm_f32_from_bits(bits | (uint32_t)(f16 & 0x8000u) << 16);
}

/* Rounds to nearest, ties to even. From 65520 on the result is Inf; a NaN becomes the quiet NaN
 * 0x7e00; both keep the sign. Below 2^-14, f16 values are multiples of 2^-24, and so are f32 values
 * just above 0.5: adding 0.5f rounds to them. */
static inline uint16_t fm_f32_to_f16(float value) {
  uint32_t bits = fm_f32_to_bits(value);
  uint32_t sign = bits >> 16 & 0x8000u;
  uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t f16;
  if (magnitude > 0x7f800000u) {
    f16 = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {
    f16 = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    f16 = fm_f32_to_bits(fm_f32_from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    f16 = (magnitude + 0xfffu + (magnitude >> 13 & 1) - 0x38000000u) >> 13;
  }
  return (uint16_t)(sign | f16);
}

/* Rounds to 11 significant bits, those of binary16, ties to even, whatever the exponent is.
 * Subnormals of binary32, Inf and NaN stay as they are. */
static inline float fm_round_to_11_bits(float value) {
  uint32_t bits = fm_f32_to_bits(value), exponent = bits & 0x7f800000u;
  if (exponent == 0 || exponent == 0x7f800000u) return value;
  return fm_f32_from_bits((bits + 0x0fffu + (bits >> 13 & 1u)) & 0xffffe000u);
}

#endif
