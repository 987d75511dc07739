/* IQ2_S, scalar. Layout: formats/blocks.h.
 *
 *   value = (d / 8 * (2 * scale[sub] + 1)) * code,  16 sub-blocks of 16 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/grid.h"

void fm_decode_iq2_s__scalar(const void *block, fm_codes *out) {
  const fm_block_iq2_s *b = block;
  float d = fm_f16_to_f32(b->d) * 0.125f;
  for (int sub = 0; sub < 16; sub++) {
    int scale = b->scales[sub / 2] >> 4 * (sub % 2) & 15;
    fm_codes_set_scale(out, 16 * sub, 16, d * (float)(2 * scale + 1), 0.0f);
  }
  for (int k = 0; k < 32; k++) {
    int entry = b->qs[k] | (b->qh[k / 4] >> 2 * (k % 4) & 3) << 8;
    fm_grid_codes__scalar(fm_iq2_s_grid[entry], 8, fm_iq2_values, b->signs[k], out->code + 8 * k);
  }
}
