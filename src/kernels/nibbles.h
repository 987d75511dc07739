/* Four-bit codes, and tables of 16 bytes they index. */
#ifndef FM_KERNELS_NIBBLES_H
#define FM_KERNELS_NIBBLES_H

#include "formats/tables.h"
#include "kernels/v128.h"

FM_INLINE v128_t fm_low_nibbles(v128_t packed) { return wasm_v128_and(packed, wasm_i8x16_const_splat(15)); }

/* A 16-bit shift and a mask: x86 has no byte shift. */
FM_INLINE v128_t fm_high_nibbles(v128_t packed) { return fm_low_nibbles(wasm_u16x8_shr(packed, 4)); }

/* table[index] for 16 indices of 0..15, where every engine's swizzle agrees. */
FM_INLINE v128_t fm_lookup(v128_t table, v128_t index) {
#ifdef __wasm_relaxed_simd__
  return wasm_i8x16_relaxed_swizzle(table, index);
#else
  return wasm_i8x16_swizzle(table, index);
#endif
}

FM_INLINE v128_t fm_iq4_lookup(void) { return wasm_v128_load(fm_iq4_values); }

#endif
