/* Entries of codebooks as signed codes, for the scalar decoders. Packing: formats/codebooks.h. */
#ifndef FM_KERNELS_GRID_H
#define FM_KERNELS_GRID_H

#include "formats/codebooks.h"

/* code[j] = +-values[field j of the entry], j = 0 .. n - 1; bit j of signs: minus. */
void fm_grid_codes__scalar(uint32_t entry, int n, const uint8_t *values, uint32_t signs,
                           int8_t *code);

/* 8 codes of IQ1, eight times the values: 8 * ternary + 1, or - 1 where delta is negative. */
void fm_ternary_codes__scalar(uint32_t entry, int delta_is_negative, int8_t *code);

#endif
