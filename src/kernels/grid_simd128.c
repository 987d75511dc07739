/* The decoders of the types with codebooks, IQ1_S to IQ3_S: super-blocks of 256 with integer
 * scales. Layouts: formats/blocks.h; entries: formats/codebooks.h.
 *
 * Entries are loaded into vectors as they are packed. Shifts and masks take out their fields; the
 * sign of a value becomes the bit above a field, so that one lookup gives the signed code plus the
 * bias. */

#include <string.h>

#include "formats/blocks.h"
#include "formats/codebooks.h"
#include "formats/f16.h"
#include "kernels/iq1_m.h"
#include "kernels/nibbles.h"
#include "kernels/spread.h"
#include "kernels/unpacked.h"

/* 8 entries of a codebook, from their offsets in bytes. */
FM_INLINE v128_t fm_load_entries_at(const uint16_t *grid, const uint32_t offset[8]) {
  const uint8_t *base = (const uint8_t *)grid;
  v128_t v = wasm_v128_load16_splat(base + offset[0]);
  v = wasm_v128_load16_lane(base + offset[1], v, 1);
  v = wasm_v128_load16_lane(base + offset[2], v, 2);
  v = wasm_v128_load16_lane(base + offset[3], v, 3);
  v = wasm_v128_load16_lane(base + offset[4], v, 4);
  v = wasm_v128_load16_lane(base + offset[5], v, 5);
  v = wasm_v128_load16_lane(base + offset[6], v, 6);
  return wasm_v128_load16_lane(base + offset[7], v, 7);
}

/* The same from their numbers. */
FM_INLINE v128_t fm_load_entries(const uint16_t *grid, const uint32_t number[8]) {
  uint32_t offset[8];
  for (size_t i = 0; i < 8; i++) offset[i] = 2 * number[i];
  return fm_load_entries_at(grid, offset);
}

/* The same from numbers in 16-bit lanes. They go through memory, which is faster than taking them
 * out of a vector. */
FM_INLINE v128_t fm_load_entries_of_lanes(const uint16_t *grid, v128_t numbers) {
  uint16_t in_memory[8];
  const uint16_t *at = in_memory;
  wasm_v128_store(in_memory, wasm_i16x8_shl(numbers, 1));
  __asm__("" : "+r"(at)::"memory");
  const uint32_t offset[8] = {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]};
  return fm_load_entries_at(grid, offset);
}

/* 8 bytes in 16-bit lanes. */
FM_INLINE v128_t fm_load_8_bytes(const void *bytes) { return wasm_u16x8_load8x8(bytes); }

/* The sign bytes of 8 times 8 values, one in each 16-bit lane, from 8 bytes. */
FM_INLINE v128_t fm_sign_lanes(uint64_t eight_bytes) {
  return wasm_u16x8_extend_low_u8x16(wasm_i64x2_make((int64_t)eight_bytes, 0));
}

/* The constants of a decoder. */
typedef struct {
  v128_t fields, sign, nibbles, table;
} fm_grid_held;

FM_INLINE fm_grid_held fm_hold_grid(int8_t fields, int8_t sign, const uint8_t table[16]) {
  return (fm_grid_held){fm_hold_i8(fields), fm_hold_i8(sign), fm_hold_i8(15), fm_hold(table)};
}

/* 64 codes from 8 entries of 2-bit fields. A byte of an entry has four fields, and gets the four
 * signs that belong to them. */
FM_INLINE void fm_store_64_of_2_bits(v128_t entries, v128_t sign_lanes, const fm_grid_held *held,
                                     uint8_t *codes) {
  v128_t signs =
      wasm_v128_and(wasm_v128_or(sign_lanes, wasm_i16x8_shl(sign_lanes, 4)), held->nibbles);
  v128_t field[4];
  for (int k = 0; k < 4; k++) {
    field[k] = wasm_v128_or(fm_move_bits(entries, 2 * k, 0, held->fields),
                            fm_move_bits(signs, k, 2, held->sign));
  }
  fm_interleave_fields(field);
  for (int k = 0; k < 4; k++) wasm_v128_store(codes + 16 * k, fm_lookup(held->table, field[k]));
}

