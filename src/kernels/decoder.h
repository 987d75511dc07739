/* The decoder of a weight type for the SIMD kernels: how codes and scales come out of the bytes of
 * a group, which is 256 columns of one row (one super-block, or 8 blocks of 32).
 *
 *   value = scale[sub] * (code - bias) - min[sub]
 *
 * FM_SCALES_K    scale[sub] = d * int6, min[sub] = dmin * int6: integers that the int8 kernels
 *                apply to int32 sums. A sub-block has 16 or 32 columns.
 * FM_SCALES_F32  scale[sub], min[sub] are f32; a sub-block has 32 columns.
 *
 * The kernels in decoder_simd128.h and decoder_relaxed.h are written once, for any decoder. A
 * type's file instantiates them with a constant decoder, which the compiler folds away:
 * FM_KERNELS(name, scales) or, for wide codes, FM_WIDE_KERNELS(name, scales) beside a decoder makes
 * its kernels for the instruction set of the file that includes it. FM_KERNELS_FOR_MANY(name) does
 * so for a K type, with relaxed SIMD kernels for several tokens. Types whose codes are slow to
 * decode one vector at a time have no such decoder: see unpacked.h.
 *
 * A group is decoded in two halves of 128 columns, each of 8 vectors of 16 codes. The half is a
 * loop variable and the vector a constant, which keeps the code small and its shifts immediate. */
#ifndef FM_KERNELS_DECODER_H
#define FM_KERNELS_DECODER_H

#include <assert.h>

#include "kernels/coded.h"
#include "kernels/v128.h"

#define FM_GROUP_COLS 256

/* The integer scales (mins) of a K type, int16: lane s of lo (hi) belongs to sub-block s (s + 8).
 * hi is used where sub-blocks have 16 columns. */
typedef struct {
  v128_t lo, hi;
} fm_lanes16;

/* The f16 scales of a super-block; dmin only where the type has mins. */
typedef struct {
  uint16_t d, dmin;
} fm_f16_scales;

typedef struct {
  float d, dmin;
} fm_d_dmin;

/* 16 codes of 4 bits: the lower or the upper ones of 16 bytes. */
typedef struct {
  v128_t bytes;
  bool upper;
} fm_nibbles;

/* The constants that a decoder's functions use, kept in registers across a kernel's loops; see
 * v128.h. */
typedef struct {
  v128_t low, high;          /* masks of a code's low and high bits at their places */
  v128_t table;              /* 16 bytes that codes index */
  v128_t bit, first, second; /* for fm_fifth_bits */
  v128_t ones;               /* int16 */
  v128_t even_bytes; /* mask of the lower byte of 16-bit lanes, or of nibbles their lowest */
  v128_t wide;       /* a mask: xor with it adds fm_wide_bias to wide codes */
  fm_f16_held f16;
} fm_held;

typedef struct {
  fm_layout layout;
  fm_held (*hold)(void);
  /* 16 codes, of columns 128 * half + 16 * j .. + 15; 0..63, or int8 where the layout is wide. NULL
   * where decoding one vector at a time is expensive: unpack then decodes all 256. */
  v128_t (*codes)(const uint8_t *group, size_t half, size_t j, const fm_held *held);
  void (*unpack)(const uint8_t *group, uint8_t *codes);
  /* The 16 bytes that hold these codes, where codes are plain nibbles; NULL elsewhere. */
  fm_nibbles (*nibbles)(const uint8_t *group, size_t half, size_t j);
  /* FM_SCALES_K */
  fm_lanes16 (*k_scales)(const uint8_t *group);
  fm_lanes16 (*k_mins)(const uint8_t *group);
  fm_f16_scales (*f16_scales)(const uint8_t *group);
  /* FM_SCALES_F32: four scales (mins); a lane is for 32 columns, from 128 * half + 32 * lane on. */
  v128_t (*f32_scales)(const uint8_t *group, size_t half, const fm_held *held);
  v128_t (*f32_mins)(const uint8_t *group, size_t half, const fm_held *held);
  bool straight; /* int8, dot32: no loop over the halves; larger code, and faster */
} fm_decoder;

