/* The blocks of the weight types, as GGUF files hold them (little-endian, no padding). Source of
 * every layout: the GGUF specification and ggml's published block definitions; MXFP4 also the OCP
 * Microscaling specification.
 *
 * Bit drawings: most significant bit on the left; qs[i] names a byte. */
#ifndef FM_FORMATS_BLOCKS_H
#define FM_FORMATS_BLOCKS_H

#include <stdint.h>

#include <assert.h>

typedef uint16_t fm_f16; /* the bits of an IEEE 754 binary16 */

/* ---- floats: a block is one value ---- */

typedef float fm_block_f32;
typedef fm_f16 fm_block_f16;
typedef uint16_t fm_block_bf16; /* bfloat16: the upper 16 bits of binary32 */

/* ---- blocks of 32 values ---- */

/* Q4_0: 32 values, 4.5 bits a weight.
 *   value = d * (code - 8),  code 0..15
 *
 * qs[l] = [ code of value 16 + l | code of value l ],  l = 0..15 */
typedef struct {
  fm_f16 d;
  uint8_t qs[16];
} fm_block_q4_0;
static_assert(sizeof(fm_block_q4_0) == 18, "Q4_0 block");

/* Q4_1: 32 values, 5 bits a weight.
 *   value = d * code + m,  code 0..15
 *
 * qs as in Q4_0. */
typedef struct {
  fm_f16 d;
  fm_f16 m;
  uint8_t qs[16];
} fm_block_q4_1;
static_assert(sizeof(fm_block_q4_1) == 20, "Q4_1 block");

/* Q5_0: 32 values, 5.5 bits a weight.
 *   value = d * (code - 16),  code 0..31
 *
 * qs[l] = [ low 4 bits of value 16 + l | low 4 bits of value l ],  l = 0..15
 * qh, as one 32-bit integer: bit i is bit 4 of the code of value i. It is an array of bytes because
 * it is only 2-byte aligned. */
typedef struct {
  fm_f16 d;
  uint8_t qh[4];
  uint8_t qs[16];
} fm_block_q5_0;
static_assert(sizeof(fm_block_q5_0) == 22, "Q5_0 block");

/* Q5_1: 32 values, 6 bits a weight.
 *   value = d * code + m,  code 0..31
 *
 * qh and qs as in Q5_0. */
typedef struct {
  fm_f16 d;
  fm_f16 m;
  uint8_t qh[4];
  uint8_t qs[16];
} fm_block_q5_1;
static_assert(sizeof(fm_block_q5_1) == 24, "Q5_1 block");

/* Q8_0: 32 values, 8.5 bits a weight.
 *   value = d * qs[i],  qs -128..127 */
typedef struct {
  fm_f16 d;
  int8_t qs[32];
} fm_block_q8_0;
static_assert(sizeof(fm_block_q8_0) == 34, "Q8_0 block");

/* IQ4_NL: 32 values, 4.5 bits a weight, not linear.
 *   value = d * fm_iq4_values[code],  code 0..15; table in formats/tables.h, -127..113
 *
 * qs as in Q4_0. */
typedef struct {
  fm_f16 d;
  uint8_t qs[16];
} fm_block_iq4_nl;
static_assert(sizeof(fm_block_iq4_nl) == 18, "IQ4_NL block");

/* MXFP4: 32 values, 4.25 bits a weight; e2m1 codes with an e8m0 scale.
 *   value = 2^(e - 128) * fm_mxfp4_values[code],  code 0..15; table in formats/tables.h, -12..12
 * The table holds twice the e2m1 values, so that they are integers; hence 128 where e8m0 has 127.
 *
 * qs as in Q4_0; a code is [ sign | exponent, 2 bits | mantissa, 1 bit ]. */
typedef struct {
  uint8_t e;
  uint8_t qs[16];
} fm_block_mxfp4;
static_assert(sizeof(fm_block_mxfp4) == 17, "MXFP4 block");

/* ---- blocks of 64 and 128 values ---- */

/* Q1_0: 128 values, 1.125 bits a weight.
 *   value = d * (2 * bit - 1)
 *
 * qs, as one integer: bit i belongs to value i. */
typedef struct {
  fm_f16 d;
  uint8_t qs[16];
} fm_block_q1_0;
static_assert(sizeof(fm_block_q1_0) == 18, "Q1_0 block");

