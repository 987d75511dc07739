/* Who serves what: one row per type. */
#include "fused.h"
#include "kernels/kernels.h"

/* FM_HAS_SIMD128, FM_HAS_RELAXED (0 or 1): set by the build for each module; which kernel files are linked into it. */
#if FM_HAS_SIMD128
#define SIMD128(kernel) kernel
#else
#define SIMD128(kernel) NULL
#endif
#if FM_HAS_RELAXED
#define RELAXED(kernel) kernel
#else
#define RELAXED(kernel) NULL
#endif

static const fm_shared_kernels shared[] = {
    {fm_quantize_i8__scalar, fm_quantize_i16__scalar, fm_dot_f32__scalar},
    {SIMD128(fm_quantize_i8__simd128), SIMD128(fm_quantize_i16__simd128), SIMD128(fm_dot_f32__simd128)},
};

const fm_shared_kernels *fm_shared_kernels_of(int32_t isa) { return &shared[isa >= FM_ISA_SIMD128]; }

static const fm_kernels rows[] = {
    {.type = FM_TYPE_F32,
     .dequantize__scalar = fm_dequantize_f32__scalar,
     .dequantize__simd128 = SIMD128(fm_dequantize_f32__scalar)},
    {.type = FM_TYPE_F16,
     .dequantize__scalar = fm_dequantize_f16__scalar,
     .dequantize__simd128 = SIMD128(fm_dequantize_f16__simd128)},
    {.type = FM_TYPE_Q4_K,
     .decode = fm_decode_q4_k__scalar,
     .dequantize__simd128 = SIMD128(fm_dequantize_q4_k__simd128),
     .gemv_i16__simd128 = SIMD128(fm_gemv_q4_k_i16__simd128),
     .strip_i16__simd128 = SIMD128(fm_strip_q4_k_i16__simd128),
     .gemm_i16__simd128 = SIMD128(fm_gemm_i16_sub32__simd128),
     .gemv_i8__relaxed = {RELAXED(fm_gemv_q4_k_i8_dot16__relaxed), RELAXED(fm_gemv_q4_k_i8_dot32__relaxed)},
     .strip_i8__relaxed = RELAXED(fm_strip_q4_k_i8__relaxed),
     .gemm_i8__relaxed = {RELAXED(fm_gemm_i8_k32_dot16__relaxed), RELAXED(fm_gemm_i8_k32_dot32__relaxed)}},
};

fm_dispatch fm_current = {
    .isa = FM_HAS_RELAXED ? FM_ISA_RELAXED : FM_HAS_SIMD128 ? FM_ISA_SIMD128 : FM_ISA_SCALAR,
    .dot = FM_DOT_I16,
};

int32_t fm_isa_max(void) {
  return FM_HAS_RELAXED ? FM_ISA_RELAXED : FM_HAS_SIMD128 ? FM_ISA_SIMD128 : FM_ISA_SCALAR;
}

const fm_kernels *fm_kernels_of(int32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].type == type) return &rows[i];
  }
  return NULL;
}
