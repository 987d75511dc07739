/* Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4 with int8 activations. */
#include "kernels/decoder_relaxed.h"

#include "kernels/block32_decoders.h"
