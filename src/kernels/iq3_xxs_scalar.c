/* IQ3_XXS, scalar. Layout: formats/blocks.h.
 *
 *   value = (d / 4 * (2 * scale[sub] + 1)) * code,  8 sub-blocks of 32 */
#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/grid.h"

void fm_decode_iq3_xxs__scalar(const void *block, fm_codes *out) {
  const fm_block_iq3_xxs *b = block;
  float d = fm_f16_to_f32(b->d) * 0.25f;
  for (int sub = 0; sub < 8; sub++) {
    uint32_t rest;
    memcpy(&rest, b->scales_signs + 4 * sub, 4);
    fm_codes_set_scale(out, 32 * sub, 32, d * (float)(2 * (rest >> 28) + 1), 0.0f);
    for (int k = 0; k < 8; k++) {
      uint32_t signs = fm_even_signs(rest >> 7 * (k / 2) & 127);
      fm_grid_codes__scalar(fm_iq3_xxs_grid[b->qs[8 * sub + k]], 4, fm_iq3_xxs_values,
                            signs >> 4 * (k % 2), out->code + 32 * sub + 4 * k);
    }
  }
}
