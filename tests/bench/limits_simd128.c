/* Limits of SIMD128 (limits.h), and of memory. */
#include "limits.h"

LIMIT(limit_dot_i16x8, wasm_i32x4_dot_i16x8(s, w))
LIMIT(limit_dot_i16x8_add, wasm_i32x4_add(wasm_i32x4_dot_i16x8(s, w), c))
LIMIT(limit_f32_mul_add, wasm_f32x4_add(wasm_f32x4_mul(s, w), c))

/* The plainest read loop: what the memory gives one core. bytes is a multiple of 64. */
EXPORT int32_t limit_read(const uint8_t *p, size_t bytes) {
  v128_t sum[4] = {fm_zero(), fm_zero(), fm_zero(), fm_zero()};
  FM_NO_UNROLL
  for (const uint8_t *end = p + bytes; p < end; p += 64) {
    FM_UNROLL
    for (size_t i = 0; i < 4; i++) sum[i] = wasm_i32x4_add(sum[i], wasm_v128_load(p + 16 * i));
  }
  return wasm_i32x4_extract_lane(
      wasm_i32x4_add(wasm_i32x4_add(sum[0], sum[1]), wasm_i32x4_add(sum[2], sum[3])), 0);
}
