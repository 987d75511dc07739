/* Q6_K, scalar. Layout: formats/blocks.h.
 *
 *   value = (d * scales[sub]) * (code - 32),  16 sub-blocks of 16 */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q6_k__scalar(const void *block, fm_codes *out) {
  const fm_block_q6_k *b = block;
  float d = fm_f16_to_f32(b->d);
  for (int sub = 0; sub < 16; sub++) {
    out->scale[sub] = d * (float)b->scales[sub];
    out->min[sub] = 0.0f;
  }
  for (int i = 0; i < 256; i++) {
    int half = i / 128, k = i / 32 % 4, l = i % 32;
    int low = b->ql[64 * half + 32 * (k % 2) + l] >> 4 * (k / 2) & 15;
    int high = b->qh[32 * half + l] >> 2 * k & 3;
    out->code[i] = (int8_t)((low | high << 4) - 32);
  }
}
