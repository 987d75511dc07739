/* Scales of coded types for strips and dequantisation; the matrix-vector product of unpacked types
 * with int16 activations. */
#include "kernels/activations.h"
#include "kernels/decoder.h"
#include "kernels/group.h"
#include "kernels/unpacked.h"

void fm_f32_scales__simd128(const fm_simd128_kernels *type, const uint8_t *group, size_t n,
                            float *scale, float *min) {
  if (!type->integers) {
    type->f32_scales(group, n, scale, min);
    return;
  }
  const size_t n_subs = FM_GROUP_COLS / type->layout->sub;
  int16_t integers[FM_STRIP_COLS / 16];
  float d[FM_STRIP_COLS / FM_GROUP_COLS];
  type->integers(group, n, integers, d);
  FM_NO_UNROLL
  for (size_t s = 0; s < n * n_subs; s += 4) {
    v128_t four = wasm_f32x4_convert_i32x4(wasm_i32x4_load16x4(integers + s));
    wasm_v128_store(scale + s, wasm_f32x4_mul(four, wasm_v128_load32_splat(d + s / n_subs)));
  }
}

void fm_k_scales__simd128(const fm_simd128_kernels *type, const uint8_t *group, size_t n,
                          bool dot32, fm_strip_k_row out) {
  if (!type->integers) {
    type->k_scales(group, n, dot32, out);
    return;
  }
  /* A strip needs the integers as int32, or twice in 32 bits, and times the bias. */
  const int16_t bias = (int16_t)type->layout->bias;
  int16_t integers[FM_STRIP_COLS / 16];
  type->integers(group, n, integers, out.d);
  memcpy(out.dmin, out.d, n * sizeof *out.d);
  v128_t bias_lanes = wasm_i16x8_splat(bias);
  FM_NO_UNROLL
  for (size_t s = 0; s < n * (FM_GROUP_COLS / type->layout->sub); s += 8) {
    v128_t eight = wasm_v128_load(integers + s);
    v128_t upper = dot32 ? wasm_i16x8_shr(eight, 15) : eight;
    wasm_v128_store(out.scale + s, wasm_i16x8_shuffle(eight, upper, 0, 8, 1, 9, 2, 10, 3, 11));
    wasm_v128_store(out.scale + s + 4,
                    wasm_i16x8_shuffle(eight, upper, 4, 12, 5, 13, 6, 14, 7, 15));
    wasm_v128_store(out.min + s, wasm_i16x8_mul(eight, bias_lanes));
  }
}

/* The dot product of a group, without the activations' scale, in four lanes to be added:
 * sum_sub scale * (sum code * q) - bias * sum_sub scale * (sum q). An int32 lane sums at most 8
 * products of a code and an activation, 8 * 127 * 32767 < 2^25. */
FM_INLINE v128_t group_i16(const fm_layout *layout, const uint8_t *codes, const float *scale,
                           const fm_act_i16 *a, v128_t even_bytes) {
  const size_t per_sub = layout->sub / 16, n_subs = FM_GROUP_COLS / layout->sub;
  const int16_t *q = a->q;
  const float *act_sums = layout->sub == 32 ? a->sum32 : a->sum16;
  v128_t total = fm_zero(), biased = fm_zero();
  for (size_t s = 0; s < n_subs; s++) {
    v128_t sum = fm_zero();
    FM_NO_UNROLL
    for (size_t k = 0; k < per_sub; k++, codes += 16, q += 16) {
      v128_t code = wasm_v128_load(codes);
      v128_t even = wasm_v128_and(code, even_bytes), odd = wasm_u16x8_shr(code, 8);
      sum = wasm_i32x4_add(sum, wasm_i32x4_add(wasm_i32x4_dot_i16x8(even, wasm_v128_load(q)),
                                               wasm_i32x4_dot_i16x8(odd, wasm_v128_load(q + 8))));
    }
    total = wasm_f32x4_add(
        total, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(sum), wasm_v128_load32_splat(scale + s)));
  }
  for (size_t s = 0; s < n_subs; s += 4) {
    biased = wasm_f32x4_add(
        biased, wasm_f32x4_mul(wasm_v128_load(act_sums + s), wasm_v128_load(scale + s)));
  }
  return wasm_f32x4_sub(total, wasm_f32x4_mul(biased, wasm_f32x4_splat((float)layout->bias)));
}

void fm_gemv_unpacked_i16__simd128(const fm_simd128_kernels *type, const uint8_t *w,
                                   size_t row_bytes, const void *x, float *y, size_t n_rows,
                                   size_t n_values, bool accumulate) {
  uint8_t padded[FM_MAX_GROUP_BYTES], codes[FM_STRIP_COLS];
  float scale[FM_STRIP_COLS / 16], min[FM_STRIP_COLS / 16];
  const fm_layout *layout = type->layout;
  const size_t n_groups = (n_values + FM_GROUP_COLS - 1) / FM_GROUP_COLS,
               n_subs = FM_GROUP_COLS / layout->sub;
  v128_t even_bytes = fm_hold_i32(0x00ff00ff);
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const fm_act_i16 *a = x;
    v128_t acc = fm_zero();
    for (size_t first = 0; first < n_groups;) {
      fm_row_part part = fm_part_of(layout, w, first, n_values, padded);
      if (part.n > FM_STRIP_COLS / FM_GROUP_COLS) part.n = FM_STRIP_COLS / FM_GROUP_COLS;
      type->unpack(part.group, part.n, codes);
      fm_f32_scales__simd128(type, part.group, part.n, scale, min);
      FM_NO_UNROLL
      for (size_t i = 0; i < part.n; i++, a++) {
        v128_t total =
            group_i16(layout, codes + FM_GROUP_COLS * i, scale + n_subs * i, a, even_bytes);
        acc = wasm_f32x4_add(acc, wasm_f32x4_mul(total, wasm_v128_load32_splat(&a->d)));
      }
      first += part.n;
    }
    float sum = fm_hsum_f32(acc);
    y[r] = accumulate ? y[r] + sum : sum;
  }
}
