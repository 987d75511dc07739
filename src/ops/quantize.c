#include <math.h>

#include "formats/codes.h"
#include "ops/ops.h"
#include "quantize/quantizers.h"
#include "threads/threads.h"

/* A value as a quantiser accepts it: no NaN, nothing over its limit or below FM_QUANTIZE_TINY; see
 * fm_quantize_rows. */
static float representable(float x, float limit) {
  if (!(fabsf(x) >= FM_QUANTIZE_TINY)) return 0.0f;
  return x > limit ? limit : x < -limit ? -limit : x;
}

typedef struct {
  const fm_traits *traits;
  const fm_quantizer *quantizer;
  const float *x;
  uint8_t *w;
} quantize_job;

static void quantize_blocks(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const quantize_job *j = context;
  size_t block_values = j->traits->block_values;
  for (size_t b = begin; b < end; b++) {
    const float *x = j->x + b * block_values;
    float values[FM_MAX_BLOCK_VALUES];
    for (size_t i = 0; i < block_values; i++) values[i] = representable(x[i], j->quantizer->limit);
    j->quantizer->block(values, j->w + b * j->traits->block_bytes);
  }
}

void fm_op_quantize(int32_t type, const float *x, uint8_t *w, size_t n_values) {
  const fm_traits *traits = fm_traits_of(type);
  const fm_quantizer *quantizer = fm_quantizer_of(type);
  const quantize_job j = {traits, quantizer, x, w};
  bool searched = traits->block_values == FM_MAX_BLOCK_VALUES;
  fm_work work = traits->block_values * (fm_work)(searched ? FM_WORK_SEARCH : FM_WORK_EXP);
  fm_parallel(quantize_blocks, &j, n_values / traits->block_values, work);
}