/* Initialises the parts of a layout that depend on its sub-blocks: the columns that share a scale,
 * and the largest code (255 for wide codes). n pair sums of codes and int8 activations fit int16
 * where n * 2 * 127 * max_code < 2^15; n_add is the largest such power of two, at most 8: 8 for
 * codes up to 15 (30,480), 4 up to 31 (31,496), 2 up to 63 (32,004). The int32 lanes of a sub-block
 * have to fit int16 too, since fm_two_subs packs those of two. */
#define FM_IS_WIDE(max_code) ((max_code) == 255)
#define FM_PAIR_SUMS(max_code) (INT16_MAX / (2 * 127 * (max_code)))
#define FM_N_ADD(max_code)                                                                         \
  (FM_PAIR_SUMS(max_code) >= 8   ? 8                                                               \
   : FM_PAIR_SUMS(max_code) >= 4 ? 4                                                               \
   : FM_PAIR_SUMS(max_code) >= 2 ? 2                                                               \
                                 : 0)
#define FM_SUB_BLOCKS(columns, max_code)                                                           \
  .sub = (columns), .wide = FM_IS_WIDE(max_code),                                                  \
  .n_add =                                                                                         \
      FM_N_ADD(max_code) +                                                                         \
      0 * sizeof(struct {                                                                          \
        static_assert((columns) == 16 || (columns) == 32, "sub-blocks have 16 or 32 columns");     \
        static_assert(FM_IS_WIDE(max_code) || FM_N_ADD(max_code) > 0, "codes are 0..63, or wide"); \
        static_assert(FM_N_ADD(max_code) * 2 * 127 * (max_code) <= INT16_MAX,                      \
                      "n_add pair sums fit int16");                                                \
        static_assert(FM_IS_WIDE(max_code) || (columns) / 4 * 127 * (max_code) <= INT16_MAX,       \
                      "a lane of a sub-block fits int16");                                         \
        char none;                                                                                 \
      })

/* Splats lane i, which is a constant once loops are unrolled. */
typedef int32_t fm_i32x4 __attribute__((vector_size(16)));
FM_INLINE v128_t fm_splat_i32(v128_t v, size_t i) { return wasm_i32x4_splat(((fm_i32x4)v)[i]); }

/* Moves the bits of every byte from bit `from` to bit `to`, and masks them there. x86 has no byte
 * shifts: this is a 16-bit shift, and the mask removes bits of the neighbour. */
FM_INLINE v128_t fm_move_bits(v128_t bytes, int from, int to, v128_t mask) {
  if (from > to) bytes = wasm_u16x8_shr(bytes, (uint32_t)(from - to));
  if (from < to) bytes = wasm_i16x8_shl(bytes, (uint32_t)(to - from));
  return wasm_v128_and(bytes, mask);
}

/* Lanes 0..3 or 4..7 of int16 as f32. */
FM_INLINE v128_t fm_low_i16_to_f32(v128_t v) {
  return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(v));
}
FM_INLINE v128_t fm_high_i16_to_f32(v128_t v) {
  return wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(v));
}

FM_INLINE fm_d_dmin fm_decoder_d(const fm_decoder *decoder, const uint8_t *group) {
  fm_f16_scales stored = decoder->f16_scales(group);
  return (fm_d_dmin){fm_f16_by_table(stored.d),
                     decoder->layout.has_min ? fm_f16_by_table(stored.dmin) : 0.0f};
}

/* The bytes that codes are read from: the group itself or, for a decoder with unpack, a buffer that
 * it fills. */
FM_INLINE const uint8_t *fm_code_bytes(const fm_decoder *decoder, const uint8_t *group,
                                       uint8_t buffer[256]) {
  if (!decoder->unpack) return group;
  decoder->unpack(group, buffer);
  return buffer;
}
FM_INLINE v128_t fm_decoder_codes(const fm_decoder *decoder, const uint8_t *bytes, size_t half,
                                  size_t j, const fm_held *held) {
  return decoder->codes ? decoder->codes(bytes, half, j, held)
                        : wasm_v128_load(bytes + 128 * half + 16 * j);
}

/* {sum a, sum b, sum c, sum d} of four int32 vectors. */
FM_INLINE v128_t fm_sum_four(v128_t a, v128_t b, v128_t c, v128_t d) {
  v128_t ab =
      wasm_i32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
  v128_t cd =
      wasm_i32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
  return wasm_i32x4_add(wasm_i64x2_shuffle(ab, cd, 0, 2), wasm_i64x2_shuffle(ab, cd, 1, 3));
}

#endif
