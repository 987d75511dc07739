/* The scalar kernels: plain loops over decoded blocks, generic over the types. They are the
 * reference for the SIMD kernels, and serve where there is no SIMD. */
#include <math.h>
#include <string.h>

#include "formats/f16.h"
#include "kernels/activations.h"
#include "kernels/coded.h"
#include "kernels/floats.h"

void fm_dequantize_f32__scalar(const void *w, float *y, size_t n_values) {
  memmove(y, w, n_values * sizeof *y);
}

void fm_dequantize_f16__scalar(const void *w, float *y, size_t n_values) {
  const uint16_t *f16 = w;
  for (size_t i = 0; i < n_values; i++) y[i] = fm_f16_to_f32(f16[i]);
}

/* bfloat16 is the upper 16 bits of binary32. */
void fm_dequantize_bf16__scalar(const void *w, float *y, size_t n_values) {
  const uint16_t *upper = w;
  for (size_t i = 0; i < n_values; i++) y[i] = fm_f32_from_bits((uint32_t)upper[i] << 16);
}

/* Four partial sums, so that additions do not wait for each other. */
void fm_dot_f32__scalar(const float *w, const float *x, float *y, size_t n_cols, size_t n_tokens,
                        size_t x_stride, size_t y_stride, bool accumulate) {
  for (size_t t = 0; t < n_tokens; t++, x += x_stride, y += y_stride) {
    float sum[4] = {0, 0, 0, 0};
    size_t c = 0;
    for (; c + 4 <= n_cols; c += 4) {
      for (size_t k = 0; k < 4; k++) sum[k] += x[c + k] * w[c + k];
    }
    for (; c < n_cols; c++) sum[0] += x[c] * w[c];
    float total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    *y = accumulate ? *y + total : total;
  }
}

/* The largest |x|, as bits: their order puts NaN above Inf above every number. */
static uint32_t max_magnitude_bits(const float *x, size_t n) {
  uint32_t max = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t bits = fm_f32_to_bits(x[i]) & 0x7fffffffu;
    if (bits > max) max = bits;
  }
  return max;
}

/* The factor from values to codes -levels..levels, in two steps, so that 1 / max cannot overflow
 * for subnormals. */
typedef struct {
  float lift, inverse, d;
} quant_scale;

static quant_scale scale_for(uint32_t max_bits, float levels) {
  if (max_bits >= 0x7f800000u) return (quant_scale){0.0f, 0.0f, fm_f32_from_bits(0x7fc00000u)};
  if (max_bits == 0) return (quant_scale){1.0f, 0.0f, 0.0f};
  float max = fm_f32_from_bits(max_bits);
  float lift = max < 0x1p-64f ? 0x1p64f : 1.0f;
  return (quant_scale){lift, levels / (max * lift), max / levels};
}

/* Nearest integer, ties to even: 1.5 * 2^23 pushes the fraction out of the mantissa. |v| < 2^22. */
static int32_t round_to_int(float v) {
  return (int32_t)(fm_f32_to_bits(v + 0x1.8p23f) - 0x4b400000u);
}

static int32_t quantize_one(float x, quant_scale s) {
  return s.lift == 0.0f ? 0 : round_to_int(x * s.lift * s.inverse);
}

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

/* scale_cols: columns that share a scale, 32 or 256. */
static void quantize_i8(const float *x, fm_act_i8 *out, size_t n_cols, size_t scale_cols) {
  for (; n_cols > 0; out++) {
    size_t n = min_size(n_cols, FM_ACT_COLS);
    quant_scale s = {0};
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n; i++) {
      if (i % scale_cols == 0)
        s = scale_for(max_magnitude_bits(x + i, min_size(n - i, scale_cols)), 127.0f);
      out->q[i] = (int8_t)quantize_one(x[i], s);
      out->sum16[i / 16] = (int16_t)(out->sum16[i / 16] + out->q[i]);
      out->sum32[i / 32] = (int16_t)(out->sum32[i / 32] + out->q[i]);
      if (i % FM_ACT_SUB == FM_ACT_SUB - 1)
        fm_act_set_scale(out, i / FM_ACT_SUB, s.d, scale_cols == FM_ACT_SUB);
    }
    x += n;
    n_cols -= n;
  }
}

void fm_quantize_i8__scalar(const float *x, void *blocks, size_t n_cols) {
  quantize_i8(x, blocks, n_cols, FM_ACT_COLS);
}

