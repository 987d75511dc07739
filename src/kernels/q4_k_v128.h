/* Q4_K pieces that the SIMD128 and the relaxed kernels share. Layout: formats/blocks.h. */
#ifndef FM_KERNELS_Q4_K_V128_H
#define FM_KERNELS_Q4_K_V128_H

#include "formats/blocks.h"
#include "kernels/q4_k.h"
#include "kernels/v128.h"

FM_INLINE v128_t fm_low_nibbles(v128_t packed) { return wasm_v128_and(packed, wasm_i8x16_const_splat(15)); }

/* A 16-bit shift and a mask: x86 has no byte shift. */
FM_INLINE v128_t fm_high_nibbles(v128_t packed) { return fm_low_nibbles(wasm_u16x8_shr(packed, 4)); }

/* {d, dmin, 0, 0} of a block, as f32: one load of the two neighbouring halves. */
FM_INLINE v128_t fm_q4_k_d_dmin(const void *block) {
  return fm_f16x4_to_f32x4(wasm_u32x4_extend_low_u16x8(wasm_v128_load32_zero(block)));
}

/* Eight bytes of a 64-bit integer as eight 16-bit lanes. */
FM_INLINE v128_t fm_bytes_to_i16x8(uint64_t bytes) {
  return wasm_u16x8_extend_low_u8x16(wasm_i64x2_make((int64_t)bytes, 0));
}

/* The 256 columns of one block of each of 4 rows, in the strip's layout. */
FM_INLINE void fm_strip_q4_k_codes(const fm_block_q4_k *const b[4], uint8_t *out) {
  for (size_t i = 0; i < 8; i++, out += i % 2 ? 64 : 192) {
    v128_t v0 = wasm_v128_load(b[0]->qs + 16 * i), v1 = wasm_v128_load(b[1]->qs + 16 * i);
    v128_t v2 = wasm_v128_load(b[2]->qs + 16 * i), v3 = wasm_v128_load(b[3]->qs + 16 * i);
    fm_store_transposed(out, fm_low_nibbles(v0), fm_low_nibbles(v1), fm_low_nibbles(v2), fm_low_nibbles(v3));
    fm_store_transposed(out + 128, fm_high_nibbles(v0), fm_high_nibbles(v1), fm_high_nibbles(v2), fm_high_nibbles(v3));
  }
}

#endif
