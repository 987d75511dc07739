/* Tables of 16 bytes that four-bit codes index. */
#ifndef FM_KERNELS_NIBBLES_H
#define FM_KERNELS_NIBBLES_H

#include "formats/tables.h"
#include "kernels/v128.h"

/* table[index] for 16 indices of 0..15, where every engine's swizzle agrees. */
FM_INLINE v128_t fm_lookup(v128_t table, v128_t index) {
#ifdef __wasm_relaxed_simd__
  return wasm_i8x16_relaxed_swizzle(table, index);
#else
  return wasm_i8x16_swizzle(table, index);
#endif
}

#endif