/* 32 codes from 8 entries of 4-bit fields, and as many signs. */
FM_INLINE void fm_store_32_of_4_bits(v128_t entries, uint32_t signs, const fm_grid_held *held,
                                     v128_t bits, uint8_t *codes) {
  v128_t even = fm_move_bits(entries, 0, 0, held->fields),
         odd = fm_move_bits(entries, 4, 0, held->fields), of[2];
  v128_t field[2] = {fm_interleave_low8(even, odd), fm_interleave_high8(even, odd)};
  fm_bytes_by_8(signs, of);
  for (int k = 0; k < 2; k++) {
    v128_t minus = wasm_i8x16_eq(wasm_v128_and(of[k], bits), bits);
    wasm_v128_store(
        codes + 16 * k,
        fm_lookup(held->table, wasm_v128_or(field[k], wasm_v128_and(minus, held->sign))));
  }
}

/* The signs of 64 values from two 32-bit integers with 4 x 7 bits each: 8 bytes. */
FM_INLINE uint64_t fm_even_signs64(uint32_t first, uint32_t second) {
  uint64_t packed = first | (uint64_t)second << 32;
  uint64_t signs = (packed & 0x0000007f0000007fu) | (packed << 1 & 0x00007f0000007f00u) |
                   (packed << 2 & 0x007f0000007f0000u) | (packed << 3 & 0x7f0000007f000000u);
  uint64_t parity = signs ^ signs >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return signs | (parity & 0x0101010101010101u) << 7;
}

/* 2 * scale + 1. */
FM_INLINE v128_t fm_odd_scales(v128_t scales) {
  return wasm_v128_or(wasm_i16x8_shl(scales, 1), wasm_i16x8_const_splat(1));
}

/* 8 or 16 scales of 4 bits, the lower nibbles first. */
FM_INLINE void fm_store_nibble_scales(uint64_t packed, size_t n, int16_t *scale) {
  v128_t bytes = fm_sign_lanes(packed); /* a lane has two scales */
  v128_t pairs = wasm_v128_or(wasm_v128_and(bytes, wasm_i16x8_const_splat(15)),
                              wasm_i16x8_shl(wasm_u16x8_shr(bytes, 4), 8));
  wasm_v128_store(scale, fm_odd_scales(wasm_u16x8_extend_low_u8x16(pairs)));
  if (n > 8) wasm_v128_store(scale + 8, fm_odd_scales(wasm_u16x8_extend_high_u8x16(pairs)));
}

FM_INLINE uint32_t fm_load_u32(const void *at) {
  uint32_t value;
  memcpy(&value, at, 4);
  return value;
}
FM_INLINE uint64_t fm_load_u64(const void *at) {
  uint64_t value;
  memcpy(&value, at, 8);
  return value;
}

/* IQ2: codes -43..43 plus 43. */
#define FM_IQ2_BIAS 43
static const uint8_t fm_iq2_table[16] = {43 + 8, 43 + 25, 43 + 43, 0, 43 - 8, 43 - 25, 43 - 43, 0};

FM_INLINE fm_grid_held fm_iq2_hold(void) { return fm_hold_grid(3, 4, fm_iq2_table); }

/* IQ2_XXS */

