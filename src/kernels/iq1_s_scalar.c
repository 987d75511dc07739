/* IQ1_S, scalar. Layout: formats/blocks.h.
 *
 *   value = (d / 8 * (2 * scale[sub] + 1)) * code,  code = 8 * ternary +- 1, 8 sub-blocks of 32 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/grid.h"

void fm_decode_iq1_s__scalar(const void *block, fm_codes *out) {
  const fm_block_iq1_s *b = block;
  float d = fm_f16_to_f32(b->d) * 0.125f;
  for (int sub = 0; sub < 8; sub++) {
    int qh = b->qh[sub];
    fm_codes_set_scale(out, 32 * sub, 32, d * (float)(2 * (qh >> 12 & 7) + 1), 0.0f);
    for (int k = 0; k < 4; k++) {
      int entry = b->qs[4 * sub + k] | (qh >> 3 * k & 7) << 8;
      fm_ternary_codes__scalar(fm_iq1_s_grid[entry], qh >> 15, out->code + 32 * sub + 8 * k);
    }
  }
}
