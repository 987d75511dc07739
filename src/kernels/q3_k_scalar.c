/* Q3_K, scalar. Layout: formats/blocks.h.
 *
 *   value = (d * (scale[sub] - 32)) * (code - 4),  16 sub-blocks of 16 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q3_k__scalar(const void *block, fm_codes *out) {
  const fm_block_q3_k *b = block;
  float d = fm_f16_to_f32(b->d);
  for (int sub = 0; sub < 16; sub++) {
    int low = b->scales[sub % 8] >> 4 * (sub / 8) & 15;
    int high = b->scales[8 + sub % 4] >> 2 * (sub / 4) & 3;
    out->scale[sub] = d * (float)((low | high << 4) - 32);
    out->min[sub] = 0.0f;
  }
  for (int i = 0; i < 256; i++) {
    int low = b->qs[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3;
    int high = b->hmask[i % 32] >> i / 32 & 1;
    out->code[i] = (int8_t)((low | high << 2) - 4);
  }
}
