/* Q8_K, scalar. Layout: formats/blocks.h.
 *
 *   value = d * code */
#include <string.h>

#include "formats/blocks.h"
#include "kernels/coded.h"

void fm_decode_q8_k__scalar(const void *block, fm_codes *out) {
  const fm_block_q8_k *b = block;
  fm_codes_set_scale(out, 0, 256, b->d, 0.0f);
  memcpy(out->code, b->qs, sizeof b->qs);
}
