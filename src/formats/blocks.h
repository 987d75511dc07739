/* The blocks of the weight types, as GGUF files hold them (little-endian, no padding).
 * Source of every layout: the GGUF specification and ggml's published block definitions.
 *
 * Bit drawings: most significant bit on the left; qs[i] names a byte. */
#ifndef FM_FORMATS_BLOCKS_H
#define FM_FORMATS_BLOCKS_H

#include <stdint.h>

#include <assert.h>

typedef uint16_t fm_f16; /* IEEE 754 binary16 bits */

/* Q4_K: super-block of 256 values, 8 sub-blocks of 32, 4.5 bits a weight.
 *   value = d * scale[sub] * code - dmin * min[sub],  code 0..15, scale and min 0..63
 *
 * scales[12] holds eight 6-bit scales and eight 6-bit mins:
 *   scales[j]    j < 4:  [ scale[j+4] bits 5..4 | scale[j] bits 5..0 ]
 *   scales[j+4]  j < 4:  [ min[j+4]   bits 5..4 | min[j]   bits 5..0 ]
 *   scales[j+8]  j < 4:  [ min[j+4]   bits 3..0 | scale[j+4] bits 3..0 ]
 * qs[128]: 4 groups of 32 bytes, a group is 64 values:
 *   qs[32*g + l] = [ code of value 64*g + 32 + l | code of value 64*g + l ],  l = 0..31 */
typedef struct {
  fm_f16 d;
  fm_f16 dmin;
  uint8_t scales[12];
  uint8_t qs[128];
} fm_block_q4_k;
static_assert(sizeof(fm_block_q4_k) == 144, "Q4_K block");

#endif
