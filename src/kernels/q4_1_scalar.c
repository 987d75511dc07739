/* Q4_1, scalar. Layout: formats/blocks.h.
 *
 *   value = d * code - (-m),  which is d * code + m, signed zeros included */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q4_1__scalar(const void *block, fm_codes *out) {
  const fm_block_q4_1 *b = block;
  fm_codes_set_scale(out, 0, 32, fm_f16_to_f32(b->d), -fm_f16_to_f32(b->m));
  for (int l = 0; l < 16; l++) {
    out->code[l] = (int8_t)(b->qs[l] & 15);
    out->code[16 + l] = (int8_t)(b->qs[l] >> 4);
  }
}
