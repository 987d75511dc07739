/* Q4_K with int8 activations, relaxed SIMD: codes are the second (7-bit) operand of the dot product, where 0..127 is exact and
 * the same on every engine. Layout: formats/blocks.h; numerics: activations.h.
 *
 * dot16: i16x8.relaxed_dot sums pairs; 4 of them are added in int16 (4 * 2 * 15 * 127 = 15,240), then one i32x4.dot_i16x8 with
 *        the sub-block's scale in every lane scales, sums pairs and widens at once.
 * dot32: i32x4.relaxed_dot_add sums fours into int32; the scale is an int32 multiplication.
 * Both: |sum over a block| <= 256 * 15 * 127 * 63 < 2^31; no horizontal sum before the end of the row. */
#include "kernels/kernels.h"
#include "kernels/q4_k_v128.h"

/* What a block adds to the row: d * code_sum - dmin * min_sum, each times the activations' scale. */
FM_INLINE v128_t block_value(const fm_block_q4_k *b, const fm_act_i8 *a, v128_t code_sum, v128_t mins) {
  v128_t min_sum = wasm_i32x4_dot_i16x8(wasm_v128_load(a->sum32), mins);
  v128_t dd = wasm_f32x4_mul(fm_q4_k_d_dmin(b), wasm_v128_load32_splat(&a->d));
  return wasm_f32x4_sub(wasm_f32x4_mul(wasm_f32x4_convert_i32x4(code_sum), fm_splat_i32_lane(dd, 0)),
                        wasm_f32x4_mul(wasm_f32x4_convert_i32x4(min_sum), fm_splat_i32_lane(dd, 1)));
}

FM_INLINE v128_t pair_dot(v128_t codes, const int8_t *q) {
  return wasm_i16x8_relaxed_dot_i8x16_i7x16(wasm_v128_load(q), codes);
}

/* 64 columns: qs bytes against q, scaled. */
FM_INLINE v128_t group64_dot16(const uint8_t *qs, const int8_t *q, v128_t scale_lo, v128_t scale_hi) {
  v128_t w0 = wasm_v128_load(qs), w1 = wasm_v128_load(qs + 16);
  v128_t lo = wasm_i16x8_add(pair_dot(fm_low_nibbles(w0), q), pair_dot(fm_low_nibbles(w1), q + 16));
  v128_t hi = wasm_i16x8_add(pair_dot(fm_high_nibbles(w0), q + 32), pair_dot(fm_high_nibbles(w1), q + 48));
  return wasm_i32x4_add(wasm_i32x4_dot_i16x8(lo, scale_lo), wasm_i32x4_dot_i16x8(hi, scale_hi));
}

void fm_gemv_q4_k_i8_dot16__relaxed(const uint8_t *w, size_t row_bytes, const fm_act_i8 *x, float *y, size_t n_rows,
                                    size_t n_values, bool accumulate) {
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const fm_block_q4_k *b = (const fm_block_q4_k *)w;
    const fm_act_i8 *a = x;
    v128_t acc = fm_zero();
    for (size_t c = 0; c < n_values; c += 256, b++, a++) {
      fm_scales8 s = fm_q4_k_scales(b->scales);
      v128_t scales = fm_bytes_to_i16x8(s.scales);
      v128_t sum0 = group64_dot16(b->qs, a->q, fm_splat_i16_lane(scales, 0), fm_splat_i16_lane(scales, 1));
      v128_t sum1 = group64_dot16(b->qs + 32, a->q + 64, fm_splat_i16_lane(scales, 2), fm_splat_i16_lane(scales, 3));
      sum0 = wasm_i32x4_add(
          sum0, group64_dot16(b->qs + 64, a->q + 128, fm_splat_i16_lane(scales, 4), fm_splat_i16_lane(scales, 5)));
      sum1 = wasm_i32x4_add(
          sum1, group64_dot16(b->qs + 96, a->q + 192, fm_splat_i16_lane(scales, 6), fm_splat_i16_lane(scales, 7)));
      acc = wasm_f32x4_add(acc, block_value(b, a, wasm_i32x4_add(sum0, sum1), fm_bytes_to_i16x8(s.mins)));
    }
    y[r] = accumulate ? y[r] + fm_hsum_f32(acc) : fm_hsum_f32(acc);
  }
}