/* Q2_0: 64 values, 2.25 bits a weight.
 *   value = d * (code - 1),  code 0..3
 *
 * qs[l] = [ value 4*l + 3 | 4*l + 2 | 4*l + 1 | 4*l ],  2 bits each, l = 0..15 */
typedef struct {
  fm_f16 d;
  uint8_t qs[16];
} fm_block_q2_0;
static_assert(sizeof(fm_block_q2_0) == 18, "Q2_0 block");

/* NVFP4: 64 values, 4 sub-blocks of 16, 4.5 bits a weight; e2m1 codes with ue4m3 scales.
 *   value = d[sub] / 2 * fm_mxfp4_values[code],  code 0..15; d: formats/ue4m3.h
 * A file has one more f32 scale for the whole tensor, in a tensor of its own.
 *
 * qs[8*sub + l] = [ code of value 16*sub + 8 + l | code of value 16*sub + l ],  l = 0..7 */
typedef struct {
  uint8_t d[4];
  uint8_t qs[32];
} fm_block_nvfp4;
static_assert(sizeof(fm_block_nvfp4) == 36, "NVFP4 block");

/* ---- super-blocks of 256 values ---- */

/* Q2_K: super-block of 256 values, 16 sub-blocks of 16, 2.625 bits a weight.
 *   value = d * scale[sub] * code - dmin * min[sub],  code 0..3, scale and min 0..15
 *
 * scales[sub] = [ min[sub] | scale[sub] ],  4 bits each
 * qs[64]: 32 bytes for each half h of 128 values, h = 0, 1:
 *   qs[32*h + l] = [ value 128*h + 96 + l | 128*h + 64 + l | 128*h + 32 + l | 128*h + l ]
 *                  2 bits each, l = 0..31 */
typedef struct {
  uint8_t scales[16];
  uint8_t qs[64];
  fm_f16 d;
  fm_f16 dmin;
} fm_block_q2_k;
static_assert(sizeof(fm_block_q2_k) == 84, "Q2_K block");

/* Q3_K: super-block of 256 values, 16 sub-blocks of 16, 3.4375 bits a weight.
 *   value = d * (scale[sub] - 32) * (code - 4),  code 0..7, scale 0..63
 *
 * hmask[l]: bit k is bit 2 of the code of value 32*k + l,  l = 0..31, k = 0..7
 * qs[64]: bits 1..0 of the codes, placed as in Q2_K
 * scales[12] holds sixteen 6-bit scales:
 *   scales[j]    j < 8:  [ scale[j+8] bits 3..0 | scale[j] bits 3..0 ]
 *   scales[j+8]  j < 4:  [ scale[j+12] | scale[j+8] | scale[j+4] | scale[j] ],  2 upper bits */
typedef struct {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  fm_f16 d;
} fm_block_q3_k;
static_assert(sizeof(fm_block_q3_k) == 110, "Q3_K block");

/* Q4_K: super-block of 256 values, 8 sub-blocks of 32, 4.5 bits a weight.
 *   value = d * scale[sub] * code - dmin * min[sub],  code 0..15, scale and min 0..63
 *
 * scales[12] holds eight 6-bit scales and eight 6-bit mins:
 *   scales[j]    j < 4:  [ scale[j+4] bits 5..4 | scale[j] bits 5..0 ]
 *   scales[j+4]  j < 4:  [ min[j+4]   bits 5..4 | min[j]   bits 5..0 ]
 *   scales[j+8]  j < 4:  [ min[j+4]   bits 3..0 | scale[j+4] bits 3..0 ]
 * qs[128]: 32 bytes for each quarter n of 64 values, n = 0..3:
 *   qs[32*n + l] = [ code of value 64*n + 32 + l | code of value 64*n + l ],  l = 0..31 */
typedef struct {
  fm_f16 d;
  fm_f16 dmin;
  uint8_t scales[12];
  uint8_t qs[128];
} fm_block_q4_k;
static_assert(sizeof(fm_block_q4_k) == 144, "Q4_K block");

/* Q5_K: super-block of 256 values, 8 sub-blocks of 32, 5.5 bits a weight.
 *   value = d * scale[sub] * code - dmin * min[sub],  code 0..31, scale and min 0..63
 *
 * scales[12] as in Q4_K; qs[128]: bits 3..0 of the codes, placed as in Q4_K
 * qh[l]: bit sub is bit 4 of the code of value 32*sub + l,  l = 0..31 */
typedef struct {
  fm_f16 d;
  fm_f16 dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
} fm_block_q5_k;
static_assert(sizeof(fm_block_q5_k) == 176, "Q5_K block");

