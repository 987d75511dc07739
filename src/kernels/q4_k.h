/* The 6-bit scales and mins of Q4_K and Q5_K, unpacked in two 64-bit integers instead of through
 * memory. */
#ifndef FM_KERNELS_Q4_K_H
#define FM_KERNELS_Q4_K_H

#include <stdint.h>
#include <string.h>

/* Byte j is the scale (min) of sub-block j, 0..63. */
typedef struct {
  uint64_t scales;
  uint64_t mins;
} fm_scales8;

static inline fm_scales8 fm_q4_k_scales(const uint8_t packed[12]) {
  uint32_t lo, mid, hi;
  memcpy(&lo, packed, 4);
  memcpy(&mid, packed + 4, 4);
  memcpy(&hi, packed + 8, 4);
  uint32_t scale_hi = (hi & 0x0f0f0f0fu) | (lo >> 2 & 0x30303030u);
  uint32_t min_hi = (hi >> 4 & 0x0f0f0f0fu) | (mid >> 2 & 0x30303030u);
  return (fm_scales8){(uint64_t)scale_hi << 32 | (lo & 0x3f3f3f3fu),
                      (uint64_t)min_hi << 32 | (mid & 0x3f3f3f3fu)};
}

#endif
