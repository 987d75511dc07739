/* What a kernel looks like, and the table that says which one serves what.
 *
 * The framework (ops/) owns loops, blocking, scratch and threads; a kernel owns registers and its edge tiles.
 * Kernel names: <op>_<type>_<activation>__<isa>; a file holds one type or op for one instruction set. */
#ifndef FM_KERNELS_KERNELS_H
#define FM_KERNELS_KERNELS_H

#include <float.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/codes.h"
#include "kernels/activations.h"
#include "kernels/attention.h"
#include "kernels/strip.h"

#define FM_CACHE_LINE_BYTES 64 /* of nearly all processors */

/* Decodes one block. */
typedef void fm_decode_fn(const void *block, fm_codes *out);

/* y[0 .. n_values) = values of the blocks from w on; n_values is a multiple of block_values. y 4-byte aligned. */
typedef void fm_dequantize_fn(const void *w, float *y, size_t n_values);

/* The integer matrix-vector product: y[r] = (or += where accumulate) sum over the row's blocks, r = 0..n_rows-1.
 * w: first block of row 0; row r starts r * row_bytes later, and the last one ends at end. n_values columns, a multiple of
 * block_values; x covers them, padded with zeros to a multiple of 256. */
typedef void fm_gemv_i8_fn(const uint8_t *w, size_t row_bytes, const uint8_t *end, const fm_act_i8 *x, float *y,
                           size_t n_rows, size_t n_values, bool accumulate);
/* The same; x as fm_deal_i16 leaves it. */
typedef void fm_gemv_i16_fn(const uint8_t *w, size_t row_bytes, const uint8_t *end, const fm_act_i16 *x, float *y,
                            size_t n_rows, size_t n_values, bool accumulate);

/* The f32 product of one decoded row with many tokens: y[t * y_stride] = (or +=) sum_c x[t * x_stride + c] * w[c]. */
typedef void fm_dot_f32_fn(const float *w, const float *x, float *y, size_t n_cols, size_t n_tokens, size_t x_stride,
                           size_t y_stride, bool accumulate);

/* One token's activations as fm_row_dot wants them. Returns false, and no result, where they are too large for it. */
typedef bool fm_deal_fn(const float *x, float *dealt, size_t n_cols);

/* One row of 16-bit floats with one token, converted in registers. Returns false, and no result, where the row holds values
 * that it cannot convert: the caller then dequantises. */
typedef bool fm_row_dot_fn(const void *w, const float *dealt, size_t n_cols, float *out);

/* What makes activations on the way into a product, and serves fm_rms_norm and fm_gated as well, so that both give the
 * same bits; in source_{scalar,simd128}.c. y may be any of the inputs.
 *   sum_squares   sum of x[i]^2, in f64, where no square of an f32 overflows
 *   scale         y[i] = x[i] * factor * weight[i]; weight NULL: ones
 *   gated         y[i] = act(gate[i]) * up[i]; act: an fm_gate */
typedef double fm_sum_squares_fn(const float *x, size_t n_values);
typedef void fm_scale_fn(const float *x, const float *weight, float factor, float *y, size_t n_values);
typedef void fm_gated_fn(const float *gate, const float *up, float *y, size_t n_values, int32_t act);

/* 1 / sqrt(mean of squares + eps), at most FLT_MAX: a row of zeros stays one with eps 0 too. */
static inline float fm_rms_factor(double sum_squares, size_t n_values, float eps) {
  double factor = 1.0 / __builtin_sqrt(sum_squares / (double)n_values + (double)eps);
  return factor > (double)FLT_MAX ? FLT_MAX : (float)factor;
}

