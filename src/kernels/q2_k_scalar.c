/* Q2_K, scalar. Layout: formats/blocks.h.
 *
 *   value = (d * scale[sub]) * code - dmin * min[sub],  16 sub-blocks of 16 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q2_k__scalar(const void *block, fm_codes *out) {
  const fm_block_q2_k *b = block;
  float d = fm_f16_to_f32(b->d), dmin = fm_f16_to_f32(b->dmin);
  for (int sub = 0; sub < 16; sub++) {
    out->scale[sub] = d * (float)(b->scales[sub] & 15);
    out->min[sub] = dmin * (float)(b->scales[sub] >> 4);
  }
  for (int i = 0; i < 256; i++) {
    out->code[i] = (int8_t)(b->qs[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3);
  }
}
