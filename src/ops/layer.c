#include <math.h>
#include <string.h>

#include "fused.h"
#include "ops/ops.h"
#include "threads/threads.h"

/* The kernels in use: an operation reads them when it is called, and passes them to its parts. */
static const fm_shared_kernels *kernels(void) { return fm_shared_kernels_of(fm_current.isa); }

/* Norms, softmax and sums with a row work on rows [n_rows][n_cols] one by one; an item is a row. */
typedef struct {
  const fm_shared_kernels *kernels;
  const float *x, *weight, *bias;
  float *y;
  size_t n_cols;
  float eps;
} rows_job;

static void rms_norm_rows(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *j = context;
  const fm_shared_kernels *k = j->kernels;
  for (size_t r = begin; r < end; r++) {
    const float *x = j->x + r * j->n_cols;
    float factor = fm_rms_factor(k->sum_squares(x, j->n_cols), j->n_cols, j->eps);
    k->scale(x, j->weight, factor, j->y + r * j->n_cols, j->n_cols);
  }
}

static void layer_norm_rows(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *j = context;
  for (size_t r = begin; r < end; r++) {
    j->kernels->layer_norm(j->x + r * j->n_cols, j->weight, j->bias, j->y + r * j->n_cols,
                           j->n_cols, j->eps);
  }
}

static void softmax_rows(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *j = context;
  fm_softmax_fn *softmax = j->kernels->softmax;
  for (size_t r = begin; r < end; r++)
    softmax(j->x + r * j->n_cols, j->y + r * j->n_cols, j->n_cols);
}

static void add_row_rows(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *j = context;
  for (size_t r = begin; r < end; r++)
    j->kernels->add(j->x + r * j->n_cols, j->weight, j->y + r * j->n_cols, j->n_cols);
}

void fm_op_rms_norm(const float *x, const float *weight, float *y, size_t n_rows, size_t n_cols,
                    float eps) {
  const rows_job j = {
      .kernels = kernels(), .x = x, .weight = weight, .y = y, .n_cols = n_cols, .eps = eps};
  fm_parallel(rms_norm_rows, &j, n_rows, (fm_work)n_cols * FM_WORK_CONVERT);
}

void fm_op_layer_norm(const float *x, const float *weight, const float *bias, float *y,
                      size_t n_rows, size_t n_cols, float eps) {
  const rows_job j = {kernels(), x, weight, bias, y, n_cols, eps};
  fm_parallel(layer_norm_rows, &j, n_rows, (fm_work)n_cols * FM_WORK_CONVERT);
}

void fm_op_softmax(const float *x, float *y, size_t n_rows, size_t n_cols) {
  const rows_job j = {.kernels = kernels(), .x = x, .y = y, .n_cols = n_cols};
  fm_parallel(softmax_rows, &j, n_rows, (fm_work)n_cols * FM_WORK_EXP);
}

void fm_op_add_row(const float *x, const float *row, float *y, size_t n_rows, size_t n_cols) {
  const rows_job j = {.kernels = kernels(), .x = x, .weight = row, .y = y, .n_cols = n_cols};
  fm_parallel(add_row_rows, &j, n_rows, (fm_work)n_cols * FM_WORK_COPY);
}

/* Elementary functions in f64 with errors below 1e-9, too small to show in f32 results. Those of
 * libm would add 10 KB of tables. */
#define LN2 0x1.62e42fefa39efp-1
#define PI 0x1.921fb54442d18p+1
/* pi / 2 in three parts. The first two have 21 bits, so that their products with 32-bit integers
 * are exact. */
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

/* The series stop at terms below this; loops also keep the code small. */
#define NEGLIGIBLE 0x1p-54

/* ln x = k ln 2 + 2 artanh((m - 1) / (m + 1)), x = 2^k m; the series falls by 1/34 a term. x
 * positive, normal and finite, as every f32 is in f64. */
static double natural_log(double x) {
  uint64_t bits = to_bits(x), mantissa = bits & 0xfffffffffffff,
           above_sqrt_2 = mantissa >= 0x6a09e667f3bcd;
  double k = (double)(bits >> 52) - 1023 + (double)above_sqrt_2;
  double m = from_bits(mantissa | (1023 - above_sqrt_2) << 52); /* sqrt(1/2) .. sqrt(2) */
  double s = (m - 1) / (m + 1), power = s, sum = 0;
  for (double i = 1; fabs(power) > NEGLIGIBLE; i += 2, power *= s * s) sum += power / i;
  return 2 * sum + k * LN2;
}

