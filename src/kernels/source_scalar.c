/* The kernels that make activations on the way into a product, scalar. Contracts: source.h. */
#include "fused.h"
#include "kernels/exp.h"
#include "kernels/source.h"

/* Four partial sums, like the lanes of the SIMD twin: both give the same bits. */
double fm_sum_squares__scalar(const float *x, size_t n_values) {
  double sum[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < n_values; i++) sum[i % 4] += (double)x[i] * (double)x[i];
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

void fm_scale__scalar(const float *x, const float *weight, float factor, float *y,
                      size_t n_values) {
  for (size_t i = 0; i < n_values; i++) y[i] = weight ? x[i] * factor * weight[i] : x[i] * factor;
}

void fm_gated__scalar(const float *gate, const float *up, float *y, size_t n_values, int32_t act) {
  for (size_t i = 0; i < n_values; i++) {
    float x = gate[i];
    if (act == FM_GATE_CLAMPED) {
      y[i] = up ? fm_clamped_silu(x) * fm_clamped_up(up[i]) : fm_clamped_silu(x);
      continue;
    }
    float value = act == FM_GATE_SIGMOID ? fm_sigmoid(x)
                  : act == FM_GATE_RELU  ? fm_relu(x)
                  : act == FM_GATE_GELU  ? fm_gelu(x)
                                         : fm_silu(x);
    y[i] = up ? value * up[i] : value;
  }
}