void fm_quantize_i8_by_32__scalar(const float *x, void *blocks, size_t n_cols) {
  quantize_i8(x, blocks, n_cols, FM_ACT_SUB);
}

void fm_quantize_i16__scalar(const float *x, void *blocks, size_t n_cols) {
  for (fm_act_i16 *out = blocks; n_cols > 0; out++) {
    size_t n = min_size(n_cols, FM_ACT_COLS);
    quant_scale s = scale_for(max_magnitude_bits(x, n), 32767.0f);
    memset(out, 0, sizeof *out);
    out->d = s.d;
    for (size_t i = 0; i < n; i++) {
      out->q[i] = (int16_t)quantize_one(x[i], s);
      out->sum16[i / 16] += (float)out->q[i];
      out->sum32[i / 32] += (float)out->q[i];
    }
    x += n;
    n_cols -= n;
  }
}

/* The sum of code * q over a sub-block: 16 products of at most 128 * 32767, below 2^27. */
#define DEFINE_DOT(name, act_code)                                                                 \
  static int32_t name(const fm_codes *b, size_t sub, const act_code *q) {                          \
    int32_t sum = 0;                                                                               \
    for (size_t i = 0; i < FM_CODES_SUB; i++) sum += b->code[sub * FM_CODES_SUB + i] * q[i];       \
    return sum;                                                                                    \
  }

DEFINE_DOT(dot_i8, int8_t)
DEFINE_DOT(dot_i16, int16_t)

/* One decoded block against activations, from column `first` of their block on:
 *   sum_sub d * (scale * (sum code * q) - min * (sum q)) */
static float block_i8(const fm_codes *b, size_t n_values, const fm_act_i8 *a, size_t first) {
  float total = 0.0f;
  for (size_t sub = 0; sub < n_values / FM_CODES_SUB; sub++) {
    size_t col = first + sub * FM_CODES_SUB;
    float d = a->d[col / FM_ACT_SUB];
    total += d * (b->scale[sub] * (float)dot_i8(b, sub, a->q + col));
    if (n_values == FM_ACT_COLS) {
      total -= d * (b->min[sub] * (float)a->sum16[col / FM_CODES_SUB]);
    } else if (col % FM_ACT_SUB == 0) { /* mins are for 32 columns */
      total -= b->min[sub] * a->s[col / FM_ACT_SUB];
    }
  }
  return total;
}

static float block_i16(const fm_codes *b, size_t n_values, const fm_act_i16 *a, size_t first) {
  float total = 0.0f;
  for (size_t sub = 0; sub < n_values / FM_CODES_SUB; sub++) {
    size_t col = first + sub * FM_CODES_SUB;
    total += b->scale[sub] * (float)dot_i16(b, sub, a->q + col) -
             b->min[sub] * a->sum16[col / FM_CODES_SUB];
  }
  return a->d * total;
}

#define DEFINE_ROWS(name, act_type, block_of)                                                      \
  void name(const fm_traits *traits, fm_decode_fn *decode, const uint8_t *w, size_t row_bytes,     \
            const void *x, float *y, size_t n_rows, size_t n_values, size_t n_tokens,              \
            size_t y_stride, bool accumulate) {                                                    \
    const size_t block_values = traits->block_values, block_bytes = traits->block_bytes;           \
    size_t x_stride = (n_values + FM_ACT_COLS - 1) / FM_ACT_COLS;                                  \
    for (size_t r = 0; r < n_rows; r++, w += row_bytes) {                                          \
      for (size_t t = 0; t < n_tokens && !accumulate; t++) y[t * y_stride + r] = 0.0f;             \
      const uint8_t *block = w;                                                                    \
      for (size_t c = 0; c < n_values; c += block_values, block += block_bytes) {                  \
        fm_codes b;                                                                                \
        decode(block, &b);                                                                         \
        for (size_t t = 0; t < n_tokens; t++) {                                                    \
          const act_type *a = (const act_type *)x + t * x_stride + c / FM_ACT_COLS;                \
          y[t * y_stride + r] += block_of(&b, block_values, a, c % FM_ACT_COLS);                   \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
  }

DEFINE_ROWS(fm_rows_i8__scalar, fm_act_i8, block_i8)
DEFINE_ROWS(fm_rows_i16__scalar, fm_act_i16, block_i16)
