/* The gated delta net, relaxed: products and sums are one instruction where the processor has
 * it. Contracts: delta.h. */
#include <wasm_simd128.h>

#define FM_MADD(a, b, sum) wasm_f32x4_relaxed_madd(a, b, sum)
#include "kernels/delta_vectors.h"

const fm_delta_kernels fm_delta__relaxed = {.products = products, .step = step};
