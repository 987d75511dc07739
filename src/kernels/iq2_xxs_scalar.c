/* IQ2_XXS, scalar. Layout: formats/blocks.h.
 *
 *   value = (d / 8 * (2 * scale[sub] + 1)) * code,  8 sub-blocks of 32 */
#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/grid.h"

void fm_decode_iq2_xxs__scalar(const void *block, fm_codes *out) {
  const fm_block_iq2_xxs *b = block;
  float d = fm_f16_to_f32(b->d) * 0.125f;
  for (int sub = 0; sub < 8; sub++) {
    uint32_t entries, rest;
    memcpy(&entries, b->qs + 4 * sub, 4);
    memcpy(&rest, b->qs + 4 * sub + 2, 4);
    fm_codes_set_scale(out, 32 * sub, 32, d * (float)(2 * (rest >> 28) + 1), 0.0f);
    for (int k = 0; k < 4; k++) {
      fm_grid_codes__scalar(fm_iq2_xxs_grid[entries >> 8 * k & 255], 8, fm_iq2_values,
                            fm_even_signs(rest >> 7 * k & 127), out->code + 32 * sub + 8 * k);
    }
  }
}
