/* Strips and dequantisation of coded types, SIMD128: one code for every type, over its codes and scales. Layout: strip.h. */
#include "kernels/group.h"

#define GROUP_COLS 256

/* A 4 x 4 transpose of 32-bit values: out[i] = {row[0][i], row[1][i], row[2][i], row[3][i]}, `step` bytes apart. A value may be
 * 4 codes, a pair of int16 scales or an f32. */
FM_INLINE void store_transposed(void *out, size_t step, const v128_t row[4]) {
  v128_t ab01 = wasm_i32x4_shuffle(row[0], row[1], 0, 4, 1, 5), cd01 = wasm_i32x4_shuffle(row[2], row[3], 0, 4, 1, 5);
  v128_t ab23 = wasm_i32x4_shuffle(row[0], row[1], 2, 6, 3, 7), cd23 = wasm_i32x4_shuffle(row[2], row[3], 2, 6, 3, 7);
  uint8_t *to = out;
  wasm_v128_store(to, wasm_i64x2_shuffle(ab01, cd01, 0, 2));
  wasm_v128_store(to + step, wasm_i64x2_shuffle(ab01, cd01, 1, 3));
  wasm_v128_store(to + 2 * step, wasm_i64x2_shuffle(ab23, cd23, 0, 2));
  wasm_v128_store(to + 3 * step, wasm_i64x2_shuffle(ab23, cd23, 1, 3));
}

FM_INLINE void strip_vectors(uint8_t (*codes)[GROUP_COLS], v128_t addend, bool has_addend, uint8_t *out) {
  FM_NO_UNROLL
  for (size_t c = 0; c < GROUP_COLS; c += 16, out += 4 * 4 * FM_STRIP_ROWS) {
    v128_t row[4];
    for (size_t r = 0; r < 4; r++) {
      row[r] = wasm_v128_load(codes[r] + c);
      if (has_addend) row[r] = wasm_i8x16_add(row[r], addend);
    }
    store_transposed(out, 4 * FM_STRIP_ROWS, row);
  }
}

/* The codes of 256 columns of 4 rows, plus `added`. */
FM_INLINE void strip_codes(const fm_simd128_kernels *type, const uint8_t *const group[4], int32_t added, uint8_t *out) {
  uint8_t codes[4][GROUP_COLS];
  FM_NO_UNROLL
  for (size_t r = 0; r < 4; r++) type->unpack(group[r], codes[r]);
  if (added) {
    strip_vectors(codes, wasm_i8x16_splat((int8_t)added), true, out);
  } else {
    strip_vectors(codes, fm_zero(), false, out);
  }
}

/* The f32 scales and mins (bias * scale where there is a bias) of 256 columns of rows first .. first + 3; every second entry where sub is 32. */
FM_INLINE void strip_f32_scales(const fm_simd128_kernels *type, const uint8_t *const group[4], fm_strip *strip,
                                size_t first, size_t first_col, int32_t bias) {
  v128_t biases = wasm_f32x4_splat((float)bias);
  float scale[4][16], min[4][16] = {{0}};
  FM_NO_UNROLL
  for (size_t r = 0; r < 4; r++) type->f32_scales(group[r], scale[r], min[r]);
  size_t per_sub = type->layout->sub / 16, entry = first_col / 16, step = per_sub * sizeof strip->f32.scale[0];
  FM_NO_UNROLL
  for (size_t s = 0; s < 16 / per_sub; s += 4, entry += 4 * per_sub) {
    v128_t row[4];
    for (size_t r = 0; r < 4; r++) row[r] = wasm_v128_load(scale[r] + s);
    store_transposed(&strip->f32.scale[entry][first], step, row);
    for (size_t r = 0; r < 4; r++) {
      row[r] = bias ? wasm_f32x4_mul(row[r], biases) : wasm_v128_load(min[r] + s);
    }
    store_transposed(&strip->f32.min[entry][first], step, row);
  }
}

