/* e^x in f32, and the activations made of it: the same operations in the same order for one value
 * and for four lanes, so that both give the same bits.
 *
 *   e^x = 2^n * e^r,  n = round(x / ln 2),  r = x - n ln 2,  |r| <= ln 2 / 2
 *   e^r = 1 + r + r^2 (c2 + c3 r + c4 r^2 + c5 r^3 + c6 r^4): minimax, relative error 2^-28.2
 *
 * Largest error over all 2^32 inputs: 0.99 ulp, subnormal results included (measured; the roundings
 * of the last two sums are bounded by 0.5 + 0.25 ulp, those of r by 0.25). e^0 is 1. Below -103.98
 * the result is exactly 0, above 88.73 it is Inf; NaN stays NaN. */
#ifndef FM_KERNELS_EXP_H
#define FM_KERNELS_EXP_H

#include <stdint.h>

#include "formats/f16.h"

#define FM_EXP_LOWEST -104.0f /* e^-104 < 2^-150: rounds to 0 */
#define FM_EXP_HIGHEST 89.0f  /* e^89 > 2^128 */
#define FM_EXP_LOG2_E 0x1.715476p+0f
#define FM_EXP_ROUND 0x1.8p23f /* pushes the fraction out of the mantissa, ties to even */
#define FM_EXP_ROUND_BITS 0x4b400000u
#define FM_EXP_LN2_HIGH 0x1.62e4p-1f   /* 15 bits: exact times n */
#define FM_EXP_LN2_LOW 0x1.7f7d1cp-20f /* the rest of ln 2 */
#define FM_EXP_C2 0x1.fffffcp-2f
#define FM_EXP_C3 0x1.555492p-3f
#define FM_EXP_C4 0x1.5558aep-5f
#define FM_EXP_C5 0x1.12398p-7f
#define FM_EXP_C6 0x1.6a4f28p-10f

#define FM_GELU_LINEAR 0x1.988454p+0f /* 2 sqrt(2 / pi) */
#define FM_GELU_CUBIC 0x1.2444f2p-4f  /* 0.044715 of it */
#define FM_CLAMPED_LIMIT 7.0f
#define FM_CLAMPED_SLOPE 1.702f
#define FM_F32_LOWEST -0x1.fffffep127f

/* 2^n takes two factors, 2^(n / 2) and 2^(n - n / 2): n reaches from -150 to 128, and only the last
 * product rounds. */
static inline float fm_expf(float x) {
  x = x < FM_EXP_LOWEST ? FM_EXP_LOWEST : x;
  x = x > FM_EXP_HIGHEST ? FM_EXP_HIGHEST : x;
  float rounded = x * FM_EXP_LOG2_E + FM_EXP_ROUND;
  float n = rounded - FM_EXP_ROUND;
  float r = (x - n * FM_EXP_LN2_HIGH) - n * FM_EXP_LN2_LOW;
  float p = FM_EXP_C5 + r * FM_EXP_C6;
  p = FM_EXP_C4 + r * p;
  p = FM_EXP_C3 + r * p;
  p = FM_EXP_C2 + r * p;
  p = 1.0f + (r + (r * r) * p);
  int32_t whole = (int32_t)(fm_f32_to_bits(rounded) - FM_EXP_ROUND_BITS);
  uint32_t first = (uint32_t)(whole >> 1), second = (uint32_t)whole - first;
  return p * fm_f32_from_bits((first << 23) + 0x3f800000u) *
         fm_f32_from_bits((second << 23) + 0x3f800000u);
}

/* x / (1 + e^-x), error <= 4 ulp; below -88.72, where it would be closer to 0 than -2.7e-37, -0.
 * -Inf gives -0 too, NaN stays. */
static inline float fm_silu(float x) {
  x = x < FM_F32_LOWEST ? FM_F32_LOWEST : x;
  return x / (1.0f + fm_expf(-x));
}

/* The tanh form 0.5 x (1 + tanh(z / 2)) = x / (1 + e^-z), z = 2 sqrt(2 / pi) (x + 0.044715 x^3).
 * The rounding of z makes a relative error of up to 5 |z| u, u = 2^-24, besides the 4 ulp. -Inf
 * gives -0, NaN stays. */