/* The operations of a layer that are no products; in layer_{scalar,simd128}.c. y may be any of the inputs.
 *   layer_norm    one row: y[i] = (x[i] - mean) * factor * weight[i] + bias[i], factor by fm_rms_factor of x - mean, sums in
 *                 f64; weight, bias NULL: ones, zeros
 *   softmax       one row, n_values >= 1: y[i] = e^(x[i] - max) / sum, the sum in f64
 *   rotate        pair i, by the angle whose cosine and sine are given: x[i] and x[i + distance], distance >= n_pairs; with
 *                 distance 1 x[2i] and x[2i + 1]
 *   add           y[i] = a[i] + b[i]
 *   to_f16        as fm_f32_to_f16 */
typedef void fm_layer_norm_fn(const float *x, const float *weight, const float *bias, float *y, size_t n_values,
                              float eps);
typedef void fm_softmax_fn(const float *x, float *y, size_t n_values);
typedef void fm_rotate_fn(float *x, size_t distance, const float *cosine, const float *sine, size_t n_pairs);
typedef void fm_add_fn(const float *a, const float *b, float *y, size_t n_values);
typedef void fm_to_f16_fn(const float *x, uint16_t *y, size_t n_values);

/* The scalar integer products, generic over the types through their decoder. y[t * y_stride + r] as in gemm. */
void fm_rows_i8__scalar(fm_decode_fn *decode, const uint8_t *w, size_t row_bytes, size_t block_values,
                        size_t block_bytes, const fm_act_i8 *x, float *y, size_t n_rows, size_t n_values,
                        size_t n_tokens, size_t y_stride, bool accumulate);
void fm_rows_i16__scalar(fm_decode_fn *decode, const uint8_t *w, size_t row_bytes, size_t block_values,
                         size_t block_bytes, const fm_act_i16 *x, float *y, size_t n_rows, size_t n_values,
                         size_t n_tokens, size_t y_stride, bool accumulate);

typedef enum {
  FM_SCALES_K,
  FM_SCALES_F32
} fm_scale_kind;

/* What strips and dequantisation need to know of a coded type; see form.h. A group is 256 columns of one row. */
typedef struct {
  fm_scale_kind kind;
  size_t group_bytes;
  size_t block_values; /* 32 or 256 */
  size_t sub;          /* columns that share a scale: 16 or 32 */
  int32_t bias;        /* subtracted from every code; 0 where the type has mins */
  bool has_min;
  bool wide;    /* codes are int8, not 0..63: see fm_wide */
  size_t n_add; /* pair sums of codes and int8 activations that int16 holds: 8, 4 or 2; see gemm_i8_relaxed.c */
} fm_layout;

/* Y tile = (or += where accumulate) X * strip^T: y[t * y_stride + r], t = 0..n_tokens-1, r = 0..n_rows-1 <=
 * FM_STRIP_ROWS. Tokens 4i .. 4i + 3 start at x + i * n_blocks. */
typedef void fm_gemm_i8_fn(const fm_layout *layout, const fm_strip *strip, const fm_act_tile_i8 *x, float *y,
                           size_t n_blocks, size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate);
typedef void fm_gemm_i16_fn(const fm_layout *layout, const fm_strip *strip, const fm_act_tile_i16 *x, float *y,
                            size_t n_blocks, size_t n_tokens, size_t y_stride, size_t n_rows, bool accumulate);

/* The SIMD128 kernels of a coded type, made in a file of its own, where the functions are static. */
typedef struct {
  const fm_layout *layout;
  /* Of n groups, one after the other: 256 codes each; 256 / sub scales and mins each. */
  void (*unpack)(const uint8_t *group, size_t n, uint8_t *codes);
  void (*f32_scales)(const uint8_t *group, size_t n, float *scale, float *min);
  void (*k_scales)(const uint8_t *group, size_t n, bool dot32, fm_strip_k_row out); /* NULL for FM_SCALES_F32 */
  fm_gemv_i16_fn *gemv_i16;
} fm_simd128_kernels;

typedef struct {
  fm_gemv_i8_fn *gemv_i8[2]; /* by fm_dot */
  fm_gemm_i8_fn *gemm_i8[2]; /* by fm_dot */
} fm_relaxed_kernels;

