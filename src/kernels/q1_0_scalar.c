/* Q1_0, scalar. Layout: formats/blocks.h.
 *
 *   value = d * (2 * bit - 1) */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q1_0__scalar(const void *block, fm_codes *out) {
  const fm_block_q1_0 *b = block;
  fm_codes_set_scale(out, 0, 128, fm_f16_to_f32(b->d), 0.0f);
  for (int i = 0; i < 128; i++) out->code[i] = (int8_t)(2 * (b->qs[i / 8] >> i % 8 & 1) - 1);
}
