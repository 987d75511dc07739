/* The decoders of Q2_K, Q3_K, Q4_K, Q5_K and Q6_K: super-blocks of 256 with integer scales.
 * Layouts: formats/blocks.h. */
#ifndef FM_KERNELS_K_QUANTS_DECODERS_H
#define FM_KERNELS_K_QUANTS_DECODERS_H

#include "formats/blocks.h"
#include "kernels/decoder.h"
#include "kernels/q4_k.h"

/* The high bits of the codes of one half: bits 4 * half .. 4 * half + 3 of every byte, in bits
 * 0..3. */
FM_INLINE v128_t fm_half_bits(const uint8_t *bytes, size_t half) {
  return wasm_u16x8_shr(wasm_v128_load(bytes), (uint32_t)(4 * half));
}

FM_INLINE v128_t fm_bytes_to_u16x8(uint64_t bytes) {
  return wasm_u16x8_extend_low_u8x16(wasm_i64x2_make((int64_t)bytes, 0));
}

/* Q2_K */

FM_INLINE fm_held fm_q2_k_hold(void) { return (fm_held){.low = fm_hold_i8(3)}; }
FM_INLINE v128_t fm_q2_k_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  const fm_block_q2_k *b = (const fm_block_q2_k *)group;
  return fm_move_bits(wasm_v128_load(b->qs + 32 * half + 16 * (j % 2)), (int)(2 * (j / 2)), 0,
                      held->low);
}
FM_INLINE fm_lanes16 fm_q2_k_k_scales(const uint8_t *group) {
  v128_t scales = fm_move_bits(wasm_v128_load(((const fm_block_q2_k *)group)->scales), 0, 0,
                               wasm_i8x16_const_splat(15));
  return (fm_lanes16){wasm_u16x8_extend_low_u8x16(scales), wasm_u16x8_extend_high_u8x16(scales)};
}
FM_INLINE fm_lanes16 fm_q2_k_k_mins(const uint8_t *group) {
  v128_t mins = fm_move_bits(wasm_v128_load(((const fm_block_q2_k *)group)->scales), 4, 0,
                             wasm_i8x16_const_splat(15));
  return (fm_lanes16){wasm_u16x8_extend_low_u8x16(mins), wasm_u16x8_extend_high_u8x16(mins)};
}
FM_INLINE fm_f16_scales fm_q2_k_f16_scales(const uint8_t *group) {
  const fm_block_q2_k *b = (const fm_block_q2_k *)group;
  return (fm_f16_scales){b->d, b->dmin};
}

static const fm_decoder fm_q2_k_decoder = {
    .layout = {.kind = FM_SCALES_K,
               .group_bytes = sizeof(fm_block_q2_k),
               .block_values = 256,
               FM_SUB_BLOCKS(16, 3),
               .has_min = true},
    .hold = fm_q2_k_hold,
    .codes = fm_q2_k_codes,
    .k_scales = fm_q2_k_k_scales,
    .k_mins = fm_q2_k_k_mins,
    .f16_scales = fm_q2_k_f16_scales,
};
FM_KERNELS(q2_k, k)

/* Q3_K */

FM_INLINE fm_held fm_q3_k_hold(void) {
  return (fm_held){.low = fm_hold_i8(3), .high = fm_hold_i8(4)};
}
FM_INLINE v128_t fm_q3_k_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  const fm_block_q3_k *b = (const fm_block_q3_k *)group;
  v128_t low = fm_move_bits(wasm_v128_load(b->qs + 32 * half + 16 * (j % 2)), (int)(2 * (j / 2)), 0,
                            held->low);
  return wasm_v128_or(
      low, fm_move_bits(fm_half_bits(b->hmask + 16 * (j % 2), half), (int)(j / 2), 2, held->high));
}
FM_INLINE fm_lanes16 fm_q3_k_k_scales(const uint8_t *group) {
  const uint8_t *scales = ((const fm_block_q3_k *)group)->scales;
  uint64_t low;
  uint32_t high;
  memcpy(&low, scales, 8);
  memcpy(&high, scales + 8, 4);
  uint64_t first = (uint64_t)(high >> 2 & 0x03030303u) << 36 | (uint64_t)(high & 0x03030303u) << 4;
  uint64_t second = (uint64_t)(high >> 6 & 0x03030303u) << 36 | (uint64_t)(high >> 4 & 0x03030303u)
                                                                    << 4;
  v128_t offset = wasm_i16x8_const_splat(32);
  v128_t lo = fm_bytes_to_u16x8((low & 0x0f0f0f0f0f0f0f0fu) | first);
  v128_t hi = fm_bytes_to_u16x8((low >> 4 & 0x0f0f0f0f0f0f0f0fu) | second);
  return (fm_lanes16){wasm_i16x8_sub(lo, offset), wasm_i16x8_sub(hi, offset)};
}
FM_INLINE fm_f16_scales fm_q3_k_f16_scales(const uint8_t *group) {
  return (fm_f16_scales){((const fm_block_q3_k *)group)->d, 0};
}

static const fm_decoder fm_q3_k_decoder = {
    .layout = {.kind = FM_SCALES_K,
               .group_bytes = sizeof(fm_block_q3_k),
               .block_values = 256,
               FM_SUB_BLOCKS(16, 7),
               .bias = 4},
    .hold = fm_q3_k_hold,
    .codes = fm_q3_k_codes,
    .k_scales = fm_q3_k_k_scales,
    .f16_scales = fm_q3_k_f16_scales,
};
FM_KERNELS(q3_k, k)