static inline float fm_gelu(float x) {
  x = x < FM_F32_LOWEST ? FM_F32_LOWEST : x;
  float z = x * (FM_GELU_LINEAR + x * x * FM_GELU_CUBIC);
  return x / (1.0f + fm_expf(-z));
}

/* x / (1 + e^(-1.702 x)) of values up to FM_CLAMPED_LIMIT; larger ones are taken for it. The
 * rounding of 1.702 x makes a relative error of up to 2 |1.702 x| u besides the 4 ulp. -Inf gives
 * -0, NaN stays. */
static inline float fm_clamped_silu(float x) {
  x = x > FM_CLAMPED_LIMIT ? FM_CLAMPED_LIMIT : x;
  x = x < FM_F32_LOWEST ? FM_F32_LOWEST : x;
  return x / (1.0f + fm_expf(x * -FM_CLAMPED_SLOPE));
}

static inline float fm_clamped_up(float x) {
  x = x > FM_CLAMPED_LIMIT ? FM_CLAMPED_LIMIT : x;
  x = x < -FM_CLAMPED_LIMIT ? -FM_CLAMPED_LIMIT : x;
  return x + 1.0f;
}

/* 1 / (1 + e^-x), error <= 3 ulp; 0 below -88.72. NaN stays. */
static inline float fm_sigmoid(float x) { return 1.0f / (1.0f + fm_expf(-x)); }

/* NaN stays. */
static inline float fm_relu(float x) { return x < 0.0f ? 0.0f : x; }

/* tanh(x) = 1 - 2 / (1 + e^2x): absolute error <= 2^-22, not relative near 0. +-1 at +-Inf, NaN
 * stays. */
static inline float fm_tanhf(float x) { return 1.0f - 2.0f / (1.0f + fm_expf(2.0f * x)); }

#ifdef __wasm_simd128__
#include "kernels/v128.h"

/* The constants, loaded once ahead of a loop; see fm_hold_i32. */
typedef struct {
  v128_t lowest, highest, log2_e, round, ln2_high, ln2_low, c2, c3, c4, c5, c6, one;
} fm_exp_held;

FM_INLINE fm_exp_held fm_hold_exp(void) {
  static const float constants[12] = {FM_EXP_LOWEST,   FM_EXP_HIGHEST, FM_EXP_LOG2_E, FM_EXP_ROUND,
                                      FM_EXP_LN2_HIGH, FM_EXP_LN2_LOW, FM_EXP_C2,     FM_EXP_C3,
                                      FM_EXP_C4,       FM_EXP_C5,      FM_EXP_C6,     1.0f};
  const float *p = constants;
  __asm__("" : "+r"(p)::"memory");
  return (fm_exp_held){wasm_v128_load32_splat(p),      wasm_v128_load32_splat(p + 1),
                       wasm_v128_load32_splat(p + 2),  wasm_v128_load32_splat(p + 3),
                       wasm_v128_load32_splat(p + 4),  wasm_v128_load32_splat(p + 5),
                       wasm_v128_load32_splat(p + 6),  wasm_v128_load32_splat(p + 7),
                       wasm_v128_load32_splat(p + 8),  wasm_v128_load32_splat(p + 9),
                       wasm_v128_load32_splat(p + 10), wasm_v128_load32_splat(p + 11)};
}

