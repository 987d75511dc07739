/* Q2_K, Q3_K, Q4_K, Q5_K, Q6_K with int8 activations. */
#include "kernels/decoder_relaxed.h"

#include "kernels/k_quants_decoders.h"
