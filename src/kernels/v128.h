/* Vector helpers under one name each, for the SIMD128 and the relaxed kernels. */
#ifndef FM_KERNELS_V128_H
#define FM_KERNELS_V128_H

#include <stddef.h>
#include <stdint.h>
#include <wasm_simd128.h>

#define FM_INLINE static inline __attribute__((always_inline))

FM_INLINE v128_t fm_zero(void) { return wasm_i32x4_splat(0); }

/* Sum of the four lanes, in the fixed order (0 + 2) + (1 + 3). */
FM_INLINE float fm_hsum_f32(v128_t v) {
  v128_t half = wasm_f32x4_add(v, wasm_i64x2_shuffle(v, v, 1, 1));
  return wasm_f32x4_extract_lane(half, 0) + wasm_f32x4_extract_lane(half, 1);
}

/* Four binary16 (one in the low half of each 32-bit lane, zero above) -> four f32; see formats/f16.h. */
FM_INLINE v128_t fm_f16x4_to_f32x4(v128_t half) {
  v128_t magnitude = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_const_splat(0x7fff)), 13);
  v128_t value = wasm_f32x4_mul(magnitude, wasm_f32x4_const_splat(0x1p112f));
  v128_t special = wasm_v128_and(wasm_i32x4_gt(magnitude, wasm_i32x4_const_splat(0x0f7fffff)),
                                 wasm_v128_or(magnitude, wasm_i32x4_const_splat(0x7f800000)));
  v128_t sign = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_const_splat(0x8000)), 16);
  return wasm_v128_or(wasm_v128_or(value, special), sign);
}

#define FM_UNROLL _Pragma("clang loop unroll(full)")
#define FM_NO_UNROLL _Pragma("clang loop unroll(disable)")

#define FM_TILE_TOKENS 4 /* tokens a matrix-matrix kernel holds in registers */

/* Stores (adds) the n_tokens x n_rows corner of a tile, so that an edge tile writes nothing outside of y. */
FM_INLINE void fm_store_tile(float *y, const v128_t acc[FM_TILE_TOKENS], size_t n_tokens, size_t y_stride,
                             size_t n_rows, _Bool accumulate) {
  if (n_tokens == FM_TILE_TOKENS && n_rows == 4) {
    FM_UNROLL
    for (size_t t = 0; t < FM_TILE_TOKENS; t++, y += y_stride) {
      wasm_v128_store(y, accumulate ? wasm_f32x4_add(wasm_v128_load(y), acc[t]) : acc[t]);
    }
    return;
  }
  float value[FM_TILE_TOKENS][4];
  for (size_t t = 0; t < FM_TILE_TOKENS; t++) wasm_v128_store(value[t], acc[t]);
  FM_NO_UNROLL
  for (size_t t = 0; t < n_tokens; t++, y += y_stride) {
    FM_NO_UNROLL
    for (size_t r = 0; r < n_rows; r++) y[r] = accumulate ? y[r] + value[t][r] : value[t][r];
  }
}

#endif
