/* Wide codes: codes that take all 8 bits, one more than the second operand of the relaxed dot
 * product promises to hold.
 *
 * The standard lets an engine choose, once for all, what i32x4.relaxed_dot_i8x16_i7x16_add makes of
 * a second operand over 127. Where that is exact, wide codes take one instruction too (Arm: sdot,
 * signed; x86 with AVX-VNNI: vpdpbusd, unsigned). Where int16 saturates on the way, int16
 * activations serve the types with such codes, more slowly: splitting the codes would double the
 * products. */
#ifndef FM_KERNELS_WIDE_DOT_H
#define FM_KERNELS_WIDE_DOT_H

#include <stdint.h>

typedef enum {
  FM_WIDE_DOT_UNKNOWN,
  FM_WIDE_DOT_NONE, /* not exact */
  FM_WIDE_DOT_SIGNED,
  FM_WIDE_DOT_UNSIGNED
} fm_wide_dot;

/* Probes this engine. */
fm_wide_dot fm_probe_wide_dot__relaxed(void);

/* The answer for this engine, probed once, before the first product that depends on it
 * (fm_relaxed_is_exact). */
extern fm_wide_dot fm_wide_dot_of_engine;

/* The number added to int8 codes so that they are exact as the second operand; int8 sums take it
 * away again. */
static inline int32_t fm_wide_bias(fm_wide_dot dot) {
  return dot == FM_WIDE_DOT_UNSIGNED ? 128 : 0;
}

#endif
