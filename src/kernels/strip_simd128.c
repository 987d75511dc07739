/* Strips and dequantisation of coded types, SIMD128: one code for every type, over its codes and scales. Layout: strip.h. */
#include "kernels/group.h"

#define GROUP_COLS 256

/* The codes of 256 columns, each plus `added`. */
FM_INLINE void strip_codes_i8(const fm_simd128_kernels *type, const uint8_t *group, int32_t added, uint8_t *out) {
  type->unpack(group, out);
  if (!added) return;
  v128_t addend = wasm_i8x16_splat((int8_t)added);
  FM_NO_UNROLL
  for (size_t c = 0; c < GROUP_COLS; c += 16) {
    wasm_v128_store(out + c, wasm_i8x16_add(wasm_v128_load(out + c), addend));
  }
}

FM_INLINE void strip_codes_i16(const fm_simd128_kernels *type, const uint8_t *group, int16_t *out) {
  uint8_t codes[GROUP_COLS];
  type->unpack(group, codes);
  v128_t bias = wasm_i8x16_splat((int8_t)type->layout->bias);
  FM_NO_UNROLL
  for (size_t c = 0; c < GROUP_COLS; c += 16) {
    v128_t code = wasm_i8x16_sub(wasm_v128_load(codes + c), bias);
    wasm_v128_store(out + c, wasm_i16x8_extend_low_i8x16(code));
    wasm_v128_store(out + c + 8, wasm_i16x8_extend_high_i8x16(code));
  }
}

/* The integer scales and mins of row r, block b: see strip.h. */
FM_INLINE void strip_k_scales(const fm_simd128_kernels *type, const uint8_t *group, fm_strip *strip, size_t r, size_t b,
                              bool dot32) {
  fm_k_scales s;
  type->k_scales(group, &s);
  strip->k.d[r][b] = s.d;
  strip->k.dmin[r][b] = s.dmin;
  size_t n_subs = GROUP_COLS / type->layout->sub;
  v128_t bias = wasm_i16x8_splat((int16_t)type->layout->bias);
  FM_NO_UNROLL
  for (size_t sub = 0; sub < n_subs; sub += 8) {
    v128_t scales = wasm_v128_load(s.scale + sub);
    int32_t *to = &strip->k.scale[r][b * n_subs + sub];
    if (dot32) {
      wasm_v128_store(to, wasm_i32x4_extend_low_i16x8(scales));
      wasm_v128_store(to + 4, wasm_i32x4_extend_high_i16x8(scales));
    } else {
      wasm_v128_store(to, wasm_i16x8_shuffle(scales, scales, 0, 0, 1, 1, 2, 2, 3, 3));
      wasm_v128_store(to + 4, wasm_i16x8_shuffle(scales, scales, 4, 4, 5, 5, 6, 6, 7, 7));
    }
    v128_t mins = type->layout->has_min ? wasm_v128_load(s.min + sub) : wasm_i16x8_mul(scales, bias);
    wasm_v128_store(&strip->k.min[r][b * n_subs + sub], mins);
  }
}

FM_INLINE void strip_f32_scales(const fm_simd128_kernels *type, const uint8_t *group, fm_strip *strip, size_t r,
                                size_t b) {
  size_t at = b * GROUP_COLS / type->layout->sub;
  type->f32_scales(group, &strip->f32.scale[r][at], &strip->f32.min[r][at]);
}

void fm_strip_i8__simd128(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                          bool dot32, fm_strip *strip) {
  const fm_layout *layout = type->layout;
  uint8_t padded[FM_MAX_GROUP_BYTES];
  int32_t added = layout->wide ? fm_wide_bias(fm_current.wide) : 0;
  for (size_t r = 0; r < FM_STRIP_ROWS; r++) {
    for (size_t c = 0; c < n_values; c += GROUP_COLS) {
      size_t b = c / GROUP_COLS;
      const uint8_t *group = fm_group(layout, row[r] + b * layout->group_bytes, n_values - c, padded);
      strip_codes_i8(type, group, added, strip->code.i8[r] + c);
      if (layout->kind == FM_SCALES_K) {
        strip_k_scales(type, group, strip, r, b, dot32);
      } else {
        strip_f32_scales(type, group, strip, r, b);
      }
    }
  }
}

void fm_strip_i16__simd128(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS], size_t n_values,
                           fm_strip *strip) {
  const fm_layout *layout = type->layout;
  uint8_t padded[FM_MAX_GROUP_BYTES];
  for (size_t r = 0; r < FM_STRIP_ROWS; r++) {
    for (size_t c = 0; c < n_values; c += GROUP_COLS) {
      const uint8_t *group = fm_group(layout, row[r] + c / GROUP_COLS * layout->group_bytes, n_values - c, padded);
      strip_codes_i16(type, group, strip->code.i16[r] + c);
      strip_f32_scales(type, group, strip, r, c / GROUP_COLS);
    }
  }
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