/* What i32x4.relaxed_dot_i8x16_i7x16_add makes of a second operand over 127. The standard lets an engine choose, once for all;
 * fm_probe_wide__relaxed finds out. Where the answer is exact, codes of 8 bits take one instruction too (Arm: sdot, signed;
 * x86 with AVX-VNNI: vpdpbusd, unsigned); where int16 saturates on the way, types with such codes are served by int16. */
typedef enum {
  FM_WIDE_UNKNOWN,
  FM_WIDE_NONE,
  FM_WIDE_SIGNED,
  FM_WIDE_UNSIGNED
} fm_wide;
fm_wide fm_probe_wide__relaxed(void);

/* What is added to int8 codes so that they are exact as the second operand; int8 sums take it away again. */
static inline int32_t fm_wide_bias(fm_wide wide) { return wide == FM_WIDE_UNSIGNED ? 128 : 0; }

/* Decode n_values (<= FM_PANEL_COLS) columns of FM_STRIP_ROWS rows into the strip; columns up to the next multiple of 256
 * become zero weights. row[i]: first block of row i; rows may be the same. */
typedef void fm_strip_i8_fn(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                            bool dot32, fm_strip *strip);
typedef void fm_strip_i16_fn(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                             fm_strip *strip);

/* y[0 .. n_values) = values of the blocks from w on, for coded types. */
typedef void fm_dequantize_codes_fn(const fm_simd128_kernels *type, const uint8_t *w, float *y, size_t n_values);

/* Who serves a type. The scalar kernels are generic: a type brings its decoder. */
typedef struct {
  int32_t type;
  fm_decode_fn *decode;              /* NULL: the values are floats themselves (F32, F16, BF16) */
  fm_dequantize_fn *dequantize[2];   /* only where decode is NULL: scalar, SIMD128 */
  fm_deal_fn *deal;                  /* with row_dot */
  fm_row_dot_fn *row_dot;            /* SIMD128, floats only; NULL where there is none */
  const fm_simd128_kernels *simd128; /* NULL where the module has none */
  const fm_relaxed_kernels *relaxed; /* NULL where the module has none */
} fm_kernels;

/* Kernels that serve every type, by instruction set. */
typedef struct {
  fm_quantize_i8_fn *quantize_i8;
  fm_quantize_i16_fn *quantize_i16;
  fm_dot_f32_fn *dot_f32;
  fm_dequantize_codes_fn *dequantize; /* SIMD128 */
  fm_deal_i16_fn *deal_i16;           /* SIMD128 */
  fm_pack_i8_fn *pack_i8;             /* SIMD128 */
  fm_pack_i16_fn *pack_i16;
  fm_strip_i8_fn *strip_i8; /* SIMD128 */
  fm_strip_i16_fn *strip_i16;
  fm_gemm_i16_fn *gemm_i16; /* SIMD128 */
  fm_sum_squares_fn *sum_squares;
  fm_scale_fn *scale;
  fm_gated_fn *gated;
  fm_layer_norm_fn *layer_norm;
  fm_softmax_fn *softmax;
  fm_rotate_fn *rotate;
  fm_add_fn *add;
  fm_to_f16_fn *to_f16;
  const fm_attention_kernels *attention, *attention_relaxed;
} fm_shared_kernels;

/* isa: one that this module holds. */
const fm_shared_kernels *fm_shared_kernels_of(int32_t isa);

/* The row of a type, or NULL. */
const fm_kernels *fm_kernels_of(int32_t type);

/* The dispatch state: the only mutable global. */
typedef struct {
  int32_t isa;  /* fm_isa_id */
  int32_t dot;  /* fm_dot */
  fm_wide wide; /* of this engine */
} fm_dispatch;
extern fm_dispatch fm_current;

/* Whether the relaxed int8 kernels of a type give exact sums on this engine. */
bool fm_relaxed_is_exact(const fm_kernels *kernels);

