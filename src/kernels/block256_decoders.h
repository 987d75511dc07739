/* The decoders of IQ4_XS, TQ1_0, TQ2_0 and Q8_K: super-blocks of 256. Layouts: formats/blocks.h. */
#ifndef FM_KERNELS_BLOCK256_DECODERS_H
#define FM_KERNELS_BLOCK256_DECODERS_H

#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/decoder.h"
#include "kernels/nibbles.h"

FM_INLINE fm_held fm_no_hold(void) { return (fm_held){0}; }

/* IQ4_XS: integer scales -32..31 of 8 sub-blocks; codes from a table, -127..113. */

FM_INLINE fm_held fm_iq4_xs_hold(void) {
  return (fm_held){.low = fm_hold_i8(15), .table = fm_hold(fm_iq4_values)};
}
FM_INLINE v128_t fm_iq4_xs_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  v128_t packed = wasm_v128_load(((const fm_block_iq4_xs *)group)->qs + 64 * half + 16 * (j / 2));
  return fm_lookup(held->table, fm_move_bits(packed, j % 2 ? 4 : 0, 0, held->low));
}
FM_INLINE fm_lanes16 fm_iq4_xs_k_scales(const uint8_t *group) {
  const fm_block_iq4_xs *b = (const fm_block_iq4_xs *)group;
  uint32_t low;
  memcpy(&low, b->scales_l, 4);
  v128_t low4 = wasm_u16x8_extend_low_u8x16(
      wasm_i32x4_make((int32_t)low, 0, 0, 0)); /* two scales a lane, 4 lanes */
  v128_t lo = wasm_v128_and(low4, wasm_i16x8_const_splat(15)), hi = wasm_u16x8_shr(low4, 4);
  v128_t low_bits = wasm_i16x8_shuffle(lo, hi, 0, 8, 1, 9, 2, 10, 3, 11);
  /* Lane s takes bits 2s+1..2s of scales_h to bits 5..4: a product with 2^(14 - 2s), then a shift
   * by 10. */
  v128_t high = wasm_i16x8_mul(
      wasm_i16x8_splat((int16_t)b->scales_h),
      wasm_i16x8_const(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1));
  v128_t high_bits = wasm_v128_and(wasm_u16x8_shr(high, 10), wasm_i16x8_const_splat(0x30));
  v128_t scales = wasm_i16x8_sub(wasm_v128_or(low_bits, high_bits), wasm_i16x8_const_splat(32));
  return (fm_lanes16){scales, scales};
}
FM_INLINE fm_f16_scales fm_iq4_xs_f16_scales(const uint8_t *group) {
  return (fm_f16_scales){((const fm_block_iq4_xs *)group)->d, 0};
}

static const fm_decoder fm_iq4_xs_decoder = {
    .layout = {.kind = FM_SCALES_K,
               .group_bytes = sizeof(fm_block_iq4_xs),
               .block_values = 256,
               FM_SUB_BLOCKS(32, 255)},
    .hold = fm_iq4_xs_hold,
    .codes = fm_iq4_xs_codes,
    .k_scales = fm_iq4_xs_k_scales,
    .f16_scales = fm_iq4_xs_f16_scales,
};
FM_WIDE_KERNELS(iq4_xs, k)

/* TQ2_0: codes 0..2 for -1..1; hostile files may hold 3. */

FM_INLINE fm_held fm_tq2_0_hold(void) { return (fm_held){.low = fm_hold_i8(3)}; }
FM_INLINE v128_t fm_tq2_0_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  v128_t packed = wasm_v128_load(((const fm_block_tq2_0 *)group)->qs + 32 * half + 16 * (j % 2));
  return fm_move_bits(packed, (int)(2 * (j / 2)), 0, held->low);
}
FM_INLINE v128_t fm_tq2_0_scales(const uint8_t *group, size_t half, const fm_held *held) {
  (void)half, (void)held;
  return wasm_f32x4_splat(fm_f16_to_f32(((const fm_block_tq2_0 *)group)->d));
}

