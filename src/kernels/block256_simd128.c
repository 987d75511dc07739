/* IQ4_XS, TQ1_0, TQ2_0, Q8_K with int16 activations. */
#include "kernels/block256_decoders.h"
#include "kernels/decoder_simd128.h"

FM_K_SCALES(iq4_xs)
FM_SIMD128_KERNELS(iq4_xs, k_scales_iq4_xs)
FM_SIMD128_KERNELS(tq1_0, NULL)
FM_SIMD128_KERNELS(tq2_0, NULL)
FM_SIMD128_KERNELS(q8_k, NULL)
