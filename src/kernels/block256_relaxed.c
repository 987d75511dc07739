/* IQ4_XS, TQ1_0, TQ2_0, Q8_K with int8 activations. */
#include "kernels/decoder_relaxed.h"

#include "kernels/block256_decoders.h"
