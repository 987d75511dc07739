/* Causal convolutions, scalar. Contract: conv.h. */
#include "fused.h"
#include "kernels/conv.h"

void fm_conv__scalar(const fm_conv *conv, size_t first, size_t n_values) {
  size_t n_past = conv->length - 1, stride = conv->n_channels;
  for (size_t c = first; c < first + n_values; c++) {
    const float *weight = conv->weight + c * conv->length;
    float past[FM_CONV_LONGEST - 1]; /* a ring; the oldest token comes first */
    size_t oldest = 0;
    for (size_t j = 0; j < n_past; j++) past[j] = conv->state[j * stride + c];
    for (size_t t = 0; t < conv->n_tokens; t++) {
      float x = conv->x[t * stride + c], sum = conv->bias ? conv->bias[c] : 0.0f;
      for (size_t j = 0, at = oldest; j < n_past; j++) {
        sum += weight[j] * past[at];
        at = at + 1 == n_past ? 0 : at + 1;
      }
      conv->y[t * stride + c] = sum + weight[n_past] * x;
      past[oldest] = x;
      oldest = oldest + 1 == n_past ? 0 : oldest + 1;
    }
    for (size_t j = 0; j < n_past; j++) {
      conv->state[j * stride + c] = past[oldest];
      oldest = oldest + 1 == n_past ? 0 : oldest + 1;
    }
  }
}
