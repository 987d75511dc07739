/* Probes this engine's i32 relaxed dot product with a second operand over 127; see wide_dot.h. */
#include <stdbool.h>

#include "kernels/v128.h"
#include "kernels/wide_dot.h"

/* One lane, four products of q (first operand) and code (second). Operands are loaded from memory,
 * so that no compiler folds them. */
static int32_t dot_of(int32_t q, int32_t code) {
  v128_t sum = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(fm_hold_i8((int8_t)q),
                                                      fm_hold_i8((int8_t)code), fm_zero());
  return wasm_i32x4_extract_lane(sum, 3);
}

/* The probes are the largest sums of either sign, where int16 would saturate, and the change of
 * sign. */
fm_wide_dot fm_probe_wide_dot__relaxed(void) {
  const int32_t q[] = {127, -127, 127, -127, 1};
  const int32_t code[] = {255, 255, 128, 128, 200};
  bool is_unsigned = true, is_signed = true;
  for (size_t i = 0; i < sizeof q / sizeof q[0]; i++) {
    int32_t got = dot_of(q[i], code[i]);
    is_unsigned = is_unsigned && got == 4 * q[i] * code[i];
    is_signed = is_signed && got == 4 * q[i] * (code[i] - 256);
  }
  return is_unsigned ? FM_WIDE_DOT_UNSIGNED : is_signed ? FM_WIDE_DOT_SIGNED : FM_WIDE_DOT_NONE;
}
