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

/* Eight codes of 16 bits, splat of lane i: a constant shuffle, so that no scalar register is needed. */
#define fm_splat_i16_lane(v, i) wasm_i16x8_shuffle(v, v, i, i, i, i, i, i, i, i)
#define fm_splat_i32_lane(v, i) wasm_i32x4_shuffle(v, v, i, i, i, i)

/* Four binary16 (one in the low half of each 32-bit lane, zero above) -> four f32; see formats/f16.h. */
FM_INLINE v128_t fm_f16x4_to_f32x4(v128_t half) {
  v128_t magnitude = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_const_splat(0x7fff)), 13);
  v128_t value = wasm_f32x4_mul(magnitude, wasm_f32x4_const_splat(0x1p112f));
  v128_t special = wasm_v128_and(wasm_i32x4_gt(magnitude, wasm_i32x4_const_splat(0x0f7fffff)),
                                 wasm_v128_or(magnitude, wasm_i32x4_const_splat(0x7f800000)));
  v128_t sign = wasm_i32x4_shl(wasm_v128_and(half, wasm_i32x4_const_splat(0x8000)), 16);
  return wasm_v128_or(wasm_v128_or(value, special), sign);
}

/* a, b, c, d: 16 codes of 4 rows each -> four vectors of 4 codes of each row (the strip's layout):
 *   out[i] = a[4i .. 4i+3] b[4i .. 4i+3] c[4i .. 4i+3] d[4i .. 4i+3] */
FM_INLINE void fm_store_transposed(uint8_t *out, v128_t a, v128_t b, v128_t c, v128_t d) {
  v128_t ab01 = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), cd01 = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5);
  v128_t ab23 = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7), cd23 = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
  wasm_v128_store(out, wasm_i64x2_shuffle(ab01, cd01, 0, 2));
  wasm_v128_store(out + 16, wasm_i64x2_shuffle(ab01, cd01, 1, 3));
  wasm_v128_store(out + 32, wasm_i64x2_shuffle(ab23, cd23, 0, 2));
  wasm_v128_store(out + 48, wasm_i64x2_shuffle(ab23, cd23, 1, 3));
}

/* Stores the first n lanes (1..4), so that an edge tile writes nothing past the last row. */
FM_INLINE void fm_store_lanes_f32(float *y, v128_t v, size_t n, _Bool accumulate) {
  if (n == 4) {
    wasm_v128_store(y, accumulate ? wasm_f32x4_add(wasm_v128_load(y), v) : v);
    return;
  }
  float lane[4];
  wasm_v128_store(lane, v);
  for (size_t i = 0; i < n; i++) y[i] = accumulate ? y[i] + lane[i] : lane[i];
}

#endif
