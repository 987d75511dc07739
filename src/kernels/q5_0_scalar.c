/* Q5_0, scalar. Layout: formats/blocks.h.
 *
 *   value = d * (code - 16) */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q5_0__scalar(const void *block, fm_codes *out) {
  const fm_block_q5_0 *b = block;
  fm_codes_set_scale(out, 0, 32, fm_f16_to_f32(b->d), 0.0f);
  for (int i = 0; i < 32; i++) {
    int low = b->qs[i % 16] >> (i < 16 ? 0 : 4) & 15;
    int high = b->qh[i / 8] >> i % 8 & 1;
    out->code[i] = (int8_t)((low | high << 4) - 16);
  }
}