/* The integer scales and mins of 256 columns of rows first .. first + 3. Pairs of int16 move as one 32-bit value. */
FM_INLINE void strip_k_scales(const fm_simd128_kernels *type, const uint8_t *const group[4], fm_strip *strip,
                              size_t first, size_t first_col) {
  size_t block = first_col / GROUP_COLS, per_sub = type->layout->sub / 16;
  fm_k_scales s[4];
  FM_NO_UNROLL
  for (size_t r = 0; r < 4; r++) {
    type->k_scales(group[r], &s[r]);
    strip->i16.d[block][first + r] = s[r].d;
    strip->i16.dmin[block][first + r] = s[r].dmin;
  }
  v128_t bias = wasm_i16x8_splat((int16_t)type->layout->bias);
  size_t step = per_sub * sizeof strip->i16.scale[0];
  FM_NO_UNROLL
  for (size_t sub = 0; sub < 16 / per_sub; sub += 8) {
    v128_t lo[4], hi[4], pairs[4];
    for (size_t r = 0; r < 4; r++) {
      v128_t scales = wasm_v128_load(s[r].scale + sub);
      lo[r] = wasm_i16x8_shuffle(scales, scales, 0, 0, 1, 1, 2, 2, 3, 3);
      hi[r] = wasm_i16x8_shuffle(scales, scales, 4, 4, 5, 5, 6, 6, 7, 7);
      pairs[r] = type->layout->has_min ? wasm_v128_load(s[r].min + sub) : wasm_i16x8_mul(scales, bias);
    }
    size_t entry = 16 * block + sub * per_sub;
    store_transposed(strip->i16.scale[entry][first], step, lo);
    store_transposed(strip->i16.scale[entry + 4 * per_sub][first], step, hi);
    store_transposed(strip->i16.min[8 * block + sub / 2][first], sizeof strip->i16.min[0], pairs);
  }
}

static __attribute__((noinline)) void make_strip(const fm_simd128_kernels *type,
                                                 const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                                                 fm_strip *strip, bool for_i8) {
  const fm_layout *layout = type->layout;
  uint8_t padded[4][FM_MAX_GROUP_BYTES];
  /* int8: codes must not be negative (or stay as they are where the engine takes signed ones); int16: they are signed. */
  int32_t added = for_i8 ? (layout->wide ? fm_wide_bias(fm_current.wide) : 0) : -layout->bias;
  int32_t bias = for_i8 ? layout->bias + added : 0;
  for (size_t c = 0; c < n_values; c += GROUP_COLS) {
    FM_NO_UNROLL
    for (size_t first = 0; first < FM_STRIP_ROWS; first += 4) {
      const uint8_t *group[4];
      for (size_t r = 0; r < 4; r++) {
        group[r] = fm_group(layout, row[first + r] + c / GROUP_COLS * layout->group_bytes, n_values - c, padded[r]);
      }
      strip_codes(type, group, added, strip->code[c / 4][first]);
      if (for_i8 && layout->kind == FM_SCALES_K && !layout->wide) {
        strip_k_scales(type, group, strip, first, c);
      } else {
        strip_f32_scales(type, group, strip, first, c, bias);
      }
    }
  }
}

void fm_strip_i8__simd128(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                          fm_strip *strip) {
  make_strip(type, row, n_values, strip, true);
}

void fm_strip_i16__simd128(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                           fm_strip *strip) {
  make_strip(type, row, n_values, strip, false);
}

/* 16 columns: value = scale * (code - bias) - min, in the order of formats/codes.h, so bit for bit the scalar one's. */
FM_INLINE void dequantize16(v128_t codes, float scale, float min, bool has_min, float *y) {
  v128_t lo = wasm_i16x8_extend_low_i8x16(codes), hi = wasm_i16x8_extend_high_i8x16(codes);
  v128_t quads[4] = {wasm_i32x4_extend_low_i16x8(lo), wasm_i32x4_extend_high_i16x8(lo), wasm_i32x4_extend_low_i16x8(hi),
                     wasm_i32x4_extend_high_i16x8(hi)};
  for (size_t k = 0; k < 4; k++) {
    v128_t value = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(quads[k]), wasm_f32x4_splat(scale));
    if (has_min) value = wasm_f32x4_sub(value, wasm_f32x4_splat(min));
    wasm_v128_store(y + 4 * k, value);
  }
}

void fm_dequantize_codes__simd128(const fm_simd128_kernels *type, const uint8_t *w, float *y, size_t n_values) {
  const fm_layout *layout = type->layout;
  uint8_t padded[FM_MAX_GROUP_BYTES], codes[GROUP_COLS];
  float scale[16], min[16] = {0};
  v128_t bias = wasm_i8x16_splat((int8_t)layout->bias);
  for (size_t c = 0; c < n_values; c += GROUP_COLS, w += layout->group_bytes, y += GROUP_COLS) {
    const uint8_t *group = fm_group(layout, w, n_values - c, padded);
    type->unpack(group, codes);
    type->f32_scales(group, scale, min);
    size_t n = n_values - c < GROUP_COLS ? n_values - c : GROUP_COLS;
    for (size_t i = 0; i < n; i += 16) {
      size_t sub = i / layout->sub;
      dequantize16(wasm_i8x16_sub(wasm_v128_load(codes + i), bias), scale[sub], min[sub], layout->has_min, y + i);
    }
  }
}
