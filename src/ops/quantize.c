#include <math.h>

#include "formats/codes.h"
#include "ops/ops.h"

/* What a quantiser gets: no NaN, nothing over its limit, nothing below FM_QUANTIZE_TINY; see fm_quantize_rows. */
static float representable(float x, float limit) {
  if (!(fabsf(x) >= FM_QUANTIZE_TINY)) return 0.0f;
  return x > limit ? limit : x < -limit ? -limit : x;
}

void fm_op_quantize(const fm_traits *traits, const fm_quantizer *quantizer, const float *x, uint8_t *w,
                    size_t n_values) {
  for (size_t c = 0; c < n_values; c += traits->block_values, w += traits->block_bytes) {
    float values[FM_MAX_BLOCK_VALUES];
    for (size_t i = 0; i < traits->block_values; i++) values[i] = representable(x[c + i], quantizer->limit);
    quantizer->block(values, w);
  }
}
