/* Quantisers, f32 values -> GGUF blocks, and the table of them. ops/quantize.c owns the loop. */
#ifndef FM_QUANTIZE_QUANTIZERS_H
#define FM_QUANTIZE_QUANTIZERS_H

#include <math.h>
#include <stdint.h>

/* Quantises one block. x: block_values numbers, each 0 or of a magnitude from FM_QUANTIZE_TINY to
 * the type's limit, so that neither a scale nor a quotient of two differences overflows. */
typedef void fm_quantize_block_fn(const float *x, void *block);

/* Smaller magnitudes count as 0. They are less than 2^-15 of the smallest f16 scale, and change no
 * code. */
#define FM_QUANTIZE_TINY 0x1p-40f

typedef struct {
  int32_t type; /* fm_type */
  float limit;  /* the largest magnitude whose block has finite scales */
  fm_quantize_block_fn *block;
} fm_quantizer;

/* The row of a type, or NULL where it has no quantiser. */
const fm_quantizer *fm_quantizer_of(int32_t type);

/* The first value of the largest magnitude, with its sign.
 * The magnitude has a variable of its own because clang 19 miscompiles `fabsf(x[i]) >
 * fabsf(extreme)` once the loop is unrolled: it loses the fabsf of the first value. */
static inline float fm_extreme_of(const float *x, int n_values) {
  float extreme = 0.0f, most = 0.0f;
  for (int i = 0; i < n_values; i++) {
    float magnitude = fabsf(x[i]);
    if (magnitude > most) most = magnitude, extreme = x[i];
  }
  return extreme;
}

fm_quantize_block_fn fm_quantize_q4_0, fm_quantize_q4_1, fm_quantize_q5_0, fm_quantize_q5_1,
    fm_quantize_q8_0;
fm_quantize_block_fn fm_quantize_q4_k, fm_quantize_q5_k, fm_quantize_q6_k;

#endif
