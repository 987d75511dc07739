/* Q2_K, Q3_K, Q4_K, Q5_K, Q6_K with int8 activations. */
#include "kernels/form_relaxed.h"
#include "kernels/k_quants_form.h"

FM_RELAXED_KERNELS(q2_k, fm_gemm_i8_k16_3bit_dot16__relaxed, fm_gemm_i8_k16_dot32__relaxed)
FM_RELAXED_KERNELS(q3_k, fm_gemm_i8_k16_3bit_dot16__relaxed, fm_gemm_i8_k16_dot32__relaxed)
FM_RELAXED_KERNELS(q4_k, fm_gemm_i8_k32_4bit_dot16__relaxed, fm_gemm_i8_k32_dot32__relaxed)
FM_RELAXED_KERNELS(q5_k, fm_gemm_i8_k32_5bit_dot16__relaxed, fm_gemm_i8_k32_dot32__relaxed)
FM_RELAXED_KERNELS(q6_k, fm_gemm_i8_k16_6bit_dot16__relaxed, fm_gemm_i8_k16_dot32__relaxed)
