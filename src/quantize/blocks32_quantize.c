/* Quantisers of the types with one scale (and minimum) per 32 values: Q4_0, Q5_0, Q8_0, Q4_1, Q5_1.
 *
 *   Q4_0, Q5_0   d = extreme / -zero, zero = 8, 16 the code of 0: the value of largest magnitude
 *                becomes code 0
 *   Q8_0         d = max|x| / 127
 *   Q4_1, Q5_1   d = (max - min) / (2^bits - 1), m = min
 *
 * Codes are computed with the scale before it is rounded to f16, as every GGUF producer does, so
 * that the blocks equal theirs byte for byte. Where the scale rounds to zero in f16, the codes are
 * those of zeros. Layouts: formats/blocks.h. */
#include <math.h>
#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "quantize/quantizers.h"

#define VALUES 32

static float inverse_of(float d, fm_f16 stored) {
  return (stored & 0x7fffu) != 0 ? 1.0f / d : 0.0f;
}

/* code = (x - shift) * inverse + offset, truncated, at most `largest`. Truncation rounds where the
 * offset includes 1/2. */
static void codes_of(const float *x, float shift, float inverse, float offset, uint8_t largest,
                     uint8_t code[VALUES]) {
  for (int i = 0; i < VALUES; i++) {
    int32_t c = (int32_t)((x[i] - shift) * inverse + offset);
    code[i] = c > largest ? largest : (uint8_t)c;
  }
}

/* Value i is the low nibble of qs[i] for i < 16, the high nibble of qs[i - 16] for the others; its
 * bit 4 is bit i of qh. */
static void pack_nibbles(const uint8_t code[VALUES], uint8_t qs[16]) {
  for (int i = 0; i < 16; i++) qs[i] = (uint8_t)((code[i] & 15) | code[i + 16] << 4);
}

static void pack_fifth_bits(const uint8_t code[VALUES], uint8_t qh[4]) {
  memset(qh, 0, 4);
  for (int i = 0; i < VALUES; i++) qh[i / 8] = (uint8_t)(qh[i / 8] | (code[i] >> 4 & 1) << i % 8);
}

/* Returns d, and the codes 0 .. 2 * zero - 1, of value = d * (code - zero). */
static fm_f16 symmetric(const float *x, int zero, uint8_t code[VALUES]) {
  float d = fm_extreme_of(x, VALUES) / (float)-zero;
  fm_f16 stored = fm_f32_to_f16(d);
  codes_of(x, 0.0f, inverse_of(d, stored), (float)zero + 0.5f, (uint8_t)(2 * zero - 1), code);
  return stored;
}

/* Returns d, m and the codes 0 .. largest of value = d * code + m. */
static fm_f16 with_minimum(const float *x, int largest, fm_f16 *m, uint8_t code[VALUES]) {
  float min = x[0], max = x[0];
  for (int i = 1; i < VALUES; i++) {
    if (x[i] < min) min = x[i];
    if (x[i] > max) max = x[i];
  }
  float d = (max - min) / (float)largest;
  fm_f16 stored = fm_f32_to_f16(d);
  codes_of(x, min, inverse_of(d, stored), 0.5f, (uint8_t)largest, code);
  *m = fm_f32_to_f16(min);
  return stored;
}

void fm_quantize_q4_0(const float *x, void *block) {
  fm_block_q4_0 *b = block;
  uint8_t code[VALUES];
  b->d = symmetric(x, 8, code);
  pack_nibbles(code, b->qs);
}

void fm_quantize_q5_0(const float *x, void *block) {
  fm_block_q5_0 *b = block;
  uint8_t code[VALUES];
  b->d = symmetric(x, 16, code);
  pack_nibbles(code, b->qs);
  pack_fifth_bits(code, b->qh);
}

void fm_quantize_q4_1(const float *x, void *block) {
  fm_block_q4_1 *b = block;
  uint8_t code[VALUES];
  b->d = with_minimum(x, 15, &b->m, code);
  pack_nibbles(code, b->qs);
}

void fm_quantize_q5_1(const float *x, void *block) {
  fm_block_q5_1 *b = block;
  uint8_t code[VALUES];
  b->d = with_minimum(x, 31, &b->m, code);
  pack_nibbles(code, b->qs);
  pack_fifth_bits(code, b->qh);
}

/* roundf without a library; |x| < 2^31. Both differences are exact. */
static int32_t round_half_away(float x) {
  int32_t whole = (int32_t)x;
  float rest = x - (float)whole;
  return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

void fm_quantize_q8_0(const float *x, void *block) {
  fm_block_q8_0 *b = block;
  float d = fabsf(fm_extreme_of(x, VALUES)) / 127.0f;
  b->d = fm_f32_to_f16(d);
  float inverse = inverse_of(d, b->d);
  for (int i = 0; i < VALUES; i++) b->qs[i] = (int8_t)round_half_away(x[i] * inverse);
}