static void unpack_iq2_xxs(const fm_block_iq2_xxs *b, uint8_t *codes) {
  fm_grid_held held = fm_iq2_hold();
  FM_NO_UNROLL
  for (size_t k = 0; k < 4; k++, codes += 64) {
    const uint8_t *at = (const uint8_t *)(b->qs + 8 * k);
    const uint32_t number[8] = {at[0], at[1], at[2], at[3], at[8], at[9], at[10], at[11]};
    uint64_t signs = fm_even_signs64(fm_load_u32(at + 4), fm_load_u32(at + 12));
    fm_store_64_of_2_bits(fm_load_entries(fm_iq2_xxs_grid, number), fm_sign_lanes(signs), &held,
                          codes);
  }
}
FM_INLINE float integers_iq2_xxs(const fm_block_iq2_xxs *b, int16_t *scale) {
  const uint16_t *qs = b->qs;
  v128_t lo = wasm_i32x4_shuffle(wasm_v128_load(qs), wasm_v128_load(qs + 8), 1, 3, 5, 7);
  v128_t hi = wasm_i32x4_shuffle(wasm_v128_load(qs + 16), wasm_v128_load(qs + 24), 1, 3, 5, 7);
  v128_t scales =
      fm_odd_scales(wasm_i16x8_narrow_i32x4(wasm_u32x4_shr(lo, 28), wasm_u32x4_shr(hi, 28)));
  wasm_v128_store(scale, scales);
  return fm_f16_to_f32(b->d) * 0.125f;
}
FM_UNPACKED_SIMD128(iq2_xxs, K, 32, 86, FM_IQ2_BIAS)

/* IQ2_XS */

static void unpack_iq2_xs(const fm_block_iq2_xs *b, uint8_t *codes) {
  fm_grid_held held = fm_iq2_hold();
  v128_t lowest = fm_hold_i32(0x00010001), number = fm_hold_i32(0x01ff01ff);
  FM_NO_UNROLL
  for (size_t k = 0; k < 4; k++, codes += 64) {
    const uint16_t *qs = b->qs + 8 * k;
    v128_t packed = wasm_v128_load(qs);
    v128_t seven = wasm_u16x8_shr(packed, 9);
    v128_t parity = wasm_v128_xor(seven, wasm_u16x8_shr(seven, 4));
    parity = wasm_v128_xor(parity, wasm_u16x8_shr(parity, 2));
    parity = wasm_v128_and(wasm_v128_xor(parity, wasm_u16x8_shr(parity, 1)), lowest);
    fm_store_64_of_2_bits(fm_load_entries_of_lanes(fm_iq2_xs_grid, wasm_v128_and(packed, number)),
                          wasm_v128_or(seven, wasm_i16x8_shl(parity, 7)), &held, codes);
  }
}
FM_INLINE float integers_iq2_xs(const fm_block_iq2_xs *b, int16_t *scale) {
  fm_store_nibble_scales(fm_load_u64(b->scales), 16, scale);
  return fm_f16_to_f32(b->d) * 0.125f;
}
FM_UNPACKED_SIMD128(iq2_xs, K, 16, 86, FM_IQ2_BIAS)

/* IQ2_S */

static void unpack_iq2_s(const fm_block_iq2_s *b, uint8_t *codes) {
  fm_grid_held held = fm_iq2_hold();
  FM_NO_UNROLL
  for (size_t k = 0; k < 4; k++, codes += 64) {
    uint32_t number[8];
    for (size_t i = 0; i < 8; i++)
      number[i] = b->qs[8 * k + i] | ((uint32_t)b->qh[2 * k + i / 4] << (8 - 2 * (i % 4)) & 0x300);
    fm_store_64_of_2_bits(fm_load_entries(fm_iq2_s_grid, number), fm_load_8_bytes(b->signs + 8 * k),
                          &held, codes);
  }
}
FM_INLINE float integers_iq2_s(const fm_block_iq2_s *b, int16_t *scale) {
  fm_store_nibble_scales(fm_load_u64(b->scales), 16, scale);
  return fm_f16_to_f32(b->d) * 0.125f;
}
FM_UNPACKED_SIMD128(iq2_s, K, 16, 86, FM_IQ2_BIAS)

/* IQ3_XXS: codes -62..62 plus 62. */

static const uint8_t fm_iq3_xxs_table[16] = {62 + 4,  62 + 12, 62 + 20, 62 + 28, 62 + 36, 62 + 44,
                                             62 + 52, 62 + 62, 62 - 4,  62 - 12, 62 - 20, 62 - 28,
                                             62 - 36, 62 - 44, 62 - 52, 62 - 62};

