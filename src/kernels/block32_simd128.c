/* Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4 with int16 activations. */
#include "kernels/block32_decoders.h"
#include "kernels/decoder_simd128.h"

FM_SIMD128_KERNELS(q4_0, NULL)
FM_SIMD128_KERNELS(q4_1, NULL)
FM_SIMD128_KERNELS(q5_0, NULL)
FM_SIMD128_KERNELS(q5_1, NULL)
FM_SIMD128_KERNELS(q8_0, NULL)
FM_SIMD128_KERNELS(iq4_nl, NULL)
FM_SIMD128_KERNELS(mxfp4, NULL)