static const fm_decoder fm_tq2_0_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = sizeof(fm_block_tq2_0),
               .block_values = 256,
               FM_SUB_BLOCKS(32, 3),
               .bias = 1},
    .hold = fm_tq2_0_hold,
    .codes = fm_tq2_0_codes,
    .f32_scales = fm_tq2_0_scales,
};
FM_KERNELS(tq2_0, f32)

/* TQ1_0: five trits a byte. The product with 3^n, modulo 256, brings digit n to the front; that
 * times 3 / 256 is the digit. */

FM_INLINE v128_t fm_trits(v128_t bytes, v128_t power_lo, v128_t power_hi, v128_t mask) {
  v128_t lo = wasm_v128_and(wasm_i16x8_mul(wasm_u16x8_extend_low_u8x16(bytes), power_lo), mask);
  v128_t hi = wasm_v128_and(wasm_i16x8_mul(wasm_u16x8_extend_high_u8x16(bytes), power_hi), mask);
  lo = wasm_u16x8_shr(wasm_i16x8_add(lo, wasm_i16x8_add(lo, lo)), 8);
  hi = wasm_u16x8_shr(wasm_i16x8_add(hi, wasm_i16x8_add(hi, hi)), 8);
  return wasm_u8x16_narrow_i16x8(lo, hi);
}
static void fm_tq1_0_unpack(const uint8_t *group, uint8_t *codes) {
  const fm_block_tq1_0 *b = (const fm_block_tq1_0 *)group;
  v128_t power = wasm_i16x8_const_splat(1), mask = fm_hold_i32(0x00ff00ff);
  FM_NO_UNROLL
  for (size_t n = 0; n < 5; n++) {
    wasm_v128_store(codes + 32 * n, fm_trits(wasm_v128_load(b->qs), power, power, mask));
    wasm_v128_store(codes + 32 * n + 16, fm_trits(wasm_v128_load(b->qs + 16), power, power, mask));
    wasm_v128_store(codes + 160 + 16 * n, fm_trits(wasm_v128_load(b->qs + 32), power, power, mask));
    power = wasm_i16x8_add(power, wasm_i16x8_add(power, power));
  }
  wasm_v128_store(codes + 240,
                  fm_trits(wasm_v128_load32_splat(b->qh), wasm_i16x8_const(1, 1, 1, 1, 3, 3, 3, 3),
                           wasm_i16x8_const(9, 9, 9, 9, 27, 27, 27, 27), mask));
}
FM_INLINE v128_t fm_tq1_0_scales(const uint8_t *group, size_t half, const fm_held *held) {
  (void)half, (void)held;
  return wasm_f32x4_splat(fm_f16_to_f32(((const fm_block_tq1_0 *)group)->d));
}

static const fm_decoder fm_tq1_0_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = sizeof(fm_block_tq1_0),
               .block_values = 256,
               FM_SUB_BLOCKS(32, 2),
               .bias = 1},
    .hold = fm_no_hold,
    .unpack = fm_tq1_0_unpack,
    .f32_scales = fm_tq1_0_scales,
};
FM_KERNELS(tq1_0, f32)

/* Q8_K: one f32 scale; the stored sums are not needed. */

FM_INLINE v128_t fm_q8_k_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  (void)held;
  return wasm_v128_load(((const fm_block_q8_k *)group)->qs + 128 * half + 16 * j);
}
FM_INLINE v128_t fm_q8_k_scales(const uint8_t *group, size_t half, const fm_held *held) {
  (void)half, (void)held;
  return wasm_v128_load32_splat(&((const fm_block_q8_k *)group)->d);
}

static const fm_decoder fm_q8_k_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = sizeof(fm_block_q8_k),
               .block_values = 256,
               FM_SUB_BLOCKS(32, 255)},
    .hold = fm_no_hold,
    .codes = fm_q8_k_codes,
    .f32_scales = fm_q8_k_scales,
};
FM_WIDE_KERNELS(q8_k, f32)

#endif
