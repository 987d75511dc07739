/* The decoders of Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL and MXFP4: 8 blocks of 32 are a group.
 * Layouts: formats/blocks.h. */
#ifndef FM_KERNELS_BLOCK32_DECODERS_H
#define FM_KERNELS_BLOCK32_DECODERS_H

#include <stddef.h>
#include <string.h>

#include "formats/blocks.h"
#include "kernels/decoder.h"
#include "kernels/nibbles.h"

/* Four f16, `stride` bytes apart, as f32. */
FM_INLINE v128_t fm_gather_f16(const uint8_t *first, size_t stride, const fm_held *held) {
  uint16_t f16[4];
  for (size_t k = 0; k < 4; k++) memcpy(&f16[k], first + k * stride, 2);
  uint64_t four = f16[0] | (uint64_t)f16[1] << 16 | (uint64_t)f16[2] << 32 | (uint64_t)f16[3] << 48;
  return fm_f16x4_to_f32x4(wasm_u32x4_extend_low_u16x8(wasm_i64x2_splat((int64_t)four)),
                           &held->f16);
}

/* 16 codes from 16 bytes that hold 32, low nibbles first. */
FM_INLINE v128_t fm_nibble_codes(const uint8_t *qs, size_t j, const fm_held *held) {
  return fm_move_bits(wasm_v128_load(qs), j % 2 ? 4 : 0, 0, held->low);
}
FM_INLINE fm_nibbles fm_nibbles_of(const uint8_t *qs, size_t j) {
  return (fm_nibbles){wasm_v128_load(qs), j % 2 != 0};
}

/* Bits 16 * (j % 2) .. + 15 of qh, as bytes: byte k is 16 where bit k is set. */
FM_INLINE v128_t fm_fifth_bits(const uint8_t qh[4], size_t j, const fm_held *held) {
  v128_t bytes = fm_lookup(wasm_v128_load32_splat(qh), j % 2 ? held->second : held->first);
  v128_t is_set = wasm_i8x16_eq(wasm_v128_and(bytes, held->bit), held->bit);
  return wasm_v128_and(is_set, held->high);
}
static const uint8_t fm_bit_of_byte[16] = {1, 2, 4, 8, 16, 32, 64, 128,
                                           1, 2, 4, 8, 16, 32, 64, 128};
static const uint8_t fm_first_two[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
static const uint8_t fm_last_two[16] = {2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3};

/* Q4_0 and Q4_1 need masks, Q5_0 and Q5_1 constants for the fifth bits too, Q8_0 only those of
 * scales. */
FM_INLINE fm_held fm_block32_hold4(void) {
  return (fm_held){.low = fm_hold_i8(15), .f16 = fm_hold_f16()};
}
FM_INLINE fm_held fm_block32_hold5(void) {
  return (fm_held){.low = fm_hold_i8(15),
                   .high = fm_hold_i8(16),
                   .bit = fm_hold(fm_bit_of_byte),
                   .first = fm_hold(fm_first_two),
                   .second = fm_hold(fm_last_two),
                   .f16 = fm_hold_f16()};
}
FM_INLINE fm_held fm_block32_hold8(void) { return (fm_held){.f16 = fm_hold_f16()}; }

/* Scales are d, the first field of every block here. */
#define FM_BLOCK32_SCALES(name, block_type)                                                        \
  FM_INLINE v128_t fm_##name##_scales(const uint8_t *group, size_t half, const fm_held *held) {    \
    return fm_gather_f16(group + 4 * half * sizeof(block_type), sizeof(block_type), held);         \
  }
/* value = d * code + m, and decoders subtract their min: it is -m. */
#define FM_BLOCK32_MINS(name, block_type)                                                          \
  FM_INLINE v128_t fm_##name##_mins(const uint8_t *group, size_t half, const fm_held *held) {      \
    const uint8_t *first = group + 4 * half * sizeof(block_type) + offsetof(block_type, m);        \
    return wasm_f32x4_neg(fm_gather_f16(first, sizeof(block_type), held));                         \
  }

FM_BLOCK32_SCALES(q4_0, fm_block_q4_0)
FM_INLINE fm_nibbles fm_q4_0_nibbles(const uint8_t *group, size_t half, size_t j) {
  return fm_nibbles_of(((const fm_block_q4_0 *)group)[4 * half + j / 2].qs, j);
}
FM_INLINE v128_t fm_q4_0_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  return fm_nibble_codes(((const fm_block_q4_0 *)group)[4 * half + j / 2].qs, j, held);
}
static const fm_decoder fm_q4_0_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = 8 * sizeof(fm_block_q4_0),
               .block_values = 32,
               FM_SUB_BLOCKS(32, 15),
               .bias = 8},
    .hold = fm_block32_hold4,
    .codes = fm_q4_0_codes,
    .nibbles = fm_q4_0_nibbles,
    .f32_scales = fm_q4_0_scales,
    .straight = true,
};
FM_KERNELS(q4_0, f32)

FM_BLOCK32_SCALES(q4_1, fm_block_q4_1)
FM_BLOCK32_MINS(q4_1, fm_block_q4_1)
FM_INLINE fm_nibbles fm_q4_1_nibbles(const uint8_t *group, size_t half, size_t j) {
  return fm_nibbles_of(((const fm_block_q4_1 *)group)[4 * half + j / 2].qs, j);
}
FM_INLINE v128_t fm_q4_1_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  return fm_nibble_codes(((const fm_block_q4_1 *)group)[4 * half + j / 2].qs, j, held);
}
static const fm_decoder fm_q4_1_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = 8 * sizeof(fm_block_q4_1),
               .block_values = 32,
               FM_SUB_BLOCKS(32, 15),
               .has_min = true},
    .hold = fm_block32_hold4,
    .codes = fm_q4_1_codes,
    .nibbles = fm_q4_1_nibbles,
    .f32_scales = fm_q4_1_scales,
    .f32_mins = fm_q4_1_mins,
};
FM_KERNELS(q4_1, f32)