/* The best instruction set compiled into this module. */
int32_t fm_isa_max(void);

/* Kernels of every type and instruction set that are not static, by family. */
fm_dot_f32_fn fm_dot_f32__scalar, fm_dot_f32__simd128;
fm_dequantize_fn fm_dequantize_f32__scalar, fm_dequantize_f16__scalar, fm_dequantize_bf16__scalar;

fm_sum_squares_fn fm_sum_squares__scalar, fm_sum_squares__simd128;
fm_scale_fn fm_scale__scalar, fm_scale__simd128;
fm_gated_fn fm_gated__scalar, fm_gated__simd128;
fm_layer_norm_fn fm_layer_norm__scalar, fm_layer_norm__simd128;
fm_softmax_fn fm_softmax__scalar, fm_softmax__simd128;
fm_rotate_fn fm_rotate__scalar, fm_rotate__simd128;
fm_add_fn fm_add__scalar, fm_add__simd128;
fm_to_f16_fn fm_to_f16__scalar, fm_to_f16__simd128;

fm_gemm_i16_fn fm_gemm_i16__simd128;
fm_gemm_i8_fn fm_gemm_i8_k_dot16__relaxed, fm_gemm_i8_k_dot32__relaxed, fm_gemm_i8_f32_dot16__relaxed,
    fm_gemm_i8_f32_dot32__relaxed;

fm_decode_fn fm_decode_q4_0__scalar, fm_decode_q4_1__scalar, fm_decode_q5_0__scalar, fm_decode_q5_1__scalar,
    fm_decode_q8_0__scalar, fm_decode_q2_k__scalar, fm_decode_q3_k__scalar, fm_decode_q4_k__scalar,
    fm_decode_q5_k__scalar, fm_decode_q6_k__scalar, fm_decode_q8_k__scalar, fm_decode_iq4_nl__scalar,
    fm_decode_iq4_xs__scalar, fm_decode_tq1_0__scalar, fm_decode_tq2_0__scalar, fm_decode_mxfp4__scalar;

fm_dequantize_fn fm_dequantize_f16__simd128, fm_dequantize_bf16__simd128;
fm_deal_fn fm_deal_f16__simd128, fm_deal_bf16__simd128;
fm_row_dot_fn fm_row_dot_f16__simd128, fm_row_dot_bf16__simd128;
fm_dequantize_codes_fn fm_dequantize_codes__simd128;
fm_strip_i8_fn fm_strip_i8__simd128;
fm_strip_i16_fn fm_strip_i16__simd128;

extern const fm_simd128_kernels fm_q2_k__simd128, fm_q3_k__simd128, fm_q4_k__simd128, fm_q5_k__simd128,
    fm_q6_k__simd128, fm_q8_k__simd128;
extern const fm_simd128_kernels fm_q4_0__simd128, fm_q4_1__simd128, fm_q5_0__simd128, fm_q5_1__simd128,
    fm_q8_0__simd128;
extern const fm_simd128_kernels fm_iq4_nl__simd128, fm_iq4_xs__simd128, fm_mxfp4__simd128, fm_tq1_0__simd128,
    fm_tq2_0__simd128;
extern const fm_relaxed_kernels fm_q2_k__relaxed, fm_q3_k__relaxed, fm_q4_k__relaxed, fm_q5_k__relaxed,
    fm_q6_k__relaxed;
extern const fm_relaxed_kernels fm_q4_0__relaxed, fm_q4_1__relaxed, fm_q5_0__relaxed, fm_q5_1__relaxed;
extern const fm_relaxed_kernels fm_mxfp4__relaxed, fm_tq1_0__relaxed, fm_tq2_0__relaxed;
extern const fm_relaxed_kernels fm_q8_0__relaxed, fm_q8_k__relaxed, fm_iq4_nl__relaxed, fm_iq4_xs__relaxed;

#endif
