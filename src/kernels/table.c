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
    {.quantize_i8 = fm_quantize_i8__scalar,
     .attention = &fm_attention__scalar,
     .quantize_i16 = fm_quantize_i16__scalar,
     .dot_f32 = fm_dot_f32__scalar,
     .sum_squares = fm_sum_squares__scalar,
     .scale = fm_scale__scalar,
     .gated = fm_gated__scalar,
     .layer_norm = fm_layer_norm__scalar,
     .softmax = fm_softmax__scalar,
     .rotate = fm_rotate__scalar,
     .add = fm_add__scalar,
     .to_f16 = fm_to_f16__scalar},
    {.quantize_i8 = SIMD128(fm_quantize_i8__simd128),
     .attention = SIMD128(&fm_attention__simd128),
     .attention_relaxed = RELAXED(&fm_attention__relaxed),
     .quantize_i16 = SIMD128(fm_quantize_i16__simd128),
     .deal_i16 = SIMD128(fm_deal_i16__simd128),
     .dot_f32 = SIMD128(fm_dot_f32__simd128),
     .dequantize = SIMD128(fm_dequantize_codes__simd128),
     .strip_i8 = SIMD128(fm_strip_i8__simd128),
     .strip_i16 = SIMD128(fm_strip_i16__simd128),
     .pack_i8 = SIMD128(fm_pack_i8__simd128),
     .pack_i16 = SIMD128(fm_pack_i16__simd128),
     .gemm_i16 = SIMD128(fm_gemm_i16__simd128),
     .sum_squares = SIMD128(fm_sum_squares__simd128),
     .scale = SIMD128(fm_scale__simd128),
     .gated = SIMD128(fm_gated__simd128),
     .layer_norm = SIMD128(fm_layer_norm__simd128),
     .softmax = SIMD128(fm_softmax__simd128),
     .rotate = SIMD128(fm_rotate__simd128),
     .add = SIMD128(fm_add__simd128),
     .to_f16 = SIMD128(fm_to_f16__simd128)},
};

const fm_shared_kernels *fm_shared_kernels_of(int32_t isa) { return &shared[isa >= FM_ISA_SIMD128]; }

#define CODED(TYPE, name)                                                                                              \
  {.type = FM_TYPE_##TYPE,                                                                                             \
   .decode = fm_decode_##name##__scalar,                                                                               \
   .simd128 = SIMD128(&fm_##name##__simd128),                                                                          \
   .relaxed = RELAXED(&fm_##name##__relaxed)}
#define FLOAT16(TYPE, name)                                                                                            \
  {.type = FM_TYPE_##TYPE,                                                                                             \
   .dequantize = {fm_dequantize_##name##__scalar, SIMD128(fm_dequantize_##name##__simd128)},                           \
   .deal = SIMD128(fm_deal_##name##__simd128),                                                                         \
   .row_dot = SIMD128(fm_row_dot_##name##__simd128)}

static const fm_kernels rows[] = {
    {.type = FM_TYPE_F32, .dequantize = {fm_dequantize_f32__scalar, fm_dequantize_f32__scalar}},
    FLOAT16(F16, f16),
    FLOAT16(BF16, bf16),
    CODED(Q4_0, q4_0),
    CODED(Q4_1, q4_1),
    CODED(Q5_0, q5_0),
    CODED(Q5_1, q5_1),
    CODED(Q8_0, q8_0),
    CODED(Q2_K, q2_k),
    CODED(Q3_K, q3_k),
    CODED(Q4_K, q4_k),
    CODED(Q5_K, q5_k),
    CODED(Q6_K, q6_k),
    CODED(Q8_K, q8_k),
    CODED(IQ4_NL, iq4_nl),
    CODED(IQ4_XS, iq4_xs),
    CODED(MXFP4, mxfp4),
    CODED(TQ1_0, tq1_0),
    CODED(TQ2_0, tq2_0),
};

fm_dispatch fm_current = {
    .isa = FM_HAS_RELAXED   ? FM_ISA_RELAXED
           : FM_HAS_SIMD128 ? FM_ISA_SIMD128
                            : FM_ISA_SCALAR,
    .dot = FM_DOT_I16,
};

int32_t fm_isa_max(void) { return FM_HAS_RELAXED ? FM_ISA_RELAXED : FM_HAS_SIMD128 ? FM_ISA_SIMD128 : FM_ISA_SCALAR; }

const fm_kernels *fm_kernels_of(int32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].type == type) return &rows[i];
  }
  return NULL;
}