FM_BLOCK32_SCALES(q5_0, fm_block_q5_0)
FM_INLINE v128_t fm_q5_0_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  const fm_block_q5_0 *b = (const fm_block_q5_0 *)group + 4 * half + j / 2;
  return wasm_v128_or(fm_nibble_codes(b->qs, j, held), fm_fifth_bits(b->qh, j, held));
}
static const fm_decoder fm_q5_0_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = 8 * sizeof(fm_block_q5_0),
               .block_values = 32,
               FM_SUB_BLOCKS(32, 31),
               .bias = 16},
    .hold = fm_block32_hold5,
    .codes = fm_q5_0_codes,
    .f32_scales = fm_q5_0_scales,
};
FM_KERNELS(q5_0, f32)

FM_BLOCK32_SCALES(q5_1, fm_block_q5_1)
FM_BLOCK32_MINS(q5_1, fm_block_q5_1)
FM_INLINE v128_t fm_q5_1_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  const fm_block_q5_1 *b = (const fm_block_q5_1 *)group + 4 * half + j / 2;
  return wasm_v128_or(fm_nibble_codes(b->qs, j, held), fm_fifth_bits(b->qh, j, held));
}
static const fm_decoder fm_q5_1_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = 8 * sizeof(fm_block_q5_1),
               .block_values = 32,
               FM_SUB_BLOCKS(32, 31),
               .has_min = true},
    .hold = fm_block32_hold5,
    .codes = fm_q5_1_codes,
    .f32_scales = fm_q5_1_scales,
    .f32_mins = fm_q5_1_mins,
};
FM_KERNELS(q5_1, f32)

FM_BLOCK32_SCALES(q8_0, fm_block_q8_0)
FM_INLINE v128_t fm_q8_0_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  (void)held;
  return wasm_v128_load(((const fm_block_q8_0 *)group)[4 * half + j / 2].qs + 16 * (j % 2));
}
static const fm_decoder fm_q8_0_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = 8 * sizeof(fm_block_q8_0),
               .block_values = 32,
               FM_SUB_BLOCKS(32, 255)},
    .hold = fm_block32_hold8,
    .codes = fm_q8_0_codes,
    .f32_scales = fm_q8_0_scales,
    .straight = true,
};
FM_WIDE_KERNELS(q8_0, f32)

FM_BLOCK32_SCALES(iq4_nl, fm_block_iq4_nl)
FM_INLINE fm_held fm_iq4_nl_hold(void) {
  return (fm_held){.low = fm_hold_i8(15), .table = fm_hold(fm_iq4_values), .f16 = fm_hold_f16()};
}
FM_INLINE v128_t fm_iq4_nl_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  return fm_lookup(held->table,
                   fm_nibble_codes(((const fm_block_iq4_nl *)group)[4 * half + j / 2].qs, j, held));
}
static const fm_decoder fm_iq4_nl_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = 8 * sizeof(fm_block_iq4_nl),
               .block_values = 32,
               FM_SUB_BLOCKS(32, 255)},
    .hold = fm_iq4_nl_hold,
    .codes = fm_iq4_nl_codes,
    .f32_scales = fm_iq4_nl_scales,
};
FM_WIDE_KERNELS(iq4_nl, f32)

/* MXFP4: codes are the values -12..12 plus 12. The scale is 2^(e - 128): its bits are (e - 1) <<
 * 23, or a subnormal for e < 2. */
static const uint8_t fm_mxfp4_plus_12[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                             12, 11, 10, 9,  8,  6,  4,  0};
FM_INLINE fm_held fm_mxfp4_hold(void) {
  return (fm_held){.low = fm_hold_i8(15), .table = fm_hold(fm_mxfp4_plus_12)};
}
FM_INLINE v128_t fm_mxfp4_codes(const uint8_t *group, size_t half, size_t j, const fm_held *held) {
  return fm_lookup(held->table,
                   fm_nibble_codes(((const fm_block_mxfp4 *)group)[4 * half + j / 2].qs, j, held));
}
FM_INLINE v128_t fm_mxfp4_scales(const uint8_t *group, size_t half, const fm_held *held) {
  (void)held;
  const fm_block_mxfp4 *b = (const fm_block_mxfp4 *)group + 4 * half;
  v128_t e = wasm_i32x4_make(b[0].e, b[1].e, b[2].e, b[3].e);
  v128_t normal = wasm_i32x4_shl(wasm_i32x4_sub(e, wasm_i32x4_const_splat(1)), 23);
  v128_t subnormal = wasm_i32x4_add(wasm_i32x4_const_splat(0x00200000), wasm_i32x4_shl(e, 21));
  return wasm_v128_bitselect(normal, subnormal, wasm_i32x4_gt(e, wasm_i32x4_const_splat(1)));
}
static const fm_decoder fm_mxfp4_decoder = {
    .layout = {.kind = FM_SCALES_F32,
               .group_bytes = 8 * sizeof(fm_block_mxfp4),
               .block_values = 32,
               FM_SUB_BLOCKS(32, 24),
               .bias = 12},
    .hold = fm_mxfp4_hold,
    .codes = fm_mxfp4_codes,
    .f32_scales = fm_mxfp4_scales,
};
FM_KERNELS(mxfp4, f32)

#endif
