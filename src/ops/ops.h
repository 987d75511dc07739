/* The operations: loops, blocking, scratch. Arguments have been checked by exports.c. */
#ifndef FM_OPS_OPS_H
#define FM_OPS_OPS_H

#include <stdint.h>

#include "formats/traits.h"
#include "kernels/kernels.h"
#include "quantize/quantizers.h"

/* Contracts: fused_matmul and fm_dequantize_rows in fused.h. */
void fm_op_matmul(const fm_traits *traits, const fm_kernels *kernels, const uint8_t *w, const float *x, float *y,
                  size_t n_tokens, size_t n_rows, size_t n_cols, int32_t activation);
void fm_op_dequantize(const fm_traits *traits, const fm_kernels *kernels, const uint8_t *w, float *y, size_t n_values);

/* The flat layout of fused_dequant_matmul_q4k_legacy, drawn in ops/legacy.c. */
#define FM_LEGACY_BLOCK_VALUES 256
#define FM_LEGACY_BLOCK_BYTES 140

/* Contracts: fm_quantize_rows and fused_dequant_matmul_q4k_legacy in fused.h. */
void fm_op_quantize(const fm_traits *traits, const fm_quantizer *quantizer, const float *x, uint8_t *w,
                    size_t n_values);
void fm_op_matmul_q4_legacy(const uint8_t *w, const float *scales, const float *x, float *y, size_t n_tokens,
                            size_t n_rows, size_t n_cols);

/* How a matmul is served: the instruction set of its kernels and the activations they get. */
typedef struct {
  int32_t isa;        /* fm_isa_id */
  int32_t activation; /* fm_activation */
} fm_service;

fm_service fm_service_of(const fm_kernels *kernels, int32_t activation);

#endif
