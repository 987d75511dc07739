/* The codebooks of the IQ1, IQ2 and IQ3 types: an index of a block names an entry, which holds the
 * magnitudes of several values. Source: ggml's published tables.
 *
 * IQ1, IQ2  8 values of 2 bits an entry: value j in bits 2j + 1, 2j. IQ1: code - 1, that is -1, 0
 *           or 1; IQ2: fm_iq2_values[code].
 * IQ3       4 values of 4 bits an entry: value j in bits 4j + 3 .. 4j, of which the highest is 0.
 *           fm_iq3_xxs_values[code] or fm_iq3_s_values[code].
 *
 * A module stores each codebook as a set, one bit for every possible entry: 4.3 KB together. The
 * arrays below, in the order of the indices, take 9.2 KB; they are filled before the first
 * operation with such a type. */
#ifndef FM_FORMATS_CODEBOOKS_H
#define FM_FORMATS_CODEBOOKS_H

#include <stdint.h>

extern uint16_t fm_iq2_xxs_grid[256];
extern uint16_t fm_iq2_xs_grid[512];
extern uint16_t fm_iq2_s_grid[1024];
extern uint16_t fm_iq3_xxs_grid[256];
extern uint16_t fm_iq3_s_grid[512];
extern uint16_t fm_iq1_s_grid[2048];

/* Fills the codebooks, once. Only the thread that owns the memory may call it, ahead of a fork. */
void fm_expand_codebooks(void);

static const uint8_t fm_iq2_values[3] = {8, 25, 43};
static const uint8_t fm_iq3_xxs_values[8] = {4, 12, 20, 28, 36, 44, 52, 62};
static const uint8_t fm_iq3_s_values[8] = {1, 3, 5, 7, 9, 11, 13, 15};

/* Eight signs of IQ2_XXS, IQ2_XS and IQ3_XXS from the seven that a block stores: the last one makes
 * the number of minus signs even. Bit j: value j is negative. */
static inline uint8_t fm_even_signs(uint32_t seven) {
  uint32_t parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return (uint8_t)(seven | (parity & 1) << 7);
}

#endif