/* e^x by Taylor's series on |x| <= ln 2 / 2; |x| < 700. The low bits of k + 1023 + 2^52 are an
 * exponent. */
static double exponential(double x) {
  double k = (x / LN2 + ROUND) - ROUND, r = x - k * LN2, term = 1, sum = 1;
  for (double i = 1; fabs(term) > NEGLIGIBLE; i++) {
    term *= r / i;
    sum += term;
  }
  return sum * from_bits(to_bits(k + 1023 + 0x1p52) << 52);
}

/* Cosine and sine times a magnitude, by Taylor's series in z = r^2 on |r| <= pi / 4; NaN from 2^32
 * on. */
static void cosine_and_sine(double angle, double magnitude, float *cosine, float *sine) {
  if (!(fabs(angle) < 0x1p32)) angle = (double)NAN;
  double rounded = angle * (2 / PI) + ROUND, n = rounded - ROUND;
  double r = ((angle - n * HALF_PI_1) - n * HALF_PI_2) - n * HALF_PI_3, z = r * r;
  double even =
      1 -
      z * (1.0 / 2 - z * (1.0 / 24 - z * (1.0 / 720 - z * (1.0 / 40320 - z * (1.0 / 3628800)))));
  double odd =
      1 - z * (1.0 / 6 -
               z * (1.0 / 120 - z * (1.0 / 5040 - z * (1.0 / 362880 - z * (1.0 / 39916800)))));
  double part[2] = {even * magnitude, r * odd * magnitude};
  uint64_t quadrant = to_bits(rounded);
  double c = part[quadrant & 1], s = part[~quadrant & 1];
  *cosine = (float)((quadrant + 1) & 2 ? -c : c);
  *sine = (float)(quadrant & 2 ? -s : s);
}

#define PAIRS 64 /* pairs whose angles are held at once */

typedef struct {
  fm_rotate_fn *rotate;
  float *x;
  const fm_rope_shape *shape;
  float base, linear_scale;
  const float *factors;
  float magnitude;
} rope_job;

static void rope_tokens(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rope_job *j = context;
  const fm_rope_shape *shape = j->shape;
  size_t n_pairs = shape->n_dims / 2, distance = shape->pairing == FM_ROPE_ADJACENT ? 1 : n_pairs;
  bool valid = j->base > 0 && j->base < (float)INFINITY;
  double log_base = valid ? natural_log((double)j->base) : 0;
  for (size_t first = 0; first < n_pairs; first += PAIRS) {
    size_t n = n_pairs - first < PAIRS ? n_pairs - first : PAIRS;
    double frequency[PAIRS];
    for (size_t i = 0; i < n; i++) {
      frequency[i] =
          exponential(-log_base * (double)(first + i) / (double)n_pairs) / (double)j->linear_scale;
      if (!valid) frequency[i] = (double)NAN;
      if (j->factors) frequency[i] /= (double)j->factors[first + i];
    }
    float *head =
        j->x + begin * shape->n_heads * shape->head_size + (distance == 1 ? 2 * first : first);
    for (size_t t = begin; t < end; t++) {
      float cosine[PAIRS], sine[PAIRS];
      double position = (double)shape->first_position + (double)t;
      for (size_t i = 0; i < n; i++)
        cosine_and_sine(position * frequency[i], (double)j->magnitude, &cosine[i], &sine[i]);
      for (size_t h = 0; h < shape->n_heads; h++, head += shape->head_size)
        j->rotate(head, distance, cosine, sine, n);
    }
  }
}

void fm_op_rope(float *x, const fm_rope_shape *shape, float base, float linear_scale,
                const float *factors, float magnitude) {
  const rope_job j = {kernels()->rotate, x, shape, base, linear_scale, factors, magnitude};
  fm_work work = (fm_work)shape->n_dims * (shape->n_heads * FM_WORK_COPY + FM_WORK_EXP);
  fm_parallel(rope_tokens, &j, shape->n_tokens, work);
}

typedef struct {
  const fm_traits *traits;
  const fm_kernels *kernels;
  int32_t isa;
  const uint8_t *table;
  const uint32_t *ids;
  float *y;
  size_t n_cols;
} embed_job;

static void embed_tokens(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const embed_job *j = context;
  size_t row_bytes = j->n_cols / j->traits->block_values * j->traits->block_bytes;
  for (size_t t = begin; t < end; t++) {
    fm_dequantize(j->traits, j->kernels, j->isa, j->table + j->ids[t] * row_bytes,
                  j->y + t * j->n_cols, j->n_cols);
  }
}