/* Q6_K: super-block of 256 values, 16 sub-blocks of 16, 6.5625 bits a weight.
 *   value = d * scales[sub] * (code - 32),  code 0..63, scales -128..127
 *
 * 2 halves h of 128 values; l = 0..31:
 *   ql[64*h + l]      = [ value 128*h + 64 + l | value 128*h + l      ],  bits 3..0 of each code
 *   ql[64*h + 32 + l] = [ value 128*h + 96 + l | value 128*h + 32 + l ],  bits 3..0 of each code
 *   qh[32*h + l] = [ value 128*h + 96 + l | 128*h + 64 + l | 128*h + 32 + l | 128*h + l ]
 *                  bits 5..4 of each code */
typedef struct {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  fm_f16 d;
} fm_block_q6_k;
static_assert(sizeof(fm_block_q6_k) == 210, "Q6_K block");

/* Q8_K: super-block of 256 values, 9.125 bits a weight.
 *   value = d * qs[i],  qs -128..127; d is binary32
 *
 * bsums[sub]: sum of qs[16*sub .. 16*sub + 15]. It is redundant, and no kernel trusts it. */
typedef struct {
  float d;
  int8_t qs[256];
  int16_t bsums[16];
} fm_block_q8_k;
static_assert(sizeof(fm_block_q8_k) == 292, "Q8_K block");

/* IQ4_XS: super-block of 256 values, 8 sub-blocks of 32, 4.25 bits a weight, not linear.
 *   value = d * (scale[sub] - 32) * fm_iq4_values[code],  code 0..15, scale 0..63; the table is in
 *   formats/tables.h
 *
 * scales_h: bits 2*sub + 1, 2*sub are bits 5..4 of scale[sub]
 * scales_l[j] = [ scale[2*j + 1] bits 3..0 | scale[2*j] bits 3..0 ],  j = 0..3
 * qs[16*sub + l] = [ code of value 32*sub + 16 + l | code of value 32*sub + l ],  l = 0..15 */
typedef struct {
  fm_f16 d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
} fm_block_iq4_xs;
static_assert(sizeof(fm_block_iq4_xs) == 136, "IQ4_XS block");

/* TQ1_0: super-block of 256 values, 1.6875 bits a weight, ternary.
 *   value = d * (digit - 1),  digit 0..2
 *
 * A byte is the fraction 0.t0 t1 t2 t3 t4 in base 3, scaled to 256 and rounded up:
 *   digit n = 3 * (byte * 3^n mod 256) / 256,  rounded down
 * qs[l]       l = 0..31:  digits n = 0..4 are values 32*n + l
 * qs[32 + l]  l = 0..15:  digits n = 0..4 are values 160 + 16*n + l
 * qh[l]       l = 0..3:   digits n = 0..3 are values 240 + 4*n + l */
typedef struct {
  uint8_t qs[48];
  uint8_t qh[4];
  fm_f16 d;
} fm_block_tq1_0;
static_assert(sizeof(fm_block_tq1_0) == 54, "TQ1_0 block");

/* TQ2_0: super-block of 256 values, 2.0625 bits a weight, ternary.
 *   value = d * (code - 1),  code 0..2 (3, which no quantiser writes, decodes to 2 * d)
 *
 * qs placed as in Q2_K. */
typedef struct {
  uint8_t qs[64];
  fm_f16 d;
} fm_block_tq2_0;
static_assert(sizeof(fm_block_tq2_0) == 66, "TQ2_0 block");

/* ---- super-blocks of 256 values from a codebook ----
 *
 * formats/codebooks.h says how entries are packed and which magnitudes they hold. A sign bit of 1
 * means minus. Bit j of a sign byte belongs to value j of 8; where a block stores 7 sign bits,
 * fm_even_signs adds the eighth. */

/* IQ2_XXS: 8 sub-blocks of 32, 2.0625 bits a weight.
 *   value = d / 8 * (2 * scale[sub] + 1) * +-magnitude,  scale 0..15
 *
 * qs[sub]: two 32-bit integers
 *   first   [ entry of values 24..31 | of 16..23 | of 8..15 | of 0..7 ],  8 bits each
 *   second  [ scale, 4 bits | signs of values 24..31 | .. | of 0..7 ],  7 bits each */
typedef struct {
  fm_f16 d;
  uint16_t qs[32];
} fm_block_iq2_xxs;
static_assert(sizeof(fm_block_iq2_xxs) == 66, "IQ2_XXS block");