FM_INLINE v128_t quad_dot(v128_t codes, const int8_t *q, v128_t sum) {
  return wasm_i32x4_relaxed_dot_i8x16_i7x16_add(wasm_v128_load(q), codes, sum);
}

FM_INLINE v128_t group64_dot32(const uint8_t *qs, const int8_t *q, v128_t scale_lo, v128_t scale_hi) {
  v128_t w0 = wasm_v128_load(qs), w1 = wasm_v128_load(qs + 16);
  v128_t lo = quad_dot(fm_low_nibbles(w1), q + 16, quad_dot(fm_low_nibbles(w0), q, fm_zero()));
  v128_t hi = quad_dot(fm_high_nibbles(w1), q + 48, quad_dot(fm_high_nibbles(w0), q + 32, fm_zero()));
  return wasm_i32x4_add(wasm_i32x4_mul(lo, scale_lo), wasm_i32x4_mul(hi, scale_hi));
}

void fm_gemv_q4_k_i8_dot32__relaxed(const uint8_t *w, size_t row_bytes, const fm_act_i8 *x, float *y, size_t n_rows,
                                    size_t n_values, bool accumulate) {
  for (size_t r = 0; r < n_rows; r++, w += row_bytes) {
    const fm_block_q4_k *b = (const fm_block_q4_k *)w;
    const fm_act_i8 *a = x;
    v128_t acc = fm_zero();
    for (size_t c = 0; c < n_values; c += 256, b++, a++) {
      fm_scales8 s = fm_q4_k_scales(b->scales);
      v128_t scales = fm_bytes_to_i16x8(s.scales);
      v128_t lo = wasm_u32x4_extend_low_u16x8(scales), hi = wasm_u32x4_extend_high_u16x8(scales);
      v128_t sum0 = group64_dot32(b->qs, a->q, fm_splat_i32_lane(lo, 0), fm_splat_i32_lane(lo, 1));
      v128_t sum1 = group64_dot32(b->qs + 32, a->q + 64, fm_splat_i32_lane(lo, 2), fm_splat_i32_lane(lo, 3));
      sum0 = wasm_i32x4_add(
          sum0, group64_dot32(b->qs + 64, a->q + 128, fm_splat_i32_lane(hi, 0), fm_splat_i32_lane(hi, 1)));
      sum1 = wasm_i32x4_add(
          sum1, group64_dot32(b->qs + 96, a->q + 192, fm_splat_i32_lane(hi, 2), fm_splat_i32_lane(hi, 3)));
      acc = wasm_f32x4_add(acc, block_value(b, a, wasm_i32x4_add(sum0, sum1), fm_bytes_to_i16x8(s.mins)));
    }
    y[r] = accumulate ? y[r] + fm_hsum_f32(acc) : fm_hsum_f32(acc);
  }
}

void fm_strip_q4_k_i8__relaxed(const uint8_t *const row[FM_STRIP_ROWS], size_t n_values, fm_strip *strip) {
  for (size_t block = 0; block < n_values / 256; block++) {
    const fm_block_q4_k *b[FM_STRIP_ROWS];
    for (size_t r = 0; r < FM_STRIP_ROWS; r++) {
      b[r] = (const fm_block_q4_k *)row[r] + block;
      v128_t dd = fm_q4_k_d_dmin(b[r]);
      strip->i16.d[block][r] = wasm_f32x4_extract_lane(dd, 0);
      strip->i16.dmin[block][r] = wasm_f32x4_extract_lane(dd, 1);
      fm_scales8 s = fm_q4_k_scales(b[r]->scales);
      for (size_t sub = 0; sub < 8; sub++) {
        int16_t *scale = strip->i16.scale[16 * block + 2 * sub][r];
        scale[0] = scale[1] = (int16_t)(s.scales >> 8 * sub & 63);
        strip->i16.min[16 * block + 2 * (sub / 2)][r][sub % 2] = (int16_t)(s.mins >> 8 * sub & 63);
      }
    }
    fm_strip_q4_k_codes(b, &strip->code[64 * block][0][0]);
  }
}