static void unpack_iq3_xxs(const fm_block_iq3_xxs *b, uint8_t *codes) {
  fm_grid_held held = fm_hold_grid(7, 8, fm_iq3_xxs_table);
  v128_t bits = fm_hold(fm_bits_of_bytes);
  FM_NO_UNROLL
  for (size_t k = 0; k < 4; k++, codes += 64) {
    const uint8_t *packed = b->scales_signs + 8 * k;
    uint64_t signs = fm_even_signs64(fm_load_u32(packed), fm_load_u32(packed + 4));
    FM_UNROLL
    for (size_t sub = 0; sub < 2; sub++, signs >>= 32) {
      const uint8_t *qs = b->qs + 16 * k + 8 * sub;
      const uint32_t number[8] = {qs[0], qs[1], qs[2], qs[3], qs[4], qs[5], qs[6], qs[7]};
      fm_store_32_of_4_bits(fm_load_entries(fm_iq3_xxs_grid, number), (uint32_t)signs, &held, bits,
                            codes + 32 * sub);
    }
  }
}
FM_INLINE float integers_iq3_xxs(const fm_block_iq3_xxs *b, int16_t *scale) {
  const uint8_t *packed = b->scales_signs;
  v128_t scales = fm_odd_scales(wasm_i16x8_narrow_i32x4(
      wasm_u32x4_shr(wasm_v128_load(packed), 28), wasm_u32x4_shr(wasm_v128_load(packed + 16), 28)));
  wasm_v128_store(scale, scales);
  return fm_f16_to_f32(b->d) * 0.25f;
}
FM_UNPACKED_SIMD128(iq3_xxs, K, 32, 124, 62)

/* IQ3_S: codes -15..15 plus 15. */

static const uint8_t fm_iq3_s_table[16] = {15 + 1,  15 + 3,  15 + 5,  15 + 7, 15 + 9, 15 + 11,
                                           15 + 13, 15 + 15, 15 - 1,  15 - 3, 15 - 5, 15 - 7,
                                           15 - 9,  15 - 11, 15 - 13, 15 - 15};

static void unpack_iq3_s(const fm_block_iq3_s *b, uint8_t *codes) {
  fm_grid_held held = fm_hold_grid(7, 8, fm_iq3_s_table);
  v128_t bits = fm_hold(fm_bits_of_bytes);
  static const uint16_t factors[8] = {256, 128, 64, 32, 16, 8, 4, 2};
  v128_t to_bit_8 = fm_hold(factors), upper = fm_hold_i32(0x01000100);
  FM_NO_UNROLL
  for (size_t sub = 0; sub < 8; sub++, codes += 32) {
    /* Bit i of qh belongs to entry i: a product moves it to bit 8. */
    v128_t high = wasm_i16x8_mul(wasm_i16x8_splat(b->qh[sub]), to_bit_8);
    v128_t numbers = wasm_v128_or(fm_load_8_bytes(b->qs + 8 * sub), wasm_v128_and(high, upper));
    fm_store_32_of_4_bits(fm_load_entries_of_lanes(fm_iq3_s_grid, numbers),
                          fm_load_u32(b->signs + 4 * sub), &held, bits, codes);
  }
}
FM_INLINE float integers_iq3_s(const fm_block_iq3_s *b, int16_t *scale) {
  fm_store_nibble_scales(fm_load_u32(b->scales), 8, scale);
  return fm_f16_to_f32(b->d);
}
FM_UNPACKED_SIMD128(iq3_s, K, 32, 30, 15)

/* IQ1: codes 8 * ternary +- 1 plus 9, which is 8 * field + 2, or 8 * field where delta is
 * negative. */
#define FM_IQ1_BIAS 9

/* 64 codes from 8 entries; deltas: 2 or 0 in both bytes of an entry's lane. */
FM_INLINE void fm_store_64_of_iq1(v128_t entries, v128_t deltas, v128_t fields, uint8_t *codes) {
  v128_t field[4];
  for (int k = 0; k < 4; k++)
    field[k] = wasm_v128_or(fm_move_bits(entries, 2 * k, 3, fields), deltas);
  fm_interleave_fields(field);
  for (int k = 0; k < 4; k++) wasm_v128_store(codes + 16 * k, field[k]);
}

