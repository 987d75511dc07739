/* Exports: the product itself, types, memory and dispatch. Every exports*.c checks all arguments,
 * then calls an operation; no other file exports a symbol. Contracts: fused.h. */
#include <stdlib.h>

#include "checks.h"
#include "ops/ops.h"
#include "quantize/quantizers.h"

#ifdef __wasm__
/* Emscripten calls this when the memory has grown. It is defined here so that the module imports
 * nothing. */
void emscripten_notify_memory_growth(size_t memory);
void emscripten_notify_memory_growth(size_t memory) { (void)memory; }
#endif

#define HEAP_ALIGNMENT 64 /* a cache line */
#define MAX_ALLOC_MARGIN                                                                           \
  0x10000 /* keeps rounding and the allocator's own header from wrapping around */

EXPORT int32_t fused_matmul(int32_t type, const void *w, const float *x, float *y,
                            uint32_t n_tokens, uint32_t n_rows, uint32_t n_cols,
                            int32_t activation) {
  const fm_traits *traits = fm_traits_of(type);
  span sw, sx = {(uintptr_t)x, 0}, sy = {(uintptr_t)y, 0};
  int32_t status = check_weights(traits, w, n_rows, n_cols, &sw);
  if (status == FM_ERR_TYPE) return status;
  if (!is_activation(activation)) return FM_ERR_ACTIVATION;
  if (status != FM_OK) return status;
  if (n_tokens == 0) return FM_ERR_SHAPE;
  if (!product(n_tokens, n_cols, sizeof *x, &sx.bytes) ||
      !product(n_tokens, n_rows, sizeof *y, &sy.bytes)) {
    return FM_ERR_SHAPE;
  }
  if (!is_aligned(w, traits->alignment) || !is_aligned(x, sizeof *x) || !is_aligned(y, sizeof *y))
    return FM_ERR_ALIGN;
  if (!in_heap(sw) || !in_heap(sx) || !in_heap(sy)) return FM_ERR_RANGE;
  if (overlap(sy, sx) || overlap(sy, sw)) return FM_ERR_OVERLAP;
  const fm_target target = {.type = type, .n_rows = n_rows, .w = w, .y = y};
  const fm_source source = {.kind = FM_SOURCE_PLAIN, .x = x};
  fm_op_matmul(&target, 1, &source, n_tokens, n_cols, activation, false);
  return FM_OK;
}

EXPORT int32_t fm_dequantize_rows(int32_t type, const void *w, float *y, uint32_t n_rows,
                                  uint32_t n_cols) {
  const fm_traits *traits = fm_traits_of(type);
  span sw, sy = {(uintptr_t)y, 0};
  int32_t status = check_weights(traits, w, n_rows, n_cols, &sw);
  if (status != FM_OK) return status;
  if (!product(n_rows, n_cols, sizeof *y, &sy.bytes)) return FM_ERR_SHAPE;
  if (!is_aligned(w, traits->alignment) || !is_aligned(y, sizeof *y)) return FM_ERR_ALIGN;
  if (!in_heap(sw) || !in_heap(sy)) return FM_ERR_RANGE;
  if (overlap(sy, sw)) return FM_ERR_OVERLAP;
  fm_op_dequantize(type, w, y, (size_t)n_rows * n_cols);
  return FM_OK;
}

EXPORT int32_t fm_quantize_rows(int32_t type, const float *x, void *w, uint32_t n_rows,
                                uint32_t n_cols) {
  const fm_traits *traits = fm_traits_of(type);
  span sw, sx = {(uintptr_t)x, 0};
  if (!fm_quantizer_of(type)) return FM_ERR_TYPE;
  int32_t status = check_weights(traits, w, n_rows, n_cols, &sw);
  if (status != FM_OK) return status;
  if (!product(n_rows, n_cols, sizeof *x, &sx.bytes)) return FM_ERR_SHAPE;
  if (!is_aligned(w, traits->alignment) || !is_aligned(x, sizeof *x)) return FM_ERR_ALIGN;
  if (!in_heap(sw) || !in_heap(sx)) return FM_ERR_RANGE;
  if (overlap(sw, sx)) return FM_ERR_OVERLAP;
  fm_op_quantize(type, x, w, (size_t)n_rows * n_cols);
  return FM_OK;
}

