#include "quantize/quantizers.h"

#include <stddef.h>

#include "fused.h"

#define F16_MAX 65504.0f

/* The limit of a type is the largest scale, F16_MAX, times the code that the largest magnitude of a
 * block becomes; where a minimum is stored, it is the largest minimum. */
static const fm_quantizer rows[] = {
    {FM_TYPE_Q4_0, F16_MAX * 8, fm_quantize_q4_0},
    {FM_TYPE_Q4_1, F16_MAX, fm_quantize_q4_1},
    {FM_TYPE_Q5_0, F16_MAX * 16, fm_quantize_q5_0},
    {FM_TYPE_Q5_1, F16_MAX, fm_quantize_q5_1},
    {FM_TYPE_Q8_0, F16_MAX * 127, fm_quantize_q8_0},
    {FM_TYPE_Q4_K, F16_MAX * 63, fm_quantize_q4_k},
    {FM_TYPE_Q5_K, F16_MAX * 63, fm_quantize_q5_k},
    {FM_TYPE_Q6_K, F16_MAX * 127 * 31, fm_quantize_q6_k},
};

const fm_quantizer *fm_quantizer_of(int32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].type == type) return &rows[i];
  }
  return NULL;
}
