/* Limits of the relaxed instructions (limits.h). The dot products are taken as the kernels take
 * them: codes second. */
#include "limits.h"

LIMIT(limit_relaxed_i16, wasm_i16x8_relaxed_dot_i8x16_i7x16(s, w))
LIMIT(limit_relaxed_i16_add, wasm_i16x8_add(wasm_i16x8_relaxed_dot_i8x16_i7x16(s, w), c))
LIMIT(limit_relaxed_i32, wasm_i32x4_relaxed_dot_i8x16_i7x16_add(c, w, s))
LIMIT(limit_relaxed_madd, wasm_f32x4_relaxed_madd(s, w, c))
