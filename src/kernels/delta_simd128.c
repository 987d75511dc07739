/* The gated delta net, SIMD128: each product is rounded before it is added. Contracts: delta.h. */
#include <wasm_simd128.h>

#define FM_MADD(a, b, sum) wasm_f32x4_add(sum, wasm_f32x4_mul(a, b))
#include "kernels/delta_vectors.h"

const fm_delta_kernels fm_delta__simd128 = {.products = products, .step = step};
