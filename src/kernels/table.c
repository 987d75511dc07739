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

bool fm_relaxed_is_exact(const fm_kernels *kernels) {
  if (!kernels->relaxed) return false;
#if FM_HAS_RELAXED
  if (fm_current.wide == FM_WIDE_UNKNOWN) fm_current.wide = fm_probe_wide__relaxed();
#endif
  return !kernels->simd128->layout->wide || fm_current.wide > FM_WIDE_NONE;
}

static const fm_shared_kernels shared[] = {
    {fm_quantize_i8__scalar, fm_quantize_i16__scalar, fm_dot_f32__scalar, NULL, NULL, NULL},
    {SIMD128(fm_quantize_i8__simd128), SIMD128(fm_quantize_i16__simd128), SIMD128(fm_dot_f32__simd128),
     SIMD128(fm_dequantize_codes__simd128), SIMD128(fm_strip_i8__simd128), SIMD128(fm_strip_i16__simd128)},
};

const fm_shared_kernels *fm_shared_kernels_of(int32_t isa) { return &shared[isa >= FM_ISA_SIMD128]; }

static const fm_kernels rows[] = {
    {FM_TYPE_F32, NULL, {fm_dequantize_f32__scalar, fm_dequantize_f32__scalar}, NULL, NULL},
    {FM_TYPE_F16, NULL, {fm_dequantize_f16__scalar, SIMD128(fm_dequantize_f16__simd128)}, NULL, NULL},
    {FM_TYPE_BF16, NULL, {fm_dequantize_bf16__scalar, SIMD128(fm_dequantize_bf16__simd128)}, NULL, NULL},
    {FM_TYPE_Q4_0, fm_decode_q4_0__scalar, {NULL, NULL}, SIMD128(&fm_q4_0__simd128), RELAXED(&fm_q4_0__relaxed)},
    {FM_TYPE_Q4_1, fm_decode_q4_1__scalar, {NULL, NULL}, SIMD128(&fm_q4_1__simd128), RELAXED(&fm_q4_1__relaxed)},
    {FM_TYPE_Q5_0, fm_decode_q5_0__scalar, {NULL, NULL}, SIMD128(&fm_q5_0__simd128), RELAXED(&fm_q5_0__relaxed)},
    {FM_TYPE_Q5_1, fm_decode_q5_1__scalar, {NULL, NULL}, SIMD128(&fm_q5_1__simd128), RELAXED(&fm_q5_1__relaxed)},
    {FM_TYPE_Q8_0, fm_decode_q8_0__scalar, {NULL, NULL}, SIMD128(&fm_q8_0__simd128), RELAXED(&fm_q8_0__relaxed)},
    {FM_TYPE_Q2_K, fm_decode_q2_k__scalar, {NULL, NULL}, SIMD128(&fm_q2_k__simd128), RELAXED(&fm_q2_k__relaxed)},
    {FM_TYPE_Q3_K, fm_decode_q3_k__scalar, {NULL, NULL}, SIMD128(&fm_q3_k__simd128), RELAXED(&fm_q3_k__relaxed)},
    {FM_TYPE_Q4_K, fm_decode_q4_k__scalar, {NULL, NULL}, SIMD128(&fm_q4_k__simd128), RELAXED(&fm_q4_k__relaxed)},
    {FM_TYPE_Q5_K, fm_decode_q5_k__scalar, {NULL, NULL}, SIMD128(&fm_q5_k__simd128), RELAXED(&fm_q5_k__relaxed)},
    {FM_TYPE_Q6_K, fm_decode_q6_k__scalar, {NULL, NULL}, SIMD128(&fm_q6_k__simd128), RELAXED(&fm_q6_k__relaxed)},
    {FM_TYPE_Q8_K, fm_decode_q8_k__scalar, {NULL, NULL}, SIMD128(&fm_q8_k__simd128), RELAXED(&fm_q8_k__relaxed)},
    {FM_TYPE_IQ4_NL, fm_decode_iq4_nl__scalar, {NULL, NULL}, SIMD128(&fm_iq4_nl__simd128), RELAXED(&fm_iq4_nl__relaxed)},
    {FM_TYPE_IQ4_XS, fm_decode_iq4_xs__scalar, {NULL, NULL}, SIMD128(&fm_iq4_xs__simd128), RELAXED(&fm_iq4_xs__relaxed)},
    {FM_TYPE_MXFP4, fm_decode_mxfp4__scalar, {NULL, NULL}, SIMD128(&fm_mxfp4__simd128), RELAXED(&fm_mxfp4__relaxed)},
    {FM_TYPE_TQ1_0, fm_decode_tq1_0__scalar, {NULL, NULL}, SIMD128(&fm_tq1_0__simd128), RELAXED(&fm_tq1_0__relaxed)},
    {FM_TYPE_TQ2_0, fm_decode_tq2_0__scalar, {NULL, NULL}, SIMD128(&fm_tq2_0__simd128), RELAXED(&fm_tq2_0__relaxed)},
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
