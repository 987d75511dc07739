/* IQ2_XS, scalar. Layout: formats/blocks.h.
 *
 *   value = (d / 8 * (2 * scale[sub] + 1)) * code,  16 sub-blocks of 16 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/grid.h"

void fm_decode_iq2_xs__scalar(const void *block, fm_codes *out) {
  const fm_block_iq2_xs *b = block;
  float d = fm_f16_to_f32(b->d) * 0.125f;
  for (int sub = 0; sub < 16; sub++) {
    int scale = b->scales[sub / 2] >> 4 * (sub % 2) & 15;
    fm_codes_set_scale(out, 16 * sub, 16, d * (float)(2 * scale + 1), 0.0f);
  }
  for (int k = 0; k < 32; k++) {
    fm_grid_codes__scalar(fm_iq2_xs_grid[b->qs[k] & 511], 8, fm_iq2_values,
                          fm_even_signs((uint32_t)b->qs[k] >> 9), out->code + 8 * k);
  }
}
