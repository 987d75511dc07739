/* The quantisers of Q4_K and Q5_K: value = d * scale[sub] * code - dmin * min[sub], 8 sub-blocks of
 * 32, scales and mins 0..63, codes 0..15 and 0..31; layouts in formats/blocks.h.
 *
 * The search for the least squared error has three steps:
 *   1. for each sub-block, find a scale and a minimum: from several initial ranges, alternate
 *   between the
 *      nearest codes and the line that fits them best;
 *   2. choose one d and one dmin for the block, and for each sub-block the integers, of those next
 *   to its
 *      own scale and minimum, that err least;
 *   3. find the best d and dmin for these integers and codes, and repeat step 2.
 * The best block found is written. */
#include <math.h>
#include <string.h>

#include "formats/blocks.h"
#include "formats/f16.h"
#include "quantize/quantizers.h"

#define SUBS 8
#define SUB_VALUES 32
#define LARGEST_SCALE 63
#define TURNS 3  /* codes and line in step 1, alternately */
#define ROUNDS 2 /* repetitions of step 3: each removes less than half a per cent of the error */

/* Initial ranges, as parts of a sub-block's own range: smaller ones clip its ends. */
static const float ranges[] = {1.06f, 1.0f, 0.94f, 0.88f, 0.82f};
#define N_RANGES (sizeof ranges / sizeof ranges[0])

/* value = scale * code - min; scale, min >= 0 */
typedef struct {
  float scale, min;
} line;

typedef struct {
  float d, dmin;
  uint8_t scale[SUBS], min[SUBS];
  uint8_t code[SUBS * SUB_VALUES];
} parts;

static float inverse_of(float scale) { return scale > 0x1p-80f ? 1.0f / scale : 0.0f; }

/* Finds the nearest codes for a line; returns the squared error. */
static float encode(const float *x, line l, float largest, uint8_t *code) {
  float inverse = inverse_of(l.scale), error = 0.0f;
  for (int i = 0; i < SUB_VALUES; i++) {
    float v = (x[i] + l.min) * inverse;
    v = v < 0.0f ? 0.0f : v > largest ? largest : v;
    code[i] = (uint8_t)(v + 0.5f);
    float miss = x[i] - (l.scale * (float)code[i] - l.min);
    error += miss * miss;
  }
  return error;
}

/* The line of least squared error for given codes. */
static line fit(const float *x, const uint8_t *code) {
  float sum_x = 0.0f, sum_xc = 0.0f;
  int sum_c = 0, sum_cc = 0;
  for (int i = 0; i < SUB_VALUES; i++) {
    sum_x += x[i];
    sum_xc += x[i] * (float)code[i];
    sum_c += code[i];
    sum_cc += code[i] * code[i];
  }
  int spread = SUB_VALUES * sum_cc - sum_c * sum_c;
  if (spread > 0) {
    float scale = ((float)SUB_VALUES * sum_xc - (float)sum_c * sum_x) / (float)spread;
    float min = (scale * (float)sum_c - sum_x) / (float)SUB_VALUES;
    if (scale >= 0.0f && min >= 0.0f) return (line){scale, min};
  }
  float scale = sum_cc > 0 ? sum_xc / (float)sum_cc : 0.0f;
  return (line){scale > 0.0f ? scale : 0.0f, 0.0f};
}

/* Step 1. */
static line own_line(const float *x, float largest) {
  float low = 0.0f, high = x[0], best_error = INFINITY;
  line best = {0.0f, 0.0f};
  for (int i = 0; i < SUB_VALUES; i++) {
    if (x[i] < low) low = x[i];
    if (x[i] > high) high = x[i];
  }
  for (size_t r = 0; r < N_RANGES; r++) {
    float clipped = (high - low) * (1.0f - ranges[r]) * 0.5f;
    line l = {(high - low) * ranges[r] / largest, low + clipped < 0.0f ? -(low + clipped) : 0.0f};
    for (int turn = 0; turn < TURNS; turn++) {
      uint8_t code[SUB_VALUES];
      float error = encode(x, l, largest, code);
      if (error < best_error) best_error = error, best = l;
      l = fit(x, code);
    }
  }
  return best;
}

static int nearest_integer(float v) {
  return v < (float)LARGEST_SCALE ? (int)(v + 0.5f) : LARGEST_SCALE;
}

