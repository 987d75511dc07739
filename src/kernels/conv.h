/* The kernel of causal convolutions: channels first .. first + n_values - 1, n_values at most
 * FM_CONV_CHANNELS, without the activation function. The other channels are not touched. A token is
 * read before its result is written, so y may be x. The bias comes first in a sum, then the tokens
 * from the oldest to the newest, each product rounded; scalar and vector give the same bits. */
#ifndef FM_KERNELS_CONV_H
#define FM_KERNELS_CONV_H

#include <stddef.h>

/* The arguments of fm_causal_conv. */
typedef struct {
  const float *x, *weight, *bias;
  float *state, *y;
  size_t n_tokens, n_channels, length;
} fm_conv;

/* All tokens are walked for as many channels: a few cache lines of each token. */
#define FM_CONV_CHANNELS 64

typedef void fm_conv_fn(const fm_conv *conv, size_t first, size_t n_values);

fm_conv_fn fm_conv__scalar, fm_conv__simd128;

#endif
