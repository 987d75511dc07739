/* The decoders of Q1_0, Q2_0 and NVFP4: 2 or 4 blocks are a group. Layouts: formats/blocks.h. */

#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "kernels/nibbles.h"
#include "kernels/spread.h"
#include "kernels/unpacked.h"

/* Q1_0: codes 0 and 2 for -1 and 1. */

static void unpack_q1_0(const fm_block_q1_0 *b, uint8_t *codes) {
  v128_t bit = fm_hold(fm_bits_of_bytes), two = fm_hold_i8(2);
  FM_NO_UNROLL
  for (size_t k = 0; k < 8; k++, codes += 32) {
    v128_t of[2];
    uint32_t four;
    memcpy(&four, b[k / 4].qs + 4 * (k % 4), 4);
    fm_bytes_by_8(four, of);
    for (size_t i = 0; i < 2; i++) {
      v128_t is_set = wasm_i8x16_eq(wasm_v128_and(of[i], bit), bit);
      wasm_v128_store(codes + 16 * i, wasm_v128_and(is_set, two));
    }
  }
}
static void scales_q1_0(const fm_block_q1_0 *b, float *scale) {
  for (size_t i = 0; i < 2; i++)
    wasm_v128_store(scale + 4 * i, wasm_f32x4_splat(fm_f16_to_f32(b[i].d)));
}

FM_UNPACKED_SIMD128(q1_0, F32, 32, 2, 1)

/* Q2_0: codes 0..3 for -1..2. */

static void unpack_q2_0(const fm_block_q2_0 *b, uint8_t *codes) {
  v128_t low = fm_hold_i8(3);
  FM_NO_UNROLL
  for (size_t k = 0; k < 4; k++, codes += 64) {
    v128_t packed = wasm_v128_load(b[k].qs), field[4];
    for (int i = 0; i < 4; i++) field[i] = fm_move_bits(packed, 2 * i, 0, low);
    fm_interleave_fields(field);
    for (size_t i = 0; i < 4; i++) wasm_v128_store(codes + 16 * i, field[i]);
  }
}
static void scales_q2_0(const fm_block_q2_0 *b, float *scale) {
  for (size_t i = 0; i < 8; i++) scale[i] = fm_f16_to_f32(b[i / 2].d);
}

FM_UNPACKED_SIMD128(q2_0, F32, 32, 3, 1)

/* NVFP4: codes are the values -12..12 plus 12, as in MXFP4. */

static const uint8_t fm_e2m1_plus_12[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                            12, 11, 10, 9,  8,  6,  4,  0};
static void unpack_nvfp4(const fm_block_nvfp4 *b, uint8_t *codes) {
  v128_t low = fm_hold_i8(15), table = fm_hold(fm_e2m1_plus_12);
  FM_NO_UNROLL
  for (size_t k = 0; k < 8; k++, codes += 32) { /* two sub-blocks */
    v128_t packed = wasm_v128_load(b[k / 2].qs + 16 * (k % 2));
    v128_t first = fm_lookup(table, fm_move_bits(packed, 0, 0, low)),
           last = fm_lookup(table, fm_move_bits(packed, 4, 0, low));
    wasm_v128_store(codes, wasm_i64x2_shuffle(first, last, 0, 2));
    wasm_v128_store(codes + 16, wasm_i64x2_shuffle(first, last, 1, 3));
  }
}
/* As fm_ue4m3_half_to_f32, four at once. */
static void scales_nvfp4(const fm_block_nvfp4 *b, float *scale) {
  FM_NO_UNROLL
  for (size_t i = 0; i < 4; i++) {
    v128_t byte = wasm_i32x4_make(b[i].d[0], b[i].d[1], b[i].d[2], b[i].d[3]);
    v128_t bits = wasm_v128_and(byte, wasm_i32x4_const_splat(0x7f));
    v128_t normal =
        wasm_i32x4_add(wasm_i32x4_shl(bits, 20), wasm_i32x4_const_splat((int32_t)(119u << 23)));
    v128_t subnormal =
        wasm_f32x4_mul(wasm_f32x4_convert_i32x4(bits), wasm_f32x4_const_splat(0x1p-10f));
    v128_t value =
        wasm_v128_bitselect(normal, subnormal, wasm_i32x4_gt(bits, wasm_i32x4_const_splat(7)));
    v128_t is_nan = wasm_i32x4_eq(byte, wasm_i32x4_const_splat(0x7f));
    wasm_v128_store(scale + 4 * i, wasm_v128_andnot(value, is_nan));
  }
}

FM_UNPACKED_SIMD128(nvfp4, F32, 16, 24, 12)
