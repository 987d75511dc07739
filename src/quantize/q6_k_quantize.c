/* The quantiser of Q6_K: value = d * scale[sub] * (code - 32), 16 sub-blocks of 16; layout in
 * formats/blocks.h.
 *
 * The search for the least squared error has three steps:
 *   1. for each sub-block, find a scale: from several initial ranges, alternate between the nearest
 *   codes
 *      and the scale that fits them best;
 *   2. choose one d for the block, and for each sub-block the integer scale, of those next to its
 *   own,
 *      that errs least;
 *   3. find the best d for these scales and codes, and repeat step 2.
 * The best block found is written. */
#include <math.h>
#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "quantize/quantizers.h"

#define SUBS 16
#define SUB_VALUES 16
#define LARGEST 31
#define SMALLEST (-32)
#define ROUNDS 1 /* repetitions of step 3: a second one finds nothing better */

/* Initial ranges, as the code that the extreme of a sub-block gets: smaller ones leave codes
 * unused, larger ones clip the extreme. */
static const float ranges[] = {32.0f, 31.0f, 30.0f, 29.0f, 28.0f};
#define N_RANGES (sizeof ranges / sizeof ranges[0])

typedef struct {
  float d;
  int8_t scale[SUBS];
  int8_t code[SUBS * SUB_VALUES]; /* the block's code minus 32 */
} parts;

static float inverse_of(float scale) { return fabsf(scale) > 0x1p-80f ? 1.0f / scale : 0.0f; }

/* Finds the nearest codes for a scale; returns the squared error. */
static float encode(const float *x, float scale, int8_t *code) {
  float inverse = inverse_of(scale), error = 0.0f;
  for (int i = 0; i < SUB_VALUES; i++) {
    float v = x[i] * inverse;
    v = v > (float)LARGEST ? (float)LARGEST : v < (float)SMALLEST ? (float)SMALLEST : v;
    code[i] = (int8_t)(v < 0.0f ? v - 0.5f : v + 0.5f);
    float miss = x[i] - scale * (float)code[i];
    error += miss * miss;
  }
  return error;
}

/* The scale of least squared error for given codes. */
static float fit(const float *x, const int8_t *code) {
  float xc = 0.0f, cc = 0.0f;
  for (int i = 0; i < SUB_VALUES; i++) {
    xc += x[i] * (float)code[i];
    cc += (float)(code[i] * code[i]);
  }
  return cc > 0.0f ? xc / cc : 0.0f;
}

/* Step 1. */
static float own_scale(const float *x) {
  float extreme = fm_extreme_of(x, SUB_VALUES), best_scale = 0.0f, best_error = INFINITY;
  /* The first half of the trials have a negative sign: the negative side of the codes is longer. */
  for (size_t r = 0; r < 2 * N_RANGES; r++) {
    float scale = extreme / (r < N_RANGES ? -ranges[r] : ranges[r - N_RANGES]);
    int8_t code[SUB_VALUES];
    for (int turn = 0; turn < 2; turn++) {
      float error = encode(x, scale, code);
      if (error < best_error) best_error = error, best_scale = scale;
      scale = fit(x, code);
    }
  }
  return best_scale;
}

/* Step 2: finds integer scales and codes for p->d; returns the squared error of the block. */
static float choose_scales(const float *x, const float wanted[SUBS], parts *p) {
  float total = 0.0f, inverse = inverse_of(p->d);
  for (int s = 0; s < SUBS; s++) {
    const float *xs = x + s * SUB_VALUES;
    int8_t *code = p->code + s * SUB_VALUES;
    float best_error = INFINITY, middle = wanted[s] * inverse;
    middle = middle > 126.0f ? 126.0f : middle < -126.0f ? -126.0f : middle;
    int nearest = (int)(middle < 0.0f ? middle - 0.5f : middle + 0.5f);
    for (int scale = nearest - 1; scale <= nearest + 1; scale++) {
      int8_t trial[SUB_VALUES];
      float error = encode(xs, p->d * (float)scale, trial);
      if (error >= best_error) continue;
      best_error = error;
      p->scale[s] = (int8_t)scale;
      memcpy(code, trial, sizeof trial);
    }
    total += best_error;
  }
  return total;
}

/* Step 3: the d of least squared error for given scales and codes. */
static float fit_d(const float *x, const parts *p) {
  float xc = 0.0f, cc = 0.0f;
  for (int i = 0; i < SUBS * SUB_VALUES; i++) {
    float c = (float)(p->scale[i / SUB_VALUES] * p->code[i]);
    xc += x[i] * c;
    cc += c * c;
  }
  return cc > 0.0f ? xc / cc : 0.0f;
}

static float as_f16(float d) { return fm_f16_to_f32(fm_f32_to_f16(d > 65504.0f ? 65504.0f : d)); }

void fm_quantize_q6_k(const float *x, void *block) {
  fm_block_q6_k *b = block;
  float wanted[SUBS], largest = 0.0f, best_error = INFINITY;
  for (int s = 0; s < SUBS; s++) {
    wanted[s] = own_scale(x + s * SUB_VALUES);
    if (fabsf(wanted[s]) > largest) largest = fabsf(wanted[s]);
  }
  parts best = {.d = 0.0f}, p;
  float d = largest / 127.0f;
  for (int round = 0; round <= ROUNDS; round++) {
    p.d = as_f16(d);
    float error = choose_scales(x, wanted, &p);
    if (error >= best_error) break;
    best_error = error;
    best = p;
    d = fit_d(x, &p);
  }

  memset(b, 0, sizeof *b);
  b->d = fm_f32_to_f16(best.d);
  memcpy(b->scales, best.scale, sizeof best.scale);
  for (int i = 0; i < SUBS * SUB_VALUES; i++) {
    int half = i / 128, k = i / 32 % 4, l = i % 32;
    int code = best.code[i] - SMALLEST;
    uint8_t *low = &b->ql[64 * half + 32 * (k % 2) + l], *high = &b->qh[32 * half + l];
    *low = (uint8_t)(*low | (code & 15) << 4 * (k / 2));
    *high = (uint8_t)(*high | (code >> 4) << 2 * k);
  }
}
