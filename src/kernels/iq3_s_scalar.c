/* IQ3_S, scalar. Layout: formats/blocks.h.
 *
 *   value = (d * (2 * scale[sub] + 1)) * code,  8 sub-blocks of 32 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/grid.h"

void fm_decode_iq3_s__scalar(const void *block, fm_codes *out) {
  const fm_block_iq3_s *b = block;
  float d = fm_f16_to_f32(b->d);
  for (int sub = 0; sub < 8; sub++) {
    int scale = b->scales[sub / 2] >> 4 * (sub % 2) & 15;
    fm_codes_set_scale(out, 32 * sub, 32, d * (float)(2 * scale + 1), 0.0f);
  }
  for (int k = 0; k < 64; k++) {
    int entry = b->qs[k] | (b->qh[k / 8] >> k % 8 & 1) << 8;
    fm_grid_codes__scalar(fm_iq3_s_grid[entry], 4, fm_iq3_s_values,
                          (uint32_t)b->signs[k / 2] >> 4 * (k % 2), out->code + 4 * k);
  }
}
