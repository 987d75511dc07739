/* The f16 scale of an IQ1_M block, whose four nibbles are spread over its scales. */
#ifndef FM_KERNELS_IQ1_M_H
#define FM_KERNELS_IQ1_M_H

#include "formats/blocks.h"

static inline uint16_t fm_iq1_m_d(const fm_block_iq1_m *b) {
  const uint8_t *s = b->scales;
  return (uint16_t)(s[1] >> 4 | (s[3] & 0xf0) | (s[5] & 0xf0) << 4 | (s[7] & 0xf0) << 8);
}

#endif
