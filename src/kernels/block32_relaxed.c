/* Q4_0, Q4_1, Q5_0, Q5_1, MXFP4, Q8_0, IQ4_NL with int8 activations.
 *
 * Q8_0 and IQ4_NL take all 8 bits, one more than the second operand of the relaxed dot promises to hold. Splitting their codes
 * would double the products; where the engine's i32 dot is exact for 8 bits they take one product instead (fm_wide_dot in
 * kernels.h), else int16 activations serve them, more slowly. */
#include "kernels/block32_decoders.h"
#include "kernels/decoder_relaxed.h"

FM_RELAXED_KERNELS(q4_0, f32)
FM_RELAXED_KERNELS(q4_1, f32)
FM_RELAXED_KERNELS(q5_0, f32)
FM_RELAXED_KERNELS(q5_1, f32)
FM_RELAXED_KERNELS(mxfp4, f32)
FM_WIDE_KERNELS(q8_0, f32)
FM_WIDE_KERNELS(iq4_nl, f32)
