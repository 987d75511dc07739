/* IQ4_XS, scalar. Layout: formats/blocks.h.
 *
 *   value = (d * (scale[sub] - 32)) * table[code],  8 sub-blocks of 32 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "formats/tables.h"
#include "kernels/coded.h"

void fm_decode_iq4_xs__scalar(const void *block, fm_codes *out) {
  const fm_block_iq4_xs *b = block;
  float d = fm_f16_to_f32(b->d);
  for (int sub = 0; sub < 8; sub++) {
    int low = b->scales_l[sub / 2] >> 4 * (sub % 2) & 15;
    int high = b->scales_h >> 2 * sub & 3;
    fm_codes_set_scale(out, 32 * sub, 32, d * (float)((low | high << 4) - 32), 0.0f);
    for (int l = 0; l < 16; l++) {
      out->code[32 * sub + l] = fm_iq4_values[b->qs[16 * sub + l] & 15];
      out->code[32 * sub + 16 + l] = fm_iq4_values[b->qs[16 * sub + l] >> 4];
    }
  }
}
