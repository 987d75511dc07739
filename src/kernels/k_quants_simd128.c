/* Q2_K, Q3_K, Q4_K, Q5_K, Q6_K with int16 activations. */
#include "kernels/decoder_simd128.h"

#include "kernels/k_quants_decoders.h"