EXPORT int32_t fused_dequant_matmul_q4k_legacy(const uint8_t *w, const float *scales,
                                               const float *x, float *y, uint32_t n_tokens,
                                               uint32_t n_rows, uint32_t n_cols) {
  uint32_t n_blocks = n_cols / FM_LEGACY_BLOCK_VALUES;
  span sw = {(uintptr_t)w, 0}, ss = {(uintptr_t)scales, 0}, sx = {(uintptr_t)x, 0},
       sy = {(uintptr_t)y, 0};
  if (n_tokens == 0 || n_rows == 0 || n_cols == 0 || n_cols % FM_LEGACY_BLOCK_VALUES != 0)
    return FM_ERR_SHAPE;
  if (!product(n_rows, n_blocks, FM_LEGACY_BLOCK_BYTES, &sw.bytes) ||
      !product(n_rows, n_blocks, sizeof *scales, &ss.bytes) ||
      !product(n_tokens, n_cols, sizeof *x, &sx.bytes) ||
      !product(n_tokens, n_rows, sizeof *y, &sy.bytes)) {
    return FM_ERR_SHAPE;
  }
  if (!is_aligned(scales, sizeof *scales) || !is_aligned(x, sizeof *x) || !is_aligned(y, sizeof *y))
    return FM_ERR_ALIGN;
  if (!in_heap(sw) || !in_heap(ss) || !in_heap(sx) || !in_heap(sy)) return FM_ERR_RANGE;
  if (overlap(sy, sw) || overlap(sy, ss) || overlap(sy, sx)) return FM_ERR_OVERLAP;
  fm_op_matmul_q4_legacy(w, scales, x, y, n_tokens, n_rows, n_cols);
  return FM_OK;
}

EXPORT uint32_t fm_type_block_values(int32_t type) {
  const fm_traits *traits = fm_traits_of(type);
  return traits ? traits->block_values : 0;
}

EXPORT uint32_t fm_type_block_bytes(int32_t type) {
  const fm_traits *traits = fm_traits_of(type);
  return traits ? traits->block_bytes : 0;
}

EXPORT uint32_t fm_type_alignment(int32_t type) {
  const fm_traits *traits = fm_traits_of(type);
  return traits ? traits->alignment : 0;
}

EXPORT void *fm_alloc(size_t bytes) {
  if (bytes == 0 || bytes > SIZE_MAX - MAX_ALLOC_MARGIN) return NULL;
  return aligned_alloc(HEAP_ALIGNMENT,
                       (bytes + HEAP_ALIGNMENT - 1) & ~(size_t)(HEAP_ALIGNMENT - 1));
}

EXPORT void fm_free(void *p) { free(p); }

EXPORT uint32_t fm_version(void) {
  return (uint32_t)FM_VERSION_MAJOR << 16 | (uint32_t)FM_VERSION_MINOR << 8 |
         (uint32_t)FM_VERSION_PATCH;
}

EXPORT int32_t fm_isa(void) { return fm_current.isa; }

EXPORT int32_t fm_select(int32_t isa, int32_t dot) {
  if (isa < FM_ISA_SCALAR || isa > fm_isa_max() || dot < FM_DOT_I16 || dot > FM_DOT_I32)
    return FM_ERR_ISA;
  fm_current.isa = isa;
  fm_current.dot = dot;
  return FM_OK;
}

EXPORT int32_t fm_served_by(int32_t type, int32_t activation) {
  const fm_kernels *kernels = fm_kernels_of(type);
  if (!kernels || activation < FM_ACT_F32 || activation > FM_ACT_INT8) return -1;
  fm_service service = fm_service_of(fm_current.isa, kernels, activation);
  if (service.activation == FM_ACT_INT8_BY_32) service.activation = FM_ACT_INT8;
  return service.isa | service.activation << 8;
}
