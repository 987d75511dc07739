/* e8m0, a power of two in a byte, halved: 2^(e - 128). Exact for every e; the lowest two are
 * subnormal. */
#ifndef FM_FORMATS_E8M0_H
#define FM_FORMATS_E8M0_H

#include <stdint.h>

#include "formats/f16.h"

static inline float fm_e8m0_half_to_f32(uint8_t e) {
  return fm_f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

#endif
