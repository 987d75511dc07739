/* Q2_0, scalar. Layout: formats/blocks.h.
 *
 *   value = d * (code - 1) */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q2_0__scalar(const void *block, fm_codes *out) {
  const fm_block_q2_0 *b = block;
  fm_codes_set_scale(out, 0, 64, fm_f16_to_f32(b->d), 0.0f);
  for (int i = 0; i < 64; i++) out->code[i] = (int8_t)((b->qs[i / 4] >> 2 * (i % 4) & 3) - 1);
}