/* Step 2: finds integers and codes for p->d and p->dmin; returns the squared error of the block. */
static float choose_integers(const float *x, const line wanted[SUBS], float largest, parts *p) {
  float total = 0.0f, inverse = inverse_of(p->d), inverse_min = inverse_of(p->dmin);
  for (int s = 0; s < SUBS; s++) {
    float best_error = INFINITY;
    int near_scale = nearest_integer(wanted[s].scale * inverse),
        near_min = nearest_integer(wanted[s].min * inverse_min);
    for (int scale = near_scale - 1; scale <= near_scale + 1; scale++) {
      for (int min = near_min - 1; min <= near_min + 1; min++) {
        if (scale < 0 || scale > LARGEST_SCALE || min < 0 || min > LARGEST_SCALE) continue;
        uint8_t trial[SUB_VALUES];
        line l = {p->d * (float)scale, p->dmin * (float)min};
        float error = encode(x + s * SUB_VALUES, l, largest, trial);
        if (error >= best_error) continue;
        best_error = error;
        p->scale[s] = (uint8_t)scale;
        p->min[s] = (uint8_t)min;
        memcpy(p->code + s * SUB_VALUES, trial, sizeof trial);
      }
    }
    total += best_error;
  }
  return total;
}

/* Step 3: d and dmin of least squared error for given integers and codes: with c = scale * code and
 * m = min,
 *   d * sum(cc) - dmin * sum(cm) = sum(xc),  dmin * sum(mm) - d * sum(cm) = -sum(xm).
 * The difference of products cancels, hence f64. */
static void fit_d(const float *x, const parts *p, float *d, float *dmin) {
  double cc = 0, cm = 0, mm = 0, xc = 0, xm = 0;
  for (int i = 0; i < SUBS * SUB_VALUES; i++) {
    double c = p->scale[i / SUB_VALUES] * p->code[i], m = p->min[i / SUB_VALUES];
    cc += c * c;
    cm += c * m;
    mm += m * m;
    xc += (double)x[i] * c;
    xm += (double)x[i] * m;
  }
  double determinant = cc * mm - cm * cm;
  if (determinant > 0) {
    *d = (float)((xc * mm - xm * cm) / determinant);
    *dmin = (float)((xc * cm - xm * cc) / determinant);
  } else if (cc > 0) {
    *d = (float)(xc / cc);
  }
}

/* A scale as the block stores it: finite and not negative. */
static float as_f16(float d) {
  return fm_f16_to_f32(fm_f32_to_f16(d > 65504.0f ? 65504.0f : d > 0.0f ? d : 0.0f));
}

static void search(const float *x, int largest_code, parts *best) {
  float largest = (float)largest_code, d = 0.0f, dmin = 0.0f, best_error = INFINITY;
  line wanted[SUBS];
  for (int s = 0; s < SUBS; s++) {
    wanted[s] = own_line(x + s * SUB_VALUES, largest);
    if (wanted[s].scale > d) d = wanted[s].scale;
    if (wanted[s].min > dmin) dmin = wanted[s].min;
  }
  d /= (float)LARGEST_SCALE;
  dmin /= (float)LARGEST_SCALE;
  for (int round = 0; round <= ROUNDS; round++) {
    parts p;
    p.d = as_f16(d);
    p.dmin = as_f16(dmin);
    float error = choose_integers(x, wanted, largest, &p);
    if (error >= best_error) break;
    best_error = error;
    *best = p;
    fit_d(x, &p, &d, &dmin);
  }
}

/* Packs the 6-bit fields and the nibbles: sub-blocks 2p and 2p + 1 are the low and high ones of
 * qs[32 p ..]. */
static void pack(const parts *p, uint8_t scales[12], uint8_t qs[128]) {
  for (int j = 0; j < 4; j++) {
    scales[j] = (uint8_t)((p->scale[j + 4] >> 4) << 6 | p->scale[j]);
    scales[j + 4] = (uint8_t)((p->min[j + 4] >> 4) << 6 | p->min[j]);
    scales[j + 8] = (uint8_t)((p->min[j + 4] & 15) << 4 | (p->scale[j + 4] & 15));
  }
  for (int i = 0; i < 128; i++) {
    const uint8_t *code = p->code + 64 * (i / 32) + i % 32;
    qs[i] = (uint8_t)((code[32] & 15) << 4 | (code[0] & 15));
  }
}

void fm_quantize_q4_k(const float *x, void *block) {
  fm_block_q4_k *b = block;
  parts p;
  search(x, 15, &p);
  b->d = fm_f32_to_f16(p.d);
  b->dmin = fm_f32_to_f16(p.dmin);
  pack(&p, b->scales, b->qs);
}

void fm_quantize_q5_k(const float *x, void *block) {
  fm_block_q5_k *b = block;
  parts p;
  search(x, 31, &p);
  b->d = fm_f32_to_f16(p.d);
  b->dmin = fm_f32_to_f16(p.dmin);
  pack(&p, b->scales, b->qs);
  for (int l = 0; l < 32; l++) {
    b->qh[l] = 0;
    for (int s = 0; s < SUBS; s++)
      b->qh[l] = (uint8_t)(b->qh[l] | (p.code[32 * s + l] >> 4 & 1) << s);
  }
}
