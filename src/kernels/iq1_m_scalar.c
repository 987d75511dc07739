/* IQ1_M, scalar. Layout: formats/blocks.h.
 *
 *   value = (d / 8 * (2 * scale[sub] + 1)) * code,  code = 8 * ternary +- 1, 16 sub-blocks of 16 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/grid.h"
#include "kernels/iq1_m.h"

void fm_decode_iq1_m__scalar(const void *block, fm_codes *out) {
  const fm_block_iq1_m *b = block;
  float d = fm_f16_to_f32(fm_iq1_m_d(b)) * 0.125f;
  for (int sub = 0; sub < 16; sub++) {
    const uint8_t *two = b->scales + 2 * (sub / 4);
    int scale = (two[0] | two[1] << 8) >> 3 * (sub % 4) & 7;
    fm_codes_set_scale(out, 16 * sub, 16, d * (float)(2 * scale + 1), 0.0f);
  }
  for (int k = 0; k < 32; k++) {
    int high = b->qh[k / 2] >> 4 * (k % 2);
    fm_ternary_codes__scalar(fm_iq1_s_grid[b->qs[k] | (high & 7) << 8], high & 8,
                             out->code + 8 * k);
  }
}
