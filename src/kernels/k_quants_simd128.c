/* Q2_K, Q3_K, Q4_K, Q5_K, Q6_K with int16 activations. */
#include "kernels/decoder_simd128.h"
#include "kernels/k_quants_decoders.h"

FM_K_SCALES(q2_k)
FM_SIMD128_KERNELS(q2_k, k_scales_q2_k)
FM_K_SCALES(q3_k)
FM_SIMD128_KERNELS(q3_k, k_scales_q3_k)
FM_K_SCALES(q4_k)
FM_SIMD128_KERNELS(q4_k, k_scales_q4_k)
FM_K_SCALES(q5_k)
FM_SIMD128_KERNELS(q5_k, k_scales_q5_k)
FM_K_SCALES(q6_k)
FM_SIMD128_KERNELS(q6_k, k_scales_q6_k)
