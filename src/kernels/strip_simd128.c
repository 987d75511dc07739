/* Strips and dequantisation of coded types, SIMD128, for every type. Layout: strip.h. */
#include "kernels/decoder.h"
#include "kernels/group.h"
#include "kernels/unpacked.h"
#include "kernels/wide_dot.h"

/* Adds a number to each of n_codes codes, a multiple of 16. */
FM_INLINE void add_to_codes(uint8_t *codes, size_t n_codes, int32_t added) {
  v128_t addend = wasm_i8x16_splat((int8_t)added);
  FM_NO_UNROLL
  for (size_t c = 0; c < n_codes; c += 16)
    wasm_v128_store(codes + c, wasm_i8x16_add(wasm_v128_load(codes + c), addend));
}

FM_INLINE void strip_part_i8(const fm_simd128_kernels *type, fm_row_part part, bool dot32,
                             int32_t added, fm_strip *strip, size_t r) {
  size_t at = part.first * (FM_GROUP_COLS / type->layout->sub);
  uint8_t *codes = strip->code.i8[r] + part.first * FM_GROUP_COLS;
  type->unpack(part.group, part.n, codes);
  if (added) add_to_codes(codes, part.n * FM_GROUP_COLS, added);
  if (type->layout->kind == FM_SCALES_K) {
    fm_strip_k_row out = {&strip->k.scale[r][at], &strip->k.min[r][at], &strip->k.d[r][part.first],
                          &strip->k.dmin[r][part.first]};
    fm_k_scales__simd128(type, part.group, part.n, dot32, out);
  } else {
    fm_f32_scales__simd128(type, part.group, part.n, &strip->f32.scale[r][at],
                           &strip->f32.min[r][at]);
  }
}

FM_INLINE void strip_part_i16(const fm_simd128_kernels *type, fm_row_part part, fm_strip *strip,
                              size_t r) {
  size_t at = part.first * (FM_GROUP_COLS / type->layout->sub);
  int16_t *out = strip->code.i16[r] + part.first * FM_GROUP_COLS;
  uint8_t codes[FM_STRIP_COLS];
  type->unpack(part.group, part.n, codes);
  v128_t bias = wasm_i8x16_splat((int8_t)type->layout->bias);
  FM_NO_UNROLL
  for (size_t c = 0; c < part.n * FM_GROUP_COLS; c += 16) {
    v128_t code = wasm_i8x16_sub(wasm_v128_load(codes + c), bias);
    wasm_v128_store(out + c, wasm_i16x8_extend_low_i8x16(code));
    wasm_v128_store(out + c + 8, wasm_i16x8_extend_high_i8x16(code));
  }
  fm_f32_scales__simd128(type, part.group, part.n, &strip->f32.scale[r][at],
                         &strip->f32.min[r][at]);
}

static void strip_i8(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS],
                     size_t n_values, bool dot32, fm_strip *strip) {
  uint8_t padded[FM_MAX_GROUP_BYTES];
  int32_t added = type->layout->wide ? fm_wide_bias(fm_wide_dot_of_engine) : 0;
  for (size_t r = 0; r < FM_STRIP_ROWS; r++) {
    FM_NO_UNROLL
    for (size_t first = 0; first * FM_GROUP_COLS < n_values;) {
      fm_row_part part = fm_part_of(type->layout, row[r], first, n_values, padded);
      strip_part_i8(type, part, dot32, added, strip, r);
      first += part.n;
    }
  }
}

void fm_strip_i8_dot16__simd128(const fm_simd128_kernels *type,
                                const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                                fm_strip *strip) {
  strip_i8(type, row, n_values, false, strip);
}

void fm_strip_i8_dot32__simd128(const fm_simd128_kernels *type,
                                const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                                fm_strip *strip) {
  strip_i8(type, row, n_values, true, strip);
}

void fm_strip_i16__simd128(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS],
                           size_t n_values, fm_strip *strip) {
  uint8_t padded[FM_MAX_GROUP_BYTES];
  for (size_t r = 0; r < FM_STRIP_ROWS; r++) {
    FM_NO_UNROLL
    for (size_t first = 0; first * FM_GROUP_COLS < n_values;) {
      fm_row_part part = fm_part_of(type->layout, row[r], first, n_values, padded);
      strip_part_i16(type, part, strip, r);
      first += part.n;
    }
  }
}

/* Dequantises 16 columns: value = scale * (code - bias) - min, in the order of formats/codes.h, so
 * the same bits as the scalar kernel. */
FM_INLINE void dequantize16(v128_t codes, float scale, float min, bool has_min, float *y) {
  v128_t lo = wasm_i16x8_extend_low_i8x16(codes), hi = wasm_i16x8_extend_high_i8x16(codes);
  v128_t quads[4] = {wasm_i32x4_extend_low_i16x8(lo), wasm_i32x4_extend_high_i16x8(lo),
                     wasm_i32x4_extend_low_i16x8(hi), wasm_i32x4_extend_high_i16x8(hi)};
  for (size_t k = 0; k < 4; k++) {
    v128_t value = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(quads[k]), wasm_f32x4_splat(scale));
    if (has_min) value = wasm_f32x4_sub(value, wasm_f32x4_splat(min));
    wasm_v128_store(y + 4 * k, value);
  }
}

void fm_dequantize_codes__simd128(const fm_simd128_kernels *type, const uint8_t *w, float *y,
                                  size_t n_values) {
  const fm_layout *layout = type->layout;
  uint8_t padded[FM_MAX_GROUP_BYTES], codes[FM_GROUP_COLS];
  float scale[16], min[16] = {0};
  v128_t bias = wasm_i8x16_splat((int8_t)layout->bias);
  for (size_t c = 0; c < n_values;
       c += FM_GROUP_COLS, w += layout->group_bytes, y += FM_GROUP_COLS) {
    const uint8_t *group = fm_group(layout, w, n_values - c, padded);
    type->unpack(group, 1, codes);
    fm_f32_scales__simd128(type, group, 1, scale, min);
    size_t n = n_values - c < FM_GROUP_COLS ? n_values - c : FM_GROUP_COLS;
    for (size_t i = 0; i < n; i += 16) {
      size_t sub = i / layout->sub;
      dequantize16(wasm_i8x16_sub(wasm_v128_load(codes + i), bias), scale[sub], min[sub],
                   layout->has_min, y + i);
    }
  }
}
