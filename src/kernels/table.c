/* Who serves what: one row per type, made from FM_TYPES (fused.h), and one per instruction set. */
#include "kernels/table.h"

#include "formats/codebooks.h"
#include "fused.h"
#include "kernels/wide_dot.h"

/* FM_HAS_SIMD128, FM_HAS_RELAXED (0 or 1): set by the build for each module; which kernel files are
 * linked into it. */
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

fm_wide_dot fm_wide_dot_of_engine = FM_WIDE_DOT_UNKNOWN;

bool fm_relaxed_is_exact(const fm_kernels *kernels) {
  if (!kernels->relaxed) return false;
#if FM_HAS_RELAXED
  if (fm_wide_dot_of_engine == FM_WIDE_DOT_UNKNOWN)
    fm_wide_dot_of_engine = fm_probe_wide_dot__relaxed();
#endif
  return !kernels->simd128->layout->wide || fm_wide_dot_of_engine > FM_WIDE_DOT_NONE;
}

#define ACT_I16 .block_bytes = sizeof(fm_act_i16), .tile_bytes = sizeof(fm_act_tile_i16)
#define ACT_I8 .block_bytes = sizeof(fm_act_i8), .tile_bytes = sizeof(fm_act_tile_i8)

static const fm_shared_kernels shared[] = {
    {.act = {[FM_ACT_INT16] = {ACT_I16, .quantize = fm_quantize_i16__scalar},
             [FM_ACT_INT8] = {ACT_I8, .quantize = fm_quantize_i8__scalar},
             [FM_ACT_INT8_BY_32] = {ACT_I8, .quantize = fm_quantize_i8_by_32__scalar}},
     .dot_f32 = fm_dot_f32__scalar,
     .sum_squares = fm_sum_squares__scalar,
     .scale = fm_scale__scalar,
     .gated = fm_gated__scalar,
     .layer_norm = fm_layer_norm__scalar,
     .softmax = fm_softmax__scalar,
     .rotate = fm_rotate__scalar,
     .add = fm_add__scalar,
     .add_scaled = fm_add_scaled__scalar,
     .to_f16 = fm_to_f16__scalar,
     .conv = fm_conv__scalar,
     .attention = &fm_attention__scalar,
     .delta = &fm_delta__scalar,
     .scan = &fm_scan__scalar},
    {.act = {[FM_ACT_INT16] = {ACT_I16, .quantize = SIMD128(fm_quantize_i16__simd128),
                               .deal = SIMD128(fm_deal_i16__simd128),
                               .interleave = SIMD128(fm_interleave_i16__simd128)},
             [FM_ACT_INT8] = {ACT_I8, .quantize = SIMD128(fm_quantize_i8__simd128),
                              .interleave = SIMD128(fm_interleave_i8__simd128)},
             [FM_ACT_INT8_BY_32] = {ACT_I8, .quantize = SIMD128(fm_quantize_i8_by_32__simd128),
                                    .interleave = SIMD128(fm_interleave_i8__simd128)}},
     .dot_f32 = SIMD128(fm_dot_f32__simd128),
     .dequantize = SIMD128(fm_dequantize_codes__simd128),
     .strip_i8 = {SIMD128(fm_strip_i8_dot16__simd128), SIMD128(fm_strip_i8_dot32__simd128)},
     .strip_i16 = SIMD128(fm_strip_i16__simd128),
     .gemm_i16 = SIMD128(fm_gemm_i16__simd128),
     .sum_squares = SIMD128(fm_sum_squares__simd128),
     .scale = SIMD128(fm_scale__simd128),
     .gated = SIMD128(fm_gated__simd128),
     .layer_norm = SIMD128(fm_layer_norm__simd128),
     .softmax = SIMD128(fm_softmax__simd128),
     .rotate = SIMD128(fm_rotate__simd128),
     .add = SIMD128(fm_add__simd128),
     .add_scaled = SIMD128(fm_add_scaled__simd128),
     .to_f16 = SIMD128(fm_to_f16__simd128),
     .conv = SIMD128(fm_conv__simd128),
     .attention = SIMD128(&fm_attention__simd128),
     .attention_relaxed = RELAXED(&fm_attention__relaxed),
     .delta = SIMD128(&fm_delta__simd128),
     .delta_relaxed = RELAXED(&fm_delta__relaxed),
     .scan = SIMD128(&fm_scan__simd128)},
};

const fm_shared_kernels *fm_shared_kernels_of(int32_t isa) {
  return &shared[isa >= FM_ISA_SIMD128];
}

#define FLOAT32(TYPE, name, block_values)                                                          \
  {                                                                                                \
    .type = FM_TYPE_##TYPE, .dequantize = {                                                        \
      fm_dequantize_##name##__scalar,                                                              \
      fm_dequantize_##name##__scalar                                                               \
    }                                                                                              \
  }
#define FLOAT16(TYPE, name, block_values)                                                          \
  {.type = FM_TYPE_##TYPE,                                                                         \
   .dequantize = {fm_dequantize_##name##__scalar, SIMD128(fm_dequantize_##name##__simd128)},       \
   .deal = SIMD128(fm_deal_##name##__simd128),                                                     \
   .row_dot = SIMD128(fm_row_dot_##name##__simd128)}
#define CODED(TYPE, name, block_values) CODES(TYPE, name, block_values, false)
#define GRID(TYPE, name, block_values) CODES(TYPE, name, block_values, true)
#define CODES(TYPE, name, block_values, from_codebook)                                             \
  {.type = FM_TYPE_##TYPE,                                                                         \
   .int8 = (block_values) < FM_ACT_COLS ? FM_ACT_INT8_BY_32 : FM_ACT_INT8,                         \
   .has_codebook = from_codebook,                                                                  \
   .decode = fm_decode_##name##__scalar,                                                           \
   .simd128 = SIMD128(&fm_##name##__simd128),                                                      \
   .relaxed = RELAXED(&fm_##name##__relaxed)}
#define ROW(kind, TYPE, name, number, block_values) kind(TYPE, name, block_values),

static const fm_kernels rows[] = {FM_TYPES(ROW)};

fm_dispatch fm_current = {
    .isa = FM_HAS_RELAXED   ? FM_ISA_RELAXED
           : FM_HAS_SIMD128 ? FM_ISA_SIMD128
                            : FM_ISA_SCALAR,
    .dot = FM_DOT_I16,
};

int32_t fm_isa_max(void) {
  return FM_HAS_RELAXED ? FM_ISA_RELAXED : FM_HAS_SIMD128 ? FM_ISA_SIMD128 : FM_ISA_SCALAR;
}

const fm_kernels *fm_kernels_of(int32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].type != type) continue;
    if (rows[i].has_codebook) fm_expand_codebooks();
    return &rows[i];
  }
  return NULL;
}
