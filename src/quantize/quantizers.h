/* f32 values -> GGUF blocks: what a quantiser looks like, and the table of them. ops/quantize.c owns the loop. */
#ifndef FM_QUANTIZE_QUANTIZERS_H
#define FM_QUANTIZE_QUANTIZERS_H

#include <math.h>
#include <stdint.h>

/* Quantises one block. x: block_values numbers, each 0 or of a magnitude from FM_QUANTIZE_TINY to the type's limit, so
 * that no scale overflows and no quotient of two differences does. */
typedef void fm_quantize_block_fn(const float *x, void *block);

/* Smaller magnitudes count as 0: 2^15 times below the smallest scale that f16 holds, they change no code. */
#define FM_QUANTIZE_TINY 0x1p-40f

typedef struct {
  int32_t type; /* fm_type */
  float limit;  /* the largest magnitude whose block has finite scales */
  fm_quantize_block_fn *block;
} fm_quantizer;

/* The row of a type, or NULL where it cannot be quantised to. */
const fm_quantizer *fm_quantizer_of(int32_t type);

/* The first value of the largest magnitude, with its sign.
 * The magnitude is kept apart: clang 19 compiles `fabsf(x[i]) > fabsf(extreme)` wrongly once the loop is unrolled (the
 * fabsf of the first value is lost). */
static inline float fm_extreme_of(const float *x, int n_values) {
  float extreme = 0.0f, most = 0.0f;
  for (int i = 0; i < n_values; i++) {
    float magnitude = fabsf(x[i]);
    if (magnitude > most) most = magnitude, extreme = x[i];
  }
  return extreme;
}

fm_quantize_block_fn fm_quantize_q4_0, fm_quantize_q4_1, fm_quantize_q5_0, fm_quantize_q5_1, fm_quantize_q8_0;
fm_quantize_block_fn fm_quantize_q4_k, fm_quantize_q5_k, fm_quantize_q6_k;

#endif
