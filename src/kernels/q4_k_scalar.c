/* Q4_K, scalar: the readable reference. Layout: formats/blocks.h.
 *
 *   value = (d * scale[sub]) * code - dmin * min[sub],  8 sub-blocks of 32 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"
#include "kernels/q4_k.h"

void fm_decode_q4_k__scalar(const void *block, fm_codes *out) {
  const fm_block_q4_k *b = block;
  float d = fm_f16_to_f32(b->d), dmin = fm_f16_to_f32(b->dmin);
  fm_scales8 s = fm_q4_k_scales(b->scales);
  for (int sub = 0; sub < 8; sub++) {
    const uint8_t *qs = b->qs + 32 * (sub / 2);
    int shift = 4 * (sub % 2);
    fm_codes_set_scale(out, 32 * sub, 32, d * (float)(s.scales >> 8 * sub & 63),
                       dmin * (float)(s.mins >> 8 * sub & 63));
    for (int l = 0; l < 32; l++) out->code[32 * sub + l] = (int8_t)(qs[l] >> shift & 15);
  }
}
