/* Causal convolutions, four channels in a vector. The scalar twin gives the same bits, and takes
 * the channels that are left over. Contract: conv.h. */
#include "fused.h"
#include "kernels/conv.h"
#include "kernels/v128.h"

#define VECTORS (FM_CONV_CHANNELS / 4)

/* The same for n vectors of channels, which the compiler knows. */
FM_INLINE void convolve(const fm_conv *conv, size_t first, size_t n) {
  size_t length = conv->length, n_past = length - 1, stride = conv->n_channels;
  float weight[FM_CONV_LONGEST][FM_CONV_CHANNELS]; /* by token, so that vectors are loaded */
  v128_t past[FM_CONV_LONGEST - 1][VECTORS], bias[VECTORS]; /* a ring; the oldest token first */
  size_t oldest = 0;
  FM_NO_UNROLL
  for (size_t c = 0; c < 4 * n; c++) {
    FM_NO_UNROLL
    for (size_t j = 0; j < length; j++) weight[j][c] = conv->weight[(first + c) * length + j];
  }
  for (size_t v = 0; v < n; v++)
    bias[v] = conv->bias ? wasm_v128_load(conv->bias + first + 4 * v) : fm_zero();
  FM_NO_UNROLL
  for (size_t j = 0; j < n_past; j++) {
    for (size_t v = 0; v < n; v++)
      past[j][v] = wasm_v128_load(conv->state + j * stride + first + 4 * v);
  }
  FM_NO_UNROLL
  for (size_t t = 0; t < conv->n_tokens; t++) {
    const float *x = conv->x + t * stride + first;
    float *y = conv->y + t * stride + first;
    v128_t sum[VECTORS];
    for (size_t v = 0; v < n; v++) sum[v] = bias[v];
    size_t at = oldest;
    FM_NO_UNROLL
    for (size_t j = 0; j < n_past; j++) {
      for (size_t v = 0; v < n; v++) {
        v128_t term = wasm_f32x4_mul(wasm_v128_load(weight[j] + 4 * v), past[at][v]);
        sum[v] = wasm_f32x4_add(sum[v], term);
      }
      at = at + 1 == n_past ? 0 : at + 1;
    }
    for (size_t v = 0; v < n; v++) {
      v128_t own = wasm_v128_load(x + 4 * v);
      past[oldest][v] = own;
      own = wasm_f32x4_mul(wasm_v128_load(weight[n_past] + 4 * v), own);
      wasm_v128_store(y + 4 * v, wasm_f32x4_add(sum[v], own));
    }
    oldest = oldest + 1 == n_past ? 0 : oldest + 1;
  }
  FM_NO_UNROLL
  for (size_t j = 0; j < n_past; j++) {
    for (size_t v = 0; v < n; v++)
      wasm_v128_store(conv->state + j * stride + first + 4 * v, past[oldest][v]);
    oldest = oldest + 1 == n_past ? 0 : oldest + 1;
  }
}

void fm_conv__simd128(const fm_conv *conv, size_t first, size_t n_values) {
  size_t done = 0;
  if (n_values == FM_CONV_CHANNELS) {
    convolve(conv, first, VECTORS);
    return;
  }
  FM_NO_UNROLL
  for (; done + 4 <= n_values; done += 4) convolve(conv, first + done, 1);
  if (done < n_values) fm_conv__scalar(conv, first + done, n_values - done);
}
