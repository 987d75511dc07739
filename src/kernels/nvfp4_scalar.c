/* NVFP4, scalar. Layout: formats/blocks.h.
 *
 *   value = (d[sub] / 2) * table[code],  4 sub-blocks of 16 */
#include "formats/blocks.h"
#include "formats/tables.h"
#include "formats/ue4m3.h"
#include "kernels/coded.h"

void fm_decode_nvfp4__scalar(const void *block, fm_codes *out) {
  const fm_block_nvfp4 *b = block;
  for (int sub = 0; sub < 4; sub++) {
    fm_codes_set_scale(out, 16 * sub, 16, fm_ue4m3_half_to_f32(b->d[sub]), 0.0f);
    for (int l = 0; l < 8; l++) {
      out->code[16 * sub + l] = fm_mxfp4_values[b->qs[8 * sub + l] & 15];
      out->code[16 * sub + 8 + l] = fm_mxfp4_values[b->qs[8 * sub + l] >> 4];
    }
  }
}