/* Q4_K */

FM_INLINE fm_held fm_q4_k_hold(void) { return (fm_held){.low = fm_hold_i8(15)}; }
FM_INLINE fm_nibbles fm_q4_k_nibbles(const uint8_t *group, size_t half, size_t j) {
  const fm_block_q4_k *b = (const fm_block_q4_k *)group;
  return (fm_nibbles){wasm_v128_load(b->qs + 64 * half + 32 * (j / 4) + 16 * (j % 2)),
                      j / 2 % 2 != 0};
}
FM_INLINE v128_t fm_q4_k_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  fm_nibbles n = fm_q4_k_nibbles(group, half, j);
  return fm_move_bits(n.bytes, n.upper ? 4 : 0, 0, held->low);
}
FM_INLINE fm_lanes16 fm_q4_k_k_scales(const uint8_t *group) {
  v128_t scales = fm_bytes_to_u16x8(fm_q4_k_scales(((const fm_block_q4_k *)group)->scales).scales);
  return (fm_lanes16){scales, scales};
}
FM_INLINE fm_lanes16 fm_q4_k_k_mins(const uint8_t *group) {
  v128_t mins = fm_bytes_to_u16x8(fm_q4_k_scales(((const fm_block_q4_k *)group)->scales).mins);
  return (fm_lanes16){mins, mins};
}
FM_INLINE fm_f16_scales fm_q4_k_f16_scales(const uint8_t *group) {
  const fm_block_q4_k *b = (const fm_block_q4_k *)group;
  return (fm_f16_scales){b->d, b->dmin};
}

static const fm_decoder fm_q4_k_decoder = {
    .layout = {.kind = FM_SCALES_K,
               .group_bytes = sizeof(fm_block_q4_k),
               .block_values = 256,
               FM_SUB_BLOCKS(32, 15),
               .has_min = true},
    .hold = fm_q4_k_hold,
    .codes = fm_q4_k_codes,
    .nibbles = fm_q4_k_nibbles,
    .k_scales = fm_q4_k_k_scales,
    .k_mins = fm_q4_k_k_mins,
    .f16_scales = fm_q4_k_f16_scales,
};
FM_KERNELS_FOR_MANY(q4_k)

/* Q5_K: d, dmin and scales are where Q4_K has them. */

FM_INLINE fm_held fm_q5_k_hold(void) {
  return (fm_held){.low = fm_hold_i8(15), .high = fm_hold_i8(16)};
}
FM_INLINE v128_t fm_q5_k_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  const fm_block_q5_k *b = (const fm_block_q5_k *)group;
  v128_t low = fm_move_bits(wasm_v128_load(b->qs + 64 * half + 32 * (j / 4) + 16 * (j % 2)),
                            j / 2 % 2 ? 4 : 0, 0, held->low);
  return wasm_v128_or(
      low, fm_move_bits(fm_half_bits(b->qh + 16 * (j % 2), half), (int)(j / 2), 4, held->high));
}

static const fm_decoder fm_q5_k_decoder = {
    .layout = {.kind = FM_SCALES_K,
               .group_bytes = sizeof(fm_block_q5_k),
               .block_values = 256,
               FM_SUB_BLOCKS(32, 31),
               .has_min = true},
    .hold = fm_q5_k_hold,
    .codes = fm_q5_k_codes,
    .k_scales = fm_q4_k_k_scales,
    .k_mins = fm_q4_k_k_mins,
    .f16_scales = fm_q4_k_f16_scales,
};
FM_KERNELS(q5_k, k)

/* Q6_K: vector i is columns 128 * half + 32 * quarter + 16 * (j % 2). */

FM_INLINE fm_held fm_q6_k_hold(void) {
  return (fm_held){.low = fm_hold_i8(15), .high = fm_hold_i8(48)};
}
FM_INLINE v128_t fm_q6_k_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  const fm_block_q6_k *b = (const fm_block_q6_k *)group;
  size_t quarter = j / 2;
  v128_t low = wasm_v128_load(b->ql + 64 * half + 32 * (quarter % 2) + 16 * (j % 2));
  v128_t high = wasm_v128_load(b->qh + 32 * half + 16 * (j % 2));
  return wasm_v128_or(fm_move_bits(low, quarter / 2 ? 4 : 0, 0, held->low),
                      fm_move_bits(high, (int)(2 * quarter), 4, held->high));
}
FM_INLINE fm_lanes16 fm_q6_k_k_scales(const uint8_t *group) {
  v128_t scales = wasm_v128_load(((const fm_block_q6_k *)group)->scales);
  return (fm_lanes16){wasm_i16x8_extend_low_i8x16(scales), wasm_i16x8_extend_high_i8x16(scales)};
}
FM_INLINE fm_f16_scales fm_q6_k_f16_scales(const uint8_t *group) {
  return (fm_f16_scales){((const fm_block_q6_k *)group)->d, 0};
}

static const fm_decoder fm_q6_k_decoder = {
    .layout = {.kind = FM_SCALES_K,
               .group_bytes = sizeof(fm_block_q6_k),
               .block_values = 256,
               FM_SUB_BLOCKS(16, 63),
               .bias = 32},
    .hold = fm_q6_k_hold,
    .codes = fm_q6_k_codes,
    .k_scales = fm_q6_k_k_scales,
    .f16_scales = fm_q6_k_f16_scales,
};
FM_KERNELS_FOR_MANY(q6_k)

#endif
