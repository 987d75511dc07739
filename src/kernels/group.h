/* The last group of a row whose length is no multiple of 256. */
#ifndef FM_KERNELS_GROUP_H
#define FM_KERNELS_GROUP_H

#include <string.h>

#include "kernels/kernels.h"
#include "kernels/v128.h"

#define FM_MAX_GROUP_BYTES 320 /* 8 blocks of 34 bytes (Q8_0) are 272, Q8_K's super-block is 292 */

/* The group at w; where fewer than 256 columns are left, a copy whose missing blocks are zero. Their activations are
 * zeros too, and a zero block's scale is finite, so they add nothing. */
FM_INLINE const uint8_t *fm_group(const fm_layout *layout, const uint8_t *w, size_t n_cols_left,
                                  uint8_t padded[FM_MAX_GROUP_BYTES]) {
  if (layout->block_values == 256 || n_cols_left >= 256) return w;
  memset(padded, 0, layout->group_bytes);
  memcpy(padded, w, layout->group_bytes / 8 * (n_cols_left / 32));
  return padded;
}

#endif
