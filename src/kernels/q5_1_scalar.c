/* Q5_1, scalar. Layout: formats/blocks.h.
 *
 *   value = d * code - (-m),  which is d * code + m, signed zeros included */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q5_1__scalar(const void *block, fm_codes *out) {
  const fm_block_q5_1 *b = block;
  fm_codes_set_scale(out, 0, 32, fm_f16_to_f32(b->d), -fm_f16_to_f32(b->m));
  for (int i = 0; i < 32; i++) {
    int low = b->qs[i % 16] >> (i < 16 ? 0 : 4) & 15;
    int high = b->qh[i / 8] >> i % 8 & 1;
    out->code[i] = (int8_t)(low | high << 4);
  }
}
