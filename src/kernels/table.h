/* The table of who serves what: kernels of a type, kernels that serve every type, and the
 * instruction set in use.
 *
 * The framework (ops/) owns loops, blocking, scratch and threads; a kernel owns registers and its
 * edges. An operation reads fm_current once, when it is called, and passes down what it chose. */
#ifndef FM_KERNELS_TABLE_H
#define FM_KERNELS_TABLE_H

#include "kernels/activations.h"
#include "kernels/attention.h"
#include "kernels/coded.h"
#include "kernels/conv.h"
#include "kernels/delta.h"
#include "kernels/floats.h"
#include "kernels/layer.h"
#include "kernels/scan.h"
#include "kernels/source.h"

/* Who serves a type. The scalar kernels are generic: a type brings its decoder. */
typedef struct {
  int32_t type;
  int32_t int8; /* the form of activations that its products of int8 get; see activations.h */
  bool has_codebook;
  fm_decode_fn *decode;              /* NULL: the values are floats themselves (F32, F16, BF16) */
  fm_dequantize_fn *dequantize[2];   /* only where decode is NULL: scalar, SIMD128 */
  fm_deal_fn *deal;                  /* with row_dot */
  fm_row_dot_fn *row_dot;            /* SIMD128, floats only; NULL where there is none */
  const fm_simd128_kernels *simd128; /* NULL where the module has none */
  const fm_relaxed_kernels *relaxed; /* NULL where the module has none */
} fm_kernels;

/* Kernels that serve every type, by instruction set. */
typedef struct {
  fm_act_kernels act[FM_ACT_FORMS]; /* FM_ACT_F32 has none */
  fm_dot_f32_fn *dot_f32;
  fm_dequantize_codes_fn *dequantize; /* this and the next three: SIMD128 */
  fm_strip_fn *strip_i8[2];           /* indexed by fm_dot */
  fm_strip_fn *strip_i16;
  fm_gemm_fn *gemm_i16;
  fm_sum_squares_fn *sum_squares;
  fm_scale_fn *scale;
  fm_gated_fn *gated;
  fm_layer_norm_fn *layer_norm;
  fm_softmax_fn *softmax;
  fm_rotate_fn *rotate;
  fm_add_fn *add;
  fm_add_scaled_fn *add_scaled;
  fm_to_f16_fn *to_f16;
  fm_conv_fn *conv;
  const fm_attention_kernels *attention, *attention_relaxed;
  const fm_delta_kernels *delta, *delta_relaxed;
  const fm_scan_kernels *scan;
} fm_shared_kernels;

/* isa: one that this module holds. */
const fm_shared_kernels *fm_shared_kernels_of(int32_t isa);

/* The row of a type, or NULL. Expands the codebooks if the type needs them: operations call this
 * ahead of a fork. */
const fm_kernels *fm_kernels_of(int32_t type);

/* The instruction set in use; fm_select changes it. */
typedef struct {
  int32_t isa; /* fm_isa_id */
  int32_t dot; /* fm_dot */
} fm_dispatch;
extern fm_dispatch fm_current;

/* Whether the relaxed int8 kernels of a type give exact sums on this engine. */
bool fm_relaxed_is_exact(const fm_kernels *kernels);

/* The best instruction set compiled into this module. */
int32_t fm_isa_max(void);

#endif
