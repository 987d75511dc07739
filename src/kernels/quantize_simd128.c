/* Quantises activations, four lanes at a time, deals and interleaves them. The scalar twin in
 * generic_scalar.c gives the same bits. Contracts: activations.h. */
#include <string.h>

#include "formats/f16.h"
#include "kernels/activations.h"
#include "kernels/v128.h"

typedef struct {
  v128_t lift, inverse;
  float d;
  _Bool finite;
} quant_scale;

/* The largest |x| of n columns, as bits: their order puts NaN above Inf above every number. n: a
 * multiple of 8. */
static uint32_t max_magnitude_bits(const float *x, size_t n) {
  v128_t mask = wasm_i32x4_const_splat(0x7fffffff), max0 = fm_zero(), max1 = fm_zero();
  for (size_t i = 0; i < n; i += 8) {
    max0 = wasm_u32x4_max(max0, wasm_v128_and(wasm_v128_load(x + i), mask));
    max1 = wasm_u32x4_max(max1, wasm_v128_and(wasm_v128_load(x + i + 4), mask));
  }
  max0 = wasm_u32x4_max(max0, max1);
  max0 = wasm_u32x4_max(max0, wasm_i32x4_shuffle(max0, max0, 2, 3, 0, 1));
  max0 = wasm_u32x4_max(max0, wasm_i32x4_shuffle(max0, max0, 1, 0, 3, 2));
  return (uint32_t)wasm_i32x4_extract_lane(max0, 0);
}

static quant_scale scale_for(uint32_t max_bits, float levels) {
  if (max_bits >= 0x7f800000u)
    return (quant_scale){fm_zero(), fm_zero(), fm_f32_from_bits(0x7fc00000u), 0};
  if (max_bits == 0) return (quant_scale){wasm_f32x4_splat(1.0f), fm_zero(), 0.0f, 1};
  float max = fm_f32_from_bits(max_bits);
  float lift = max < 0x1p-64f ? 0x1p64f : 1.0f;
  return (quant_scale){wasm_f32x4_splat(lift), wasm_f32x4_splat(levels / (max * lift)),
                       max / levels, 1};
}

/* Nearest integers, ties to even: 1.5 * 2^23 pushes the fraction out of the mantissa. */
FM_INLINE v128_t quantize4(const float *x, quant_scale s) {
  v128_t scaled = wasm_f32x4_mul(wasm_f32x4_mul(wasm_v128_load(x), s.lift), s.inverse);
  return wasm_i32x4_sub(wasm_f32x4_add(scaled, wasm_f32x4_const_splat(0x1.8p23f)),
                        wasm_i32x4_const_splat(0x4b400000));
}

