/* TQ1_0, TQ2_0, Q8_K, IQ4_XS with int8 activations. Q8_K and IQ4_XS take all 8 bits: see block32_relaxed.c. */
#include "kernels/block256_decoders.h"
#include "kernels/decoder_relaxed.h"

FM_RELAXED_KERNELS(tq1_0, f32)
FM_RELAXED_KERNELS(tq2_0, f32)
FM_WIDE_KERNELS(q8_k, f32)
FM_WIDE_KERNELS(iq4_xs, k)
