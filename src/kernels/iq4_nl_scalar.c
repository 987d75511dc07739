/* IQ4_NL, scalar. Layout: formats/blocks.h.
 *
 *   value = d * table[code] */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "formats/tables.h"
#include "kernels/coded.h"

void fm_decode_iq4_nl__scalar(const void *block, fm_codes *out) {
  const fm_block_iq4_nl *b = block;
  fm_codes_set_scale(out, 0, 32, fm_f16_to_f32(b->d), 0.0f);
  for (int l = 0; l < 16; l++) {
    out->code[l] = fm_iq4_values[b->qs[l] & 15];
    out->code[16 + l] = fm_iq4_values[b->qs[l] >> 4];
  }
}