FM_INLINE int32_t hsum_i32(v128_t v) {
  v = wasm_i32x4_add(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_i32x4_extract_lane(v, 0) + wasm_i32x4_extract_lane(v, 1);
}

/* 16 columns of int16, as two vectors, and their sum. */
typedef struct {
  v128_t lo, hi;
  int32_t sum;
} quant16;

FM_INLINE quant16 quantize16(const float *x, quant_scale s) {
  v128_t ones = wasm_i16x8_const_splat(1);
  quant16 out;
  out.lo = wasm_i16x8_narrow_i32x4(quantize4(x, s), quantize4(x + 4, s));
  out.hi = wasm_i16x8_narrow_i32x4(quantize4(x + 8, s), quantize4(x + 12, s));
  out.sum = hsum_i32(
      wasm_i32x4_add(wasm_i32x4_dot_i16x8(out.lo, ones), wasm_i32x4_dot_i16x8(out.hi, ones)));
  return out;
}

/* The next block of x: x itself, or where fewer than 256 columns are left a copy padded with
 * zeros. */
static const float *next_block(const float *x, size_t n_cols, float padded[FM_ACT_COLS]) {
  if (n_cols >= FM_ACT_COLS) return x;
  memset(padded, 0, FM_ACT_COLS * sizeof *padded);
  memcpy(padded, x, n_cols * sizeof *padded);
  return padded;
}

/* scale_cols: columns that share a scale, 32 or 256. */
static __attribute__((noinline)) void quantize_i8(const float *x, fm_act_i8 *out, size_t n_cols,
                                                  size_t scale_cols) {
  float padded[FM_ACT_COLS];
  for (size_t c = 0; c < n_cols; c += FM_ACT_COLS, out++) {
    const float *block = next_block(x + c, n_cols - c, padded);
    quant_scale s = {0};
    FM_NO_UNROLL
    for (size_t i = 0; i < FM_ACT_COLS; i += FM_ACT_SUB) {
      if (i % scale_cols == 0) s = scale_for(max_magnitude_bits(block + i, scale_cols), 127.0f);
      quant16 a = {fm_zero(), fm_zero(), 0}, b = a;
      if (s.finite) {
        a = quantize16(block + i, s);
        b = quantize16(block + i + 16, s);
      }
      wasm_v128_store(out->q + i, wasm_i8x16_narrow_i16x8(a.lo, a.hi));
      wasm_v128_store(out->q + i + 16, wasm_i8x16_narrow_i16x8(b.lo, b.hi));
      out->sum16[i / 16] = (int16_t)a.sum;
      out->sum16[i / 16 + 1] = (int16_t)b.sum;
      out->sum32[i / 32] = (int16_t)(a.sum + b.sum);
      fm_act_set_scale(out, i / FM_ACT_SUB, s.d, scale_cols == FM_ACT_SUB);
    }
  }
}

void fm_quantize_i8__simd128(const float *x, void *blocks, size_t n_cols) {
  quantize_i8(x, blocks, n_cols, FM_ACT_COLS);
}

void fm_quantize_i8_by_32__simd128(const float *x, void *blocks, size_t n_cols) {
  quantize_i8(x, blocks, n_cols, FM_ACT_SUB);
}

void fm_quantize_i16__simd128(const float *x, void *blocks, size_t n_cols) {
  fm_act_i16 *out = blocks;
  float padded[FM_ACT_COLS];
  for (size_t c = 0; c < n_cols; c += FM_ACT_COLS, out++) {
    const float *block = next_block(x + c, n_cols - c, padded);
    quant_scale s = scale_for(max_magnitude_bits(block, FM_ACT_COLS), 32767.0f);
    out->d = s.d;
    if (!s.finite) {
      memset(out, 0, offsetof(fm_act_i16, d));
      continue;
    }
    for (int i = 0; i < FM_ACT_COLS; i += 32) {
      quant16 a = quantize16(block + i, s), b = quantize16(block + i + 16, s);
      wasm_v128_store(out->q + i, a.lo);
      wasm_v128_store(out->q + i + 8, a.hi);
      wasm_v128_store(out->q + i + 16, b.lo);
      wasm_v128_store(out->q + i + 24, b.hi);
      out->sum16[i / 16] = (float)a.sum;
      out->sum16[i / 16 + 1] = (float)b.sum;
      out->sum32[i / 32] = (float)(a.sum + b.sum);
    }
  }
}

void fm_deal_i16__simd128(void *blocks, size_t n_blocks) {
  fm_act_i16 *x = blocks;
  for (size_t b = 0; b < n_blocks; b++) {
    FM_NO_UNROLL
    for (size_t c = 0; c < FM_ACT_COLS; c += 16) {
      v128_t lo = wasm_v128_load(x[b].q + c), hi = wasm_v128_load(x[b].q + c + 8);
      wasm_v128_store(x[b].q + c, wasm_i16x8_shuffle(lo, hi, 0, 2, 4, 6, 8, 10, 12, 14));
      wasm_v128_store(x[b].q + c + 8, wasm_i16x8_shuffle(lo, hi, 1, 3, 5, 7, 9, 11, 13, 15));
    }
  }
}

/* Transposes 4 x 4 values of 32 bits: out[i] = {a[i], b[i], c[i], d[i]}. A value is 4 int8, 2 int16
 * or an f32. */
FM_INLINE void store_transposed(void *out, v128_t a, v128_t b, v128_t c, v128_t d) {
  v128_t ab01 = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), cd01 = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5);
  v128_t ab23 = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7), cd23 = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
  uint8_t *to = out;
  wasm_v128_store(to, wasm_i64x2_shuffle(ab01, cd01, 0, 2));
  wasm_v128_store(to + 16, wasm_i64x2_shuffle(ab01, cd01, 1, 3));
  wasm_v128_store(to + 32, wasm_i64x2_shuffle(ab23, cd23, 0, 2));
  wasm_v128_store(to + 48, wasm_i64x2_shuffle(ab23, cd23, 1, 3));
}