/* IQ1_S */

static void unpack_iq1_s(const fm_block_iq1_s *b, uint8_t *codes) {
  v128_t fields = fm_hold_i8(0x18);
  FM_NO_UNROLL
  for (size_t k = 0; k < 4; k++, codes += 64) {
    uint32_t number[8], first = b->qh[2 * k], second = b->qh[2 * k + 1];
    for (size_t i = 0; i < 8; i++) {
      uint32_t high = (i < 4 ? first : second) >> 3 * (i % 4) & 7;
      number[i] = b->qs[8 * k + i] | high << 8;
    }
    const int64_t twos = 0x0202020202020202;
    v128_t deltas = wasm_i64x2_make(first >> 15 ? 0 : twos, second >> 15 ? 0 : twos);
    fm_store_64_of_iq1(fm_load_entries(fm_iq1_s_grid, number), deltas, fields, codes);
  }
}
FM_INLINE float integers_iq1_s(const fm_block_iq1_s *b, int16_t *scale) {
  v128_t qh = wasm_v128_load(b->qh);
  v128_t scales = fm_odd_scales(wasm_v128_and(wasm_u16x8_shr(qh, 12), wasm_i16x8_const_splat(7)));
  wasm_v128_store(scale, scales);
  return fm_f16_to_f32(b->d) * 0.125f;
}
FM_UNPACKED_SIMD128(iq1_s, K, 32, 18, FM_IQ1_BIAS)

/* IQ1_M */

static void unpack_iq1_m(const fm_block_iq1_m *b, uint8_t *codes) {
  v128_t fields = fm_hold_i8(0x18), fourth = fm_hold_i32(0x00080008), twos = fm_hold_i8(2);
  FM_NO_UNROLL
  for (size_t k = 0; k < 4; k++, codes += 64) {
    uint32_t number[8], high = fm_load_u32(b->qh + 4 * k);
    for (size_t i = 0; i < 8; i++) number[i] = b->qs[8 * k + i] | (high >> 4 * i & 7) << 8;
    /* Nibble i of `high` in lane i: its bit 3 tells the sign of delta. */
    v128_t bytes = wasm_i32x4_make((int32_t)high, 0, 0, 0);
    v128_t lanes = wasm_u16x8_extend_low_u8x16(fm_interleave_low8(bytes, wasm_u16x8_shr(bytes, 4)));
    v128_t minus = wasm_i16x8_eq(wasm_v128_and(lanes, fourth), fourth);
    fm_store_64_of_iq1(fm_load_entries(fm_iq1_s_grid, number), wasm_v128_andnot(twos, minus),
                       fields, codes);
  }
}
FM_INLINE float integers_iq1_m(const fm_block_iq1_m *b, int16_t *scale) {
  uint64_t four = fm_load_u64(b->scales);
  v128_t v = wasm_i64x2_splat((int64_t)four);
  /* A product moves the three bits of a lane to the top. */
  v128_t to_top =
      wasm_i16x8_const(1 << 13, 1 << 10, 1 << 7, 1 << 4, 1 << 13, 1 << 10, 1 << 7, 1 << 4);
  v128_t lo = wasm_i16x8_shuffle(v, v, 0, 0, 0, 0, 1, 1, 1, 1),
         hi = wasm_i16x8_shuffle(v, v, 2, 2, 2, 2, 3, 3, 3, 3);
  wasm_v128_store(scale, fm_odd_scales(wasm_u16x8_shr(wasm_i16x8_mul(lo, to_top), 13)));
  wasm_v128_store(scale + 8, fm_odd_scales(wasm_u16x8_shr(wasm_i16x8_mul(hi, to_top), 13)));
  return fm_f16_to_f32(fm_iq1_m_d(b)) * 0.125f;
}
FM_UNPACKED_SIMD128(iq1_m, K, 16, 18, FM_IQ1_BIAS)
