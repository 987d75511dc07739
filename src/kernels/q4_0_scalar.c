/* Q4_0, scalar. Layout: formats/blocks.h.
 *
 *   value = d * (code - 8) */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q4_0__scalar(const void *block, fm_codes *out) {
  const fm_block_q4_0 *b = block;
  fm_codes_set_scale(out, 0, 32, fm_f16_to_f32(b->d), 0.0f);
  for (int l = 0; l < 16; l++) {
    out->code[l] = (int8_t)((b->qs[l] & 15) - 8);
    out->code[16 + l] = (int8_t)((b->qs[l] >> 4) - 8);
  }
}