/* Interleaves n_vectors vectors of each token, `at` bytes into its block. */
FM_INLINE void interleave(uint8_t *out, const uint8_t *const token[FM_TILE_TOKENS], size_t at,
                          size_t n_vectors) {
  FM_NO_UNROLL
  for (size_t i = at; i < at + 16 * n_vectors; i += 16, out += 64) {
    store_transposed(out, wasm_v128_load(token[0] + i), wasm_v128_load(token[1] + i),
                     wasm_v128_load(token[2] + i), wasm_v128_load(token[3] + i));
  }
}

/* Widens pairs of int16 sums to int32 sums, one vector each. */
FM_INLINE void widen(int32_t *out, const int16_t *pairs, size_t n_vectors) {
  FM_NO_UNROLL
  for (size_t i = 0; i < n_vectors; i++, out += 8, pairs += 8) {
    v128_t pair = wasm_v128_load(pairs);
    wasm_v128_store(out, wasm_i32x4_shr(wasm_i32x4_shl(pair, 16), 16));
    wasm_v128_store(out + 4, wasm_i32x4_shr(pair, 16));
  }
}

void fm_interleave_i8__simd128(const void *blocks, size_t n_tokens, size_t n_blocks, void *tiles) {
  const fm_act_i8 *x = blocks;
  fm_act_tile_i8 *out = tiles;
  for (size_t b = 0; b < n_blocks; b++, out++) {
    const uint8_t *token[FM_TILE_TOKENS];
    for (size_t t = 0; t < FM_TILE_TOKENS; t++) {
      token[t] = (const uint8_t *)(x + (t < n_tokens ? t : n_tokens - 1) * n_blocks + b);
    }
    interleave((uint8_t *)out->q, token, offsetof(fm_act_i8, q), FM_ACT_COLS / 16);
    interleave((uint8_t *)out->pair16, token, offsetof(fm_act_i8, sum16), 2);
    interleave((uint8_t *)out->pair32, token, offsetof(fm_act_i8, sum32), 1);
    interleave((uint8_t *)out->d, token, offsetof(fm_act_i8, d), 4); /* s follows */
    widen(out->sum16[0], out->pair16[0][0], 8);
    widen(out->sum32[0], out->pair32[0][0], 4);
  }
}

void fm_interleave_i16__simd128(const void *blocks, size_t n_tokens, size_t n_blocks, void *tiles) {
  const fm_act_i16 *x = blocks;
  fm_act_tile_i16 *out = tiles;
  for (size_t b = 0; b < n_blocks; b++, out++) {
    const uint8_t *token[FM_TILE_TOKENS];
    for (size_t t = 0; t < FM_TILE_TOKENS; t++) {
      const fm_act_i16 *from = x + (t < n_tokens ? t : n_tokens - 1) * n_blocks + b;
      token[t] = (const uint8_t *)from;
      out->d[t] = from->d;
    }
    interleave((uint8_t *)out->q, token, offsetof(fm_act_i16, q), FM_ACT_COLS / 8);
    interleave((uint8_t *)out->sum16, token, offsetof(fm_act_i16, sum16), 4);
    interleave((uint8_t *)out->sum32, token, offsetof(fm_act_i16, sum32), 2);
  }
}