/* IQ2_XS: 16 sub-blocks of 16, 2.3125 bits a weight.
 *   value = d / 8 * (2 * scale[sub] + 1) * +-magnitude,  scale 0..15
 *
 * qs[k] = [ signs, 7 bits | entry, 9 bits ] of values 8*k .. 8*k + 7,  k = 0..31
 * scales[j] = [ scale[2*j + 1] | scale[2*j] ],  4 bits each, j = 0..7 */
typedef struct {
  fm_f16 d;
  uint16_t qs[32];
  uint8_t scales[8];
} fm_block_iq2_xs;
static_assert(sizeof(fm_block_iq2_xs) == 74, "IQ2_XS block");

/* IQ2_S: 16 sub-blocks of 16, 2.5625 bits a weight.
 *   value = d / 8 * (2 * scale[sub] + 1) * +-magnitude,  scale 0..15
 *
 * qs[k], signs[k], bits 2*(k % 4) + 1, 2*(k % 4) of qh[k / 4]: bits 7..0 of the entry, signs, and
 *   bits 9..8 of the entry of values 8*k .. 8*k + 7,  k = 0..31
 * scales as in IQ2_XS */
typedef struct {
  fm_f16 d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
} fm_block_iq2_s;
static_assert(sizeof(fm_block_iq2_s) == 82, "IQ2_S block");

/* IQ3_XXS: 8 sub-blocks of 32, 3.0625 bits a weight.
 *   value = d / 4 * (2 * scale[sub] + 1) * +-magnitude,  scale 0..15
 *
 * qs[k]: the entry of values 4*k .. 4*k + 3,  k = 0..63
 * scales_signs[4*sub ..], as one 32-bit integer: scale and signs as in IQ2_XXS */
typedef struct {
  fm_f16 d;
  uint8_t qs[64];
  uint8_t scales_signs[32];
} fm_block_iq3_xxs;
static_assert(sizeof(fm_block_iq3_xxs) == 98, "IQ3_XXS block");

/* IQ3_S: 8 sub-blocks of 32, 3.4375 bits a weight.
 *   value = d * (2 * scale[sub] + 1) * +-magnitude,  scale 0..15
 *
 * qs[k], bit k % 8 of qh[k / 8]: bits 7..0 and bit 8 of the entry of values 4*k .. 4*k + 3,
 *   k = 0..63
 * signs[k]: signs of values 8*k .. 8*k + 7,  k = 0..31
 * scales[j] = [ scale[2*j + 1] | scale[2*j] ],  4 bits each, j = 0..3 */
typedef struct {
  fm_f16 d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
} fm_block_iq3_s;
static_assert(sizeof(fm_block_iq3_s) == 110, "IQ3_S block");

/* IQ1_S: 8 sub-blocks of 32, 1.5625 bits a weight.
 *   value = d * (2 * scale[sub] + 1) * (ternary + delta),  scale 0..7, delta +-1/8
 *
 * qs[k], bits 3*(k % 4) + 2 .. 3*(k % 4) of qh[k / 4]: bits 7..0 and 10..8 of the entry of values
 *   8*k .. 8*k + 7,  k = 0..31
 * qh[sub] = [ delta is -1/8 | scale, 3 bits | bits of entries, 12 bits ] */
typedef struct {
  fm_f16 d;
  uint8_t qs[32];
  uint16_t qh[8];
} fm_block_iq1_s;
static_assert(sizeof(fm_block_iq1_s) == 50, "IQ1_S block");

/* IQ1_M: 16 sub-blocks of 16, 1.75 bits a weight.
 *   value = d * (2 * scale[sub] + 1) * (ternary + delta),  scale 0..7, delta +-1/8
 *
 * qs[k], nibble k % 2 of qh[k / 2]: bits 7..0 of the entry of values 8*k .. 8*k + 7, and
 *   [ delta is -1/8 | bits 10..8 of the entry ],  k = 0..31
 * scales, as four 16-bit integers: bits 3*(sub % 4) + 2 .. 3*(sub % 4) of integer sub / 4 are
 *   scale[sub]; their bits 15..12 are bits 3..0, 7..4, 11..8, 15..12 of d. */
typedef struct {
  uint8_t qs[32];
  uint8_t qh[16];
  uint8_t scales[8];
} fm_block_iq1_m;
static_assert(sizeof(fm_block_iq1_m) == 56, "IQ1_M block");

#endif
