/* Vector helpers for the SIMD128 and the relaxed kernels. */
#ifndef FM_KERNELS_V128_H
#define FM_KERNELS_V128_H

#include <stddef.h>
#include <stdint.h>
#include <wasm_simd128.h>

#define FM_INLINE static inline __attribute__((always_inline))

FM_INLINE v128_t fm_zero(void) { return wasm_i32x4_splat(0); }

/* Sum of the four lanes, in the fixed order (0 + 2) + (1 + 3). */
FM_INLINE float fm_hsum_f32(v128_t v) {
  v128_t pairs = wasm_f32x4_add(v, wasm_i64x2_shuffle(v, v, 1, 1));
  return wasm_f32x4_extract_lane(pairs, 0) + wasm_f32x4_extract_lane(pairs, 1);
}

/* Constant vectors that stay in a register. V8 builds a v128.const anew at every use, inside loops
 * too, in three instructions. It keeps vectors that are loaded from memory, and the empty assembly
 * hides from the compilers that the value is known. Call these once, ahead of the loops. */
FM_INLINE v128_t fm_hold_i8(int8_t value) {
  const int8_t *p = &value;
  __asm__("" : "+r"(p)::"memory");
  return wasm_v128_load8_splat(p);
}
FM_INLINE v128_t fm_hold_i32(uint32_t value) {
  const uint32_t *p = &value;
  __asm__("" : "+r"(p)::"memory");
  return wasm_v128_load32_splat(p);
}
FM_INLINE v128_t fm_hold(const void *sixteen_bytes) {
  __asm__("" : "+r"(sixteen_bytes));
  return wasm_v128_load(sixteen_bytes);
}

/* Vectors that stay in memory: the compilers cannot see through the pointer. Sums that are used
 * once per sub-block belong there; otherwise V8 spills sums of the inner loop. */
FM_INLINE v128_t *fm_in_memory(v128_t *vectors) {
  __asm__("" : "+r"(vectors)::"memory");
  return vectors;
}

/* The constants of fm_f16x4_to_f32x4. */
typedef struct {
  v128_t sign_and_magnitude, exponent, scale;
} fm_f16_held;

FM_INLINE fm_f16_held fm_hold_f16(void) {
  return (fm_f16_held){fm_hold_i32(0x8fffe000u), fm_hold_i32(0x0f800000u),
                       fm_hold_i32(0x77800000u /* 2^112 */)};
}

/* Converts four binary16, one in each 32-bit lane with zeros above. The arithmetic shift leaves
 * three copies of the sign, which the mask removes; an exponent of all ones becomes that of f32. */
FM_INLINE v128_t fm_f16x4_to_f32x4(v128_t f16, const fm_f16_held *held) {
  v128_t bits = wasm_v128_and(wasm_i32x4_shr(wasm_i32x4_shl(f16, 16), 3), held->sign_and_magnitude);
  v128_t special = wasm_i32x4_eq(wasm_v128_and(bits, held->exponent), held->exponent);
  v128_t ones_above = wasm_u32x4_shr(wasm_i32x4_shl(special, 24), 1); /* 0x7f800000 */
  return wasm_v128_or(wasm_f32x4_mul(bits, held->scale), ones_above);
}

/* Converts one binary16 in half as many instructions as fm_f16_to_f32; only the sign of zero may
 * differ. The table holds, by sign and exponent, a number that is added to the mantissa's bits and
 * one that is subtracted from the value (2^-14 for subnormals). */
typedef struct {
  uint32_t added;
  float subtracted;
} fm_f16_step;
extern const fm_f16_step fm_f16_steps[64];

FM_INLINE float fm_f16_by_table(uint16_t f16) {
  const fm_f16_step *step = &fm_f16_steps[f16 >> 10];
  uint32_t bits = ((uint32_t)(f16 & 0x03ffu) << 13) + step->added;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value - step->subtracted;
}

#define FM_UNROLL _Pragma("clang loop unroll(full)")
#define FM_NO_UNROLL _Pragma("clang loop unroll(disable)")

/* Stores (adds) n_tokens x n_rows of a 4 x 4 patch; out of line, since every matrix-matrix kernel
 * has edges. */
static inline __attribute__((noinline)) void fm_store_edge(float *y, const float patch[4][4],
                                                           size_t n_tokens, size_t y_stride,
                                                           size_t n_rows, _Bool accumulate) {
  for (size_t t = 0; t < n_tokens; t++, y += y_stride) {
    for (size_t r = 0; r < n_rows; r++) y[r] = accumulate ? y[r] + patch[t][r] : patch[t][r];
  }
}

/* Stores (adds) a 4 x 4 patch, of which y has n_tokens (1..4) tokens and n_rows rows (4 or more:
 * all). */
FM_INLINE void fm_store_patch(float *y, const v128_t acc[4], size_t n_tokens, size_t y_stride,
                              size_t n_rows, _Bool accumulate) {
  if (n_tokens < 4 || n_rows < 4) {
    float patch[4][4];
    for (size_t t = 0; t < 4; t++) wasm_v128_store(patch[t], acc[t]);
    fm_store_edge(y, patch, n_tokens, y_stride, n_rows < 4 ? n_rows : 4, accumulate);
    return;
  }
  FM_UNROLL
  for (size_t t = 0; t < 4; t++, y += y_stride) {
    wasm_v128_store(y, accumulate ? wasm_f32x4_add(wasm_v128_load(y), acc[t]) : acc[t]);
  }
}

/* Stores (adds) 8 vectors of 4 tokens each: sums[i] is row i / n_vectors, tokens 4 * (i %
 * n_vectors) and the next three. n_vectors: 1 or 2, a constant. y has n_tokens tokens and n_rows
 * rows of them. */
FM_INLINE void fm_store_sums(float *y, const v128_t sums[8], size_t n_vectors, size_t n_tokens,
                             size_t y_stride, size_t n_rows, _Bool accumulate) {
  FM_UNROLL
  for (size_t i = 0; i < 2; i++) {
    size_t first = n_vectors == 2 ? i : 4 * i, row = n_vectors == 2 ? 0 : 4 * i,
           token = n_vectors == 2 ? 4 * i : 0;
    if (row >= n_rows) break;
    const v128_t *a = sums + first, *b = a + n_vectors, *c = b + n_vectors, *d = c + n_vectors;
    v128_t ab01 = wasm_i32x4_shuffle(*a, *b, 0, 4, 1, 5),
           cd01 = wasm_i32x4_shuffle(*c, *d, 0, 4, 1, 5);
    v128_t ab23 = wasm_i32x4_shuffle(*a, *b, 2, 6, 3, 7),
           cd23 = wasm_i32x4_shuffle(*c, *d, 2, 6, 3, 7);
    const v128_t patch[4] = {
        wasm_i64x2_shuffle(ab01, cd01, 0, 2), wasm_i64x2_shuffle(ab01, cd01, 1, 3),
        wasm_i64x2_shuffle(ab23, cd23, 0, 2), wasm_i64x2_shuffle(ab23, cd23, 1, 3)};
    size_t n = n_tokens - token;
    fm_store_patch(y + token * y_stride + row, patch, n < 4 ? n : 4, y_stride, n_rows - row,
                   accumulate);
  }
}

#endif
