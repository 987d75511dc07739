/* Causal convolutions, four channels in a vector. The scalar twin gives the same bits, and takes
 * the channels that are left over. Contract: conv.h. */
#include "fused.h"
#include "kernels/conv.h"
#include "kernels/v128.h"

#define VECTORS (FM_CONV_CHANNELS / 4)
#define LONGEST 4
/* Tokens for which weights and past stay in registers. Rows may lie a power of two apart, and so
 * compete for the same few places in a cache. */
#define TOKENS 8

/* The weights of four channels, and the tokens before, oldest first. */
typedef struct {
  v128_t weight[LONGEST], past[LONGEST - 1], bias;
} channels;

/* length is conv->length as a constant, so that the loops over it vanish. */
FM_INLINE void load(channels *four, const fm_conv *conv, size_t channel, size_t length) {
  const float *w = conv->weight + channel * length;
  for (size_t j = 0; j < length; j++, w++)
    four->weight[j] = wasm_f32x4_make(w[0], w[length], w[2 * length], w[3 * length]);
  for (size_t j = 0; j + 1 < length; j++)
    four->past[j] = wasm_v128_load(conv->state + j * conv->n_channels + channel);
  four->bias = conv->bias ? wasm_v128_load(conv->bias + channel) : fm_zero();
}

FM_INLINE void run(channels *four, const float *x, float *y, size_t n_tokens, size_t stride,
                   size_t length) {
  channels c = *four;
  FM_NO_UNROLL
  for (size_t t = 0; t < n_tokens; t++, x += stride, y += stride) {
    v128_t own = wasm_v128_load(x), sum = c.bias;
    for (size_t j = 0; j + 1 < length; j++) {
      sum = wasm_f32x4_add(sum, wasm_f32x4_mul(c.weight[j], c.past[j]));
      if (j > 0) c.past[j - 1] = c.past[j]; /* by itself this would become a copy in memory */
    }
    wasm_v128_store(y, wasm_f32x4_add(sum, wasm_f32x4_mul(c.weight[length - 1], own)));
    c.past[length - 2] = own;
  }
  for (size_t j = 0; j + 1 < length; j++) four->past[j] = c.past[j];
}

FM_INLINE void convolve(const fm_conv *conv, size_t first, size_t n, size_t length) {
  size_t stride = conv->n_channels;
  channels four[VECTORS];
  FM_NO_UNROLL
  for (size_t v = 0; v < n; v++) load(&four[v], conv, first + 4 * v, length);
  FM_NO_UNROLL
  for (size_t t = 0; t < conv->n_tokens; t += TOKENS) {
    size_t n_tokens = conv->n_tokens - t < TOKENS ? conv->n_tokens - t : TOKENS;
    size_t at = t * stride + first;
    FM_NO_UNROLL
    for (size_t v = 0; v < n; v++, at += 4)
      run(&four[v], conv->x + at, conv->y + at, n_tokens, stride, length);
  }
  FM_NO_UNROLL
  for (size_t v = 0; v < n; v++) {
    for (size_t j = 0; j + 1 < length; j++)
      wasm_v128_store(conv->state + j * stride + first + 4 * v, four[v].past[j]);
  }
}

void fm_conv__simd128(const fm_conv *conv, size_t first, size_t n_values) {
  size_t n = n_values / 4, length = conv->length;
  if (length == 3)
    convolve(conv, first, n, 3);
  else if (length == 4)
    convolve(conv, first, n, 4);
  else
    n = 0;
  if (4 * n < n_values) fm_conv__scalar(conv, first + 4 * n, n_values - 4 * n);
}
