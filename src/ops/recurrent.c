/* The operations of recurrent layers. What goes from token to token stays in one item, so the items
 * are channels. */
#include "fused.h"
#include "ops/ops.h"
#include "threads/threads.h"

typedef struct {
  const fm_shared_kernels *kernels;
  const fm_conv *conv;
  int32_t act;
} conv_job;

static void conv_channels(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const conv_job *j = context;
  const fm_conv *conv = j->conv;
  for (size_t i = begin; i < end; i++) {
    size_t first = i * FM_CONV_CHANNELS, n = conv->n_channels - first;
    if (n > FM_CONV_CHANNELS) n = FM_CONV_CHANNELS;
    j->kernels->conv(conv, first, n);
    if (j->act == FM_CONV_PLAIN) continue;
    for (size_t t = 0; t < conv->n_tokens; t++) {
      float *y = conv->y + t * conv->n_channels + first;
      j->kernels->gated(y, NULL, y, n, j->act);
    }
  }
}

void fm_op_causal_conv(const fm_conv *conv, int32_t act) {
  const conv_job j = {fm_shared_kernels_of(fm_current.isa), conv, act};
  fm_work each = (fm_work)conv->length * FM_WORK_COPY;
  if (act != FM_CONV_PLAIN) each += FM_WORK_EXP;
  fm_parallel(conv_channels, &j, (conv->n_channels + FM_CONV_CHANNELS - 1) / FM_CONV_CHANNELS,
              (fm_work)conv->n_tokens * FM_CONV_CHANNELS * each);
}
