/* Facts of the weight types, made from FM_TYPES (fused.h) and the blocks. A test compares the table
 * in JavaScript with this one. */
#ifndef FM_FORMATS_TRAITS_H
#define FM_FORMATS_TRAITS_H

#include <stdint.h>

typedef struct {
  int32_t type;          /* fm_type */
  uint16_t block_values; /* values a block holds */
  uint16_t block_bytes;  /* bytes a block takes */
  uint16_t alignment;    /* bytes a pointer to it must be a multiple of */
} fm_traits;

/* The row of a type, or NULL. */
const fm_traits *fm_traits_of(int32_t type);

#endif
