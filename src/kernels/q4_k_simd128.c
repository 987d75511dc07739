/* Q4_K with int16 activations, SIMD128. Layout: formats/blocks.h; numerics: activations.h. */
#include "kernels/kernels.h"
#include "kernels/q4_k_v128.h"

void fm_dequantize_q4_k__simd128(const void *w, float *y, size_t n_values) {
  const fm_block_q4_k *b = w;
  for (size_t c = 0; c < n_values; c += 256, b++, y += 256) {
    v128_t dd = fm_q4_k_d_dmin(b);
    fm_scales8 s = fm_q4_k_scales(b->scales);
    for (int sub = 0; sub < 8; sub++) {
      v128_t scale = wasm_f32x4_splat(wasm_f32x4_extract_lane(dd, 0) * (float)(s.scales >> 8 * sub & 63));
      v128_t min = wasm_f32x4_splat(wasm_f32x4_extract_lane(dd, 1) * (float)(s.mins >> 8 * sub & 63));
      for (int half = 0; half < 2; half++) {
        v128_t packed = wasm_v128_load(b->qs + 32 * (sub / 2) + 16 * half);
        v128_t codes = sub % 2 ? fm_high_nibbles(packed) : fm_low_nibbles(packed);
        float *out = y + 32 * sub + 16 * half;
        v128_t lo = wasm_u16x8_extend_low_u8x16(codes), hi = wasm_u16x8_extend_high_u8x16(codes);
        v128_t quads[4] = {wasm_u32x4_extend_low_u16x8(lo), wasm_u32x4_extend_high_u16x8(lo),
                           wasm_u32x4_extend_low_u16x8(hi), wasm_u32x4_extend_high_u16x8(hi)};
        for (int k = 0; k < 4; k++) {
          v128_t value = wasm_f32x4_sub(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(quads[k]), scale), min);
          wasm_v128_store(out + 4 * k, value);
        }
      }
    }
  }
}

/* 16 codes against 16 activations: four i32 lanes. */
FM_INLINE v128_t dot16(v128_t codes, const int16_t *q) {
  return wasm_i32x4_add(wasm_i32x4_dot_i16x8(wasm_u16x8_extend_low_u8x16(codes), wasm_v128_load(q)),
                        wasm_i32x4_dot_i16x8(wasm_u16x8_extend_high_u8x16(codes), wasm_v128_load(q + 8)));
}

/* One group of 64 columns, scaled: lane k of the result holds a quarter of the columns.
 * Per lane and sub-block 8 products <= 8 * 15 * 32767; times a scale <= 63 and summed over the 8 sub-blocks of a block:
 * 8 * 8 * 15 * 32767 * 63 = 1,981,747,200 < 2^31. */
FM_INLINE v128_t group64(const uint8_t *qs, const int16_t *q, v128_t scale_lo, v128_t scale_hi) {
  v128_t w0 = wasm_v128_load(qs), w1 = wasm_v128_load(qs + 16);
  v128_t lo = wasm_i32x4_add(dot16(fm_low_nibbles(w0), q), dot16(fm_low_nibbles(w1), q + 16));
  v128_t hi = wasm_i32x4_add(dot16(fm_high_nibbles(w0), q + 32), dot16(fm_high_nibbles(w1), q + 48));
  return wasm_i32x4_add(wasm_i32x4_mul(lo, scale_lo), wasm_i32x4_mul(hi, scale_hi));
}

void fm_gemv_q4_k_i16__simd128(const uint8_t *w, size_t row_bytes, const fm_act_i16 *x, float *y, size_t n_rows,
                               size_t n_values, bool accumulate) {
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const fm_block_q4_k *b = (const fm_block_q4_k *)w;
    const fm_act_i16 *a = x;
    v128_t acc = fm_zero();
    for (size_t c = 0; c < n_values; c += 256, b++, a++) {
      fm_scales8 s = fm_q4_k_scales(b->scales);
      v128_t scales = fm_bytes_to_i16x8(s.scales), mins = fm_bytes_to_i16x8(s.mins);
      v128_t scales_lo = wasm_u32x4_extend_low_u16x8(scales), scales_hi = wasm_u32x4_extend_high_u16x8(scales);
      v128_t sum0 = group64(b->qs, a->q, fm_splat_i32_lane(scales_lo, 0), fm_splat_i32_lane(scales_lo, 1));
      v128_t sum1 = group64(b->qs + 32, a->q + 64, fm_splat_i32_lane(scales_lo, 2), fm_splat_i32_lane(scales_lo, 3));
      sum0 = wasm_i32x4_add(sum0, group64(b->qs + 64, a->q + 128, fm_splat_i32_lane(scales_hi, 0),
                                          fm_splat_i32_lane(scales_hi, 1)));
      sum1 = wasm_i32x4_add(sum1, group64(b->qs + 96, a->q + 192, fm_splat_i32_lane(scales_hi, 2),
                                          fm_splat_i32_lane(scales_hi, 3)));
      v128_t mins_lo = wasm_f32x4_convert_i32x4(wasm_u32x4_extend_low_u16x8(mins));
      v128_t mins_hi = wasm_f32x4_convert_i32x4(wasm_u32x4_extend_high_u16x8(mins));
      v128_t min_sum = wasm_f32x4_add(wasm_f32x4_mul(mins_lo, wasm_v128_load(a->sum32)),
                                      wasm_f32x4_mul(mins_hi, wasm_v128_load(a->sum32 + 4)));
      v128_t dd = wasm_f32x4_mul(fm_q4_k_d_dmin(b), wasm_v128_load32_splat(&a->d));
      v128_t code_sum = wasm_f32x4_convert_i32x4(wasm_i32x4_add(sum0, sum1));
      acc = wasm_f32x4_add(acc, wasm_f32x4_sub(wasm_f32x4_mul(code_sum, fm_splat_i32_lane(dd, 0)),
                                               wasm_f32x4_mul(min_sum, fm_splat_i32_lane(dd, 1))));
    }
    y[r] = accumulate ? y[r] + fm_hsum_f32(acc) : fm_hsum_f32(acc);
  }
}

void fm_strip_q4_k_i16__simd128(const uint8_t *const row[FM_STRIP_ROWS], size_t n_values, fm_strip *strip) {
  for (size_t block = 0; block < n_values / 256; block++) {
    const fm_block_q4_k *b[FM_STRIP_ROWS];
    for (size_t r = 0; r < FM_STRIP_ROWS; r++) {
      b[r] = (const fm_block_q4_k *)row[r] + block;
      v128_t dd = fm_q4_k_d_dmin(b[r]);
      fm_scales8 s = fm_q4_k_scales(b[r]->scales);
      for (size_t sub = 0; sub < 8; sub++) {
        strip->f32.scale[16 * block + 2 * sub][r] = wasm_f32x4_extract_lane(dd, 0) * (float)(s.scales >> 8 * sub & 63);
        strip->f32.min[16 * block + 2 * sub][r] = wasm_f32x4_extract_lane(dd, 1) * (float)(s.mins >> 8 * sub & 63);
      }
    }
    fm_strip_q4_k_codes(b, &strip->code[64 * block][0][0]);
  }
}