void fm_op_embed(int32_t type, const uint8_t *table, const uint32_t *ids, float *y, size_t n_tokens,
                 size_t n_cols) {
  const embed_job j = {
      fm_traits_of(type), fm_kernels_of(type), fm_current.isa, table, ids, y, n_cols};
  fm_parallel(embed_tokens, &j, n_tokens, (fm_work)n_cols * FM_WORK_CONVERT);
}

/* Element by element: an item is a stretch of values. */
#define STRETCH 1024

typedef struct {
  const fm_shared_kernels *kernels;
  const float *a, *b;
  float *y;
  size_t n_values;
  float factor; /* multiplies b, or a where there is no b */
  int32_t act;
} values_job;

/* The values of items begin <= i < end. */
static size_t stretch(size_t n_values, size_t begin, size_t end) {
  return (end * STRETCH < n_values ? end * STRETCH : n_values) - begin * STRETCH;
}

static size_t count_stretches(size_t n_values) { return (n_values + STRETCH - 1) / STRETCH; }

static void add_values(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const values_job *j = context;
  size_t first = begin * STRETCH;
  j->kernels->add(j->a + first, j->b + first, j->y + first, stretch(j->n_values, begin, end));
}

static void add_scaled_values(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const values_job *j = context;
  size_t first = begin * STRETCH;
  j->kernels->add_scaled(j->a + first, j->b + first, j->factor, j->y + first,
                         stretch(j->n_values, begin, end));
}

static void scale_values(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const values_job *j = context;
  size_t first = begin * STRETCH;
  j->kernels->scale(j->a + first, NULL, j->factor, j->y + first, stretch(j->n_values, begin, end));
}

static void gate_values(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const values_job *j = context;
  size_t first = begin * STRETCH;
  j->kernels->gated(j->a + first, j->b + first, j->y + first, stretch(j->n_values, begin, end),
                    j->act);
}

static void multiply_values(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const values_job *j = context;
  size_t first = begin * STRETCH;
  j->kernels->scale(j->a + first, j->b + first, 1.0f, j->y + first,
                    stretch(j->n_values, begin, end));
}

void fm_op_add(const float *a, const float *b, float *y, size_t n_values) {
  const values_job j = {.kernels = kernels(), .a = a, .b = b, .y = y, .n_values = n_values};
  fm_parallel(add_values, &j, count_stretches(n_values), STRETCH * FM_WORK_COPY);
}

void fm_op_add_scaled(const float *a, const float *b, float *y, size_t n_values, float factor) {
  const values_job j = {
      .kernels = kernels(), .a = a, .b = b, .y = y, .n_values = n_values, .factor = factor};
  fm_parallel(add_scaled_values, &j, count_stretches(n_values), STRETCH * FM_WORK_COPY);
}

void fm_op_scale(const float *x, float *y, size_t n_values, float factor) {
  const values_job j = {
      .kernels = kernels(), .a = x, .y = y, .n_values = n_values, .factor = factor};
  fm_parallel(scale_values, &j, count_stretches(n_values), STRETCH * FM_WORK_COPY);
}

void fm_op_gated(const float *gate, const float *up, float *y, size_t n_values, int32_t act) {
  const values_job j = {
      .kernels = kernels(), .a = gate, .b = up, .y = y, .n_values = n_values, .act = act};
  fm_parallel(gate_values, &j, count_stretches(n_values), STRETCH * FM_WORK_EXP);
}

void fm_op_multiply(const float *a, const float *b, float *y, size_t n_values) {
  const values_job j = {.kernels = kernels(), .a = a, .b = b, .y = y, .n_values = n_values};
  fm_parallel(multiply_values, &j, count_stretches(n_values), STRETCH * FM_WORK_COPY);
}

typedef struct {
  fm_to_f16_fn *to_f16;
  const float *x;
  uint16_t *y;
  size_t n_values;
} f16_job;

static void f16_values(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const f16_job *j = context;
  j->to_f16(j->x + begin * STRETCH, j->y + begin * STRETCH, stretch(j->n_values, begin, end));
}

void fm_op_kv_write(int32_t type, uint8_t *rows, const float *x, size_t n_values) {
  if (type == FM_TYPE_F32) {
    memcpy(rows, x, n_values * sizeof *x);
  } else if (type == FM_TYPE_F16) {
    const f16_job j = {kernels()->to_f16, x, (uint16_t *)rows, n_values};
    fm_parallel(f16_values, &j, count_stretches(n_values), STRETCH * FM_WORK_CONVERT);
  } else {
    fm_op_quantize(type, x, rows, n_values);
  }
}
