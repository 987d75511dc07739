/* IQ4_XS, TQ1_0, TQ2_0, Q8_K with int16 activations. */
#include "kernels/decoder_simd128.h"

#include "kernels/block256_decoders.h"