/* pmax(x, lowest) is x < lowest ? lowest : x, and keeps a NaN in x. */
FM_INLINE v128_t fm_exp_f32x4(v128_t x, const fm_exp_held *held) {
  x = wasm_f32x4_pmin(wasm_f32x4_pmax(x, held->lowest), held->highest);
  v128_t rounded = wasm_f32x4_add(wasm_f32x4_mul(x, held->log2_e), held->round);
  v128_t n = wasm_f32x4_sub(rounded, held->round);
  v128_t r = wasm_f32x4_sub(x, wasm_f32x4_mul(n, held->ln2_high));
  r = wasm_f32x4_sub(r, wasm_f32x4_mul(n, held->ln2_low));
  v128_t p = wasm_f32x4_add(held->c5, wasm_f32x4_mul(r, held->c6));
  p = wasm_f32x4_add(held->c4, wasm_f32x4_mul(r, p));
  p = wasm_f32x4_add(held->c3, wasm_f32x4_mul(r, p));
  p = wasm_f32x4_add(held->c2, wasm_f32x4_mul(r, p));
  p = wasm_f32x4_add(held->one, wasm_f32x4_add(r, wasm_f32x4_mul(wasm_f32x4_mul(r, r), p)));
  v128_t whole = wasm_i32x4_sub(rounded, held->round);
  v128_t first = wasm_i32x4_shr(whole, 1), second = wasm_i32x4_sub(whole, first);
  first = wasm_i32x4_add(wasm_i32x4_shl(first, 23), held->one);
  second = wasm_i32x4_add(wasm_i32x4_shl(second, 23), held->one);
  return wasm_f32x4_mul(wasm_f32x4_mul(p, first), second);
}

typedef struct {
  fm_exp_held exp;
  v128_t f32_lowest, linear, cubic;
} fm_gate_held;

FM_INLINE fm_gate_held fm_hold_gate(void) {
  return (fm_gate_held){fm_hold_exp(), fm_hold_i32(0xff7fffffu), fm_hold_i32(0x3fcc422au),
                        fm_hold_i32(0x3d922279u)};
}

FM_INLINE v128_t fm_silu_f32x4(v128_t x, const fm_gate_held *held) {
  x = wasm_f32x4_pmax(x, held->f32_lowest);
  return wasm_f32x4_div(x,
                        wasm_f32x4_add(held->exp.one, fm_exp_f32x4(wasm_f32x4_neg(x), &held->exp)));
}

FM_INLINE v128_t fm_gelu_f32x4(v128_t x, const fm_gate_held *held) {
  x = wasm_f32x4_pmax(x, held->f32_lowest);
  v128_t slope = wasm_f32x4_add(held->linear, wasm_f32x4_mul(wasm_f32x4_mul(x, x), held->cubic));
  v128_t z = wasm_f32x4_mul(x, slope);
  return wasm_f32x4_div(x,
                        wasm_f32x4_add(held->exp.one, fm_exp_f32x4(wasm_f32x4_neg(z), &held->exp)));
}

FM_INLINE v128_t fm_clamped_silu_f32x4(v128_t x, const fm_gate_held *held) {
  x = wasm_f32x4_pmin(x, wasm_f32x4_const_splat(FM_CLAMPED_LIMIT));
  x = wasm_f32x4_pmax(x, held->f32_lowest);
  v128_t power = wasm_f32x4_mul(x, wasm_f32x4_const_splat(-FM_CLAMPED_SLOPE));
  return wasm_f32x4_div(x, wasm_f32x4_add(held->exp.one, fm_exp_f32x4(power, &held->exp)));
}

FM_INLINE v128_t fm_clamped_up_f32x4(v128_t x, const fm_gate_held *held) {
  x = wasm_f32x4_pmin(x, wasm_f32x4_const_splat(FM_CLAMPED_LIMIT));
  x = wasm_f32x4_pmax(x, wasm_f32x4_const_splat(-FM_CLAMPED_LIMIT));
  return wasm_f32x4_add(x, held->exp.one);
}

FM_INLINE v128_t fm_sigmoid_f32x4(v128_t x, const fm_exp_held *held) {
  return wasm_f32x4_div(held->one,
                        wasm_f32x4_add(held->one, fm_exp_f32x4(wasm_f32x4_neg(x), held)));
}

FM_INLINE v128_t fm_tanh_f32x4(v128_t x, const fm_exp_held *held) {
  v128_t e = fm_exp_f32x4(wasm_f32x4_add(x, x), held);
  v128_t quotient =
      wasm_f32x4_div(wasm_f32x4_add(held->one, held->one), wasm_f32x4_add(held->one, e));
  return wasm_f32x4_sub(held->one, quotient);
}
#endif

#endif
