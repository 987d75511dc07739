/* TQ1_0, scalar. Layout: formats/blocks.h.
 *
 *   value = d * (digit - 1) */
#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/coded.h"

/* The product with 3^n, mod 256, drops the digits before n; times 3, the integer part is digit
 * n. */
static void decode_digits(const uint8_t *bytes, int n_bytes, int n_digits, int8_t *code) {
  uint32_t power = 1;
  for (int n = 0; n < n_digits; n++, power *= 3) {
    for (int l = 0; l < n_bytes; l++)
      *code++ = (int8_t)((int)((bytes[l] * power & 255) * 3 >> 8) - 1);
  }
}

void fm_decode_tq1_0__scalar(const void *block, fm_codes *out) {
  const fm_block_tq1_0 *b = block;
  fm_codes_set_scale(out, 0, 256, fm_f16_to_f32(b->d), 0.0f);
  decode_digits(b->qs, 32, 5, out->code);
  decode_digits(b->qs + 32, 16, 5, out->code + 160);
  decode_digits(b->qh, 4, 4, out->code + 240);
}
