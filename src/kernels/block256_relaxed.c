/* TQ1_0, TQ2_0 with int8 activations. */
#include "kernels/block256_form.h"
#include "kernels/form_relaxed.h"

FM_RELAXED_KERNELS(tq1_0, fm_gemm_i8_f32_bias4_dot16__relaxed, fm_gemm_i8_f32_bias_dot32__relaxed)
FM_RELAXED_KERNELS(tq2_0, fm_gemm_i8_f32_bias4_dot16__relaxed, fm_gemm_i8_f32_bias_dot32__relaxed)
