#include <math.h>
#include <string.h>

#include "fused.h"
#include "ops/ops.h"

static const fm_shared_kernels *kernels(void) { return fm_shared_kernels_of(fm_current.isa); }

void fm_op_rms_norm(const float *x, const float *weight, float *y, size_t n_rows, size_t n_cols, float eps) {
  const fm_shared_kernels *k = kernels();
  for (size_t r = 0; r < n_rows; r++, x += n_cols, y += n_cols) {
    k->scale(x, weight, fm_rms_factor(k->sum_squares(x, n_cols), n_cols, eps), y, n_cols);
  }
}

void fm_op_layer_norm(const float *x, const float *weight, const float *bias, float *y, size_t n_rows, size_t n_cols,
                      float eps) {
  fm_layer_norm_fn *layer_norm = kernels()->layer_norm;
  for (size_t r = 0; r < n_rows; r++) layer_norm(x + r * n_cols, weight, bias, y + r * n_cols, n_cols, eps);
}

void fm_op_softmax(const float *x, float *y, size_t n_rows, size_t n_cols) {
  fm_softmax_fn *softmax = kernels()->softmax;
  for (size_t r = 0; r < n_rows; r++) softmax(x + r * n_cols, y + r * n_cols, n_cols);
}

/* Elementary functions in f64 with errors below 1e-9, which f32 results do not show: libm's would bring 10 KB of tables. */
#define LN2 0x1.62e42fefa39efp-1
#define PI 0x1.921fb54442d18p+1
/* pi / 2 in three parts; the first two have 21 bits, so that 32-bit multiples of them are exact. */
#define HALF_PI_1 0x1.921fb00000000p+0
#define HALF_PI_2 0x1.5110b00000000p-22
#define HALF_PI_3 0x1.18469898cc517p-44
#define ROUND 0x1.8p52 /* pushes the fraction out of the mantissa */

static uint64_t to_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static double from_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Where a series has come to its end; the loops also stay small that way. */
#define NEGLIGIBLE 0x1p-54

/* ln x = k ln 2 + 2 artanh((m - 1) / (m + 1)), x = 2^k m; the series falls by 1/34 a term. x positive, normal and finite,
 * as every f32 is in f64. */
static double natural_log(double x) {
  uint64_t bits = to_bits(x), mantissa = bits & 0xfffffffffffff, above_sqrt_2 = mantissa >= 0x6a09e667f3bcd;
  double k = (double)(bits >> 52) - 1023 + (double)above_sqrt_2;
  double m = from_bits(mantissa | (1023 - above_sqrt_2) << 52); /* sqrt(1/2) .. sqrt(2) */
  double s = (m - 1) / (m + 1), power = s, sum = 0;
  for (double i = 1; fabs(power) > NEGLIGIBLE; i += 2, power *= s * s) sum += power / i;
  return 2 * sum + k * LN2;
}

/* e^x by Taylor's series on |x| <= ln 2 / 2; |x| < 700. The low bits of k + 1023 + 2^52 are an exponent. */
static double exponential(double x) {
  double k = (x / LN2 + ROUND) - ROUND, r = x - k * LN2, term = 1, sum = 1;
  for (double i = 1; fabs(term) > NEGLIGIBLE; i++) {
    term *= r / i;
    sum += term;
  }
  return sum * from_bits(to_bits(k + 1023 + 0x1p52) << 52);
}

/* Cosine and sine by Taylor's series in z = r^2 on |r| <= pi / 4; NaN from 2^32 on. */
static void cosine_and_sine(double angle, float *cosine, float *sine) {
  if (!(fabs(angle) < 0x1p32)) angle = (double)NAN;
  double rounded = angle * (2 / PI) + ROUND, n = rounded - ROUND;
  double r = ((angle - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3, z = r * r;
  double even = 1 - z * (1.0 / 2 - z * (1.0 / 24 - z * (1.0 / 720 - z * (1.0 / 40320 - z * (1.0 / 3628800)))));
  double odd = 1 - z * (1.0 / 6 - z * (1.0 / 120 - z * (1.0 / 5040 - z * (1.0 / 362880 - z * (1.0 / 39916800)))));
  double part[2] = {even, r * odd};
  uint64_t quadrant = to_bits(rounded);
  double c = part[quadrant & 1], s = part[~quadrant & 1];
  *cosine = (float)((quadrant + 1) & 2 ? -c : c);
  *sine = (float)(quadrant & 2 ? -s : s);
}

#define PAIRS 64 /* whose angles are held at once */

void fm_op_rope(float *x, const fm_rope_shape *shape, float base, float linear_scale, const float *factors) {
  fm_rotate_fn *rotate = kernels()->rotate;
  size_t half = shape->n_dims / 2, distance = shape->pairing == FM_ROPE_ADJACENT ? 1 : half;
  bool valid = base > 0 && base < (float)INFINITY;
  double log_base = valid ? natural_log((double)base) : 0;
  for (size_t first = 0; first < half; first += PAIRS) {
    size_t n = half - first < PAIRS ? half - first : PAIRS;
    double frequency[PAIRS];
    for (size_t i = 0; i < n; i++) {
      frequency[i] = exponential(-log_base * (double)(first + i) / (double)half) / (double)linear_scale;
      if (!valid) frequency[i] = (double)NAN;
      if (factors) frequency[i] /= (double)factors[first + i];
    }
    float *head = x + (distance == 1 ? 2 * first : first);
    for (size_t t = 0; t < shape->n_tokens; t++) {
      float cosine[PAIRS], sine[PAIRS];
      double position = (double)shape->first_position + (double)t;
      for (size_t i = 0; i < n; i++) cosine_and_sine(position * frequency[i], &cosine[i], &sine[i]);
      for (size_t h = 0; h < shape->n_heads; h++, head += shape->head_size) rotate(head, distance, cosine, sine, n);
    }
  }
}

void fm_op_embed(const fm_traits *traits, const fm_kernels *type, const uint8_t *table, const uint32_t *ids, float *y,
                 size_t n_tokens, size_t n_cols) {
  size_t row_bytes = n_cols / traits->block_values * traits->block_bytes;
  for (size_t t = 0; t < n_tokens; t++) {
    fm_op_dequantize(traits, type, table + ids[t] * row_bytes, y + t * n_cols, n_cols);
  }
}

void fm_op_add(const float *a, const float *b, float *y, size_t n_values) { kernels()->add(a, b, y, n_values); }

void fm_op_gated(const float *gate, const float *up, float *y, size_t n_values, int32_t act) {
  kernels()->gated(gate, up, y, n_values, act);
}

void fm_op_kv_write(const fm_traits *traits, uint8_t *rows, const float *x, size_t n_values) {
  if (traits->type == FM_TYPE_F32) {
    memcpy(rows, x, n_values * sizeof *x);
  } else if (traits->type == FM_TYPE_F16) {
    kernels()->to_f16(x, (uint16_t *)rows, n_values);
  } else {
    fm_op_quantize(traits, fm_quantizer_of(traits->type), x, rows, n_values);
  }
}
