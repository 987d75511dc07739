/* MXFP4, scalar. Layout: formats/blocks.h.
 *
 *   value = 2^(e - 128) * table[code] */
#include "formats/blocks.h"
#include "formats/e8m0.h"
#include "formats/tables.h"
#include "kernels/coded.h"

void fm_decode_mxfp4__scalar(const void *block, fm_codes *out) {
  const fm_block_mxfp4 *b = block;
  fm_codes_set_scale(out, 0, 32, fm_e8m0_half_to_f32(b->e), 0.0f);
  for (int l = 0; l < 16; l++) {
    out->code[l] = fm_mxfp4_values[b->qs[l] & 15];
    out->code[16 + l] = fm_mxfp4_values[b->qs[l] >> 4];
  }
}
