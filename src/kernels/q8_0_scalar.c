/* Q8_0, scalar. Layout: formats/blocks.h.
 *
 *   value = d * code */
#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

void fm_decode_q8_0__scalar(const void *block, fm_codes *out) {
  const fm_block_q8_0 *b = block;
  fm_codes_set_scale(out, 0, 32, fm_f16_to_f32(b->d), 0.0f);
  memcpy(out->code, b->qs, sizeof b->qs);
}
