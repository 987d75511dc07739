/* The groups of a row: padding of the last one, and prefetching. */
#ifndef FM_KERNELS_GROUP_H
#define FM_KERNELS_GROUP_H

#include <string.h>

#include "kernels/coded.h"
#include "kernels/v128.h"

/* 8 blocks of 34 bytes (Q8_0) are 272, the super-block of Q8_K is 292. */
#define FM_MAX_GROUP_BYTES 320

/* The group at w or, where fewer than 256 columns are left, a copy whose missing blocks are zero.
 * Their activations are zeros too, and a zero block's scale is finite, so they add nothing. */
FM_INLINE const uint8_t *fm_group(const fm_layout *layout, const uint8_t *w, size_t n_cols_left,
                                  uint8_t padded[FM_MAX_GROUP_BYTES]) {
  if (layout->block_values == 256 || n_cols_left >= 256) return w;
  memset(padded, 0, layout->group_bytes);
  memcpy(padded, w,
         layout->group_bytes / (256 / layout->block_values) * (n_cols_left / layout->block_values));
  return padded;
}

/* A part of a row: its whole groups, or one that is padded. */
typedef struct {
  const uint8_t *group;
  size_t first, n;
} fm_row_part;

FM_INLINE fm_row_part fm_part_of(const fm_layout *layout, const uint8_t *row, size_t first,
                                 size_t n_values, uint8_t padded[FM_MAX_GROUP_BYTES]) {
  size_t n_whole = n_values / 256;
  const uint8_t *group = row + first * layout->group_bytes;
  if (first < n_whole) return (fm_row_part){group, first, n_whole - first};
  return (fm_row_part){fm_group(layout, group, n_values % 256, padded), first, 1};
}

/* Loads a byte of each cache line of the group FM_AHEAD_BYTES later, which nothing waits for: the
 * lines are under way before the decoder needs them. end: the end of the weights. */
#define FM_AHEAD_BYTES 512
FM_INLINE void fm_ask_ahead(const fm_layout *layout, const uint8_t *group, const uint8_t *end) {
  if ((size_t)(end - group) < FM_AHEAD_BYTES + layout->group_bytes) return;
  const volatile uint8_t *ahead = group + FM_AHEAD_BYTES;
  FM_UNROLL
  for (size_t i = 0; i < layout->group_bytes; i += FM_CACHE_LINE_BYTES) (void)ahead[i];
}

#endif
