/* TQ2_0, scalar. Layout: formats/blocks.h.
 *
 *   value = d * (code - 1) */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_tq2_0__scalar(const void *block, fm_codes *out) {
  const fm_block_tq2_0 *b = block;
  fm_codes_set_scale(out, 0, 256, fm_f16_to_f32(b->d), 0.0f);
  for (int i = 0; i < 256; i++) {
    out->code[i] = (int8_t)((b->qs[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3) - 1);
  }
}
