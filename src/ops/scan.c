/* The selective scan. An item is a head. A chunk of 16 tokens is computed together, tokens that
 * fill no chunk go through the state one by one. With
 *
 *   step_t, decay_t      the factors of token t
 *   since_t              decay_first * .. * decay_t
 *   weight_ts            step_s * decay_(s+1) * .. * decay_t
 *
 * the recurrence is three products of matrices with the state H before the chunk:
 *
 *   y_t = since_t * C_t H + sum_{s <= t} weight_ts (C_t . B_s) x_s + d x_t
 *   H  <- since_last * H + sum_s B_s^T (weight_last,s x_s)
 *
 * which read and write the state once for the chunk instead of once for each token. That is faster
 * where states are large; longer chunks take longer for the second sum. */
#include <string.h>

#include "kernels/softplus.h"
#include "ops/ops.h"
#include "threads/threads.h"

#define CHUNK 16
#define COLUMNS 64 /* of x, weighted at a time */

/* Smaller factors count as 0: they would make subnormal products, which take processors a hundred
 * times as long. */
#define NEGLIGIBLE 0x1p-100f

static float without_subnormals(float factor) { return factor < NEGLIGIBLE ? 0.0f : factor; }

typedef struct {
  const fm_shared_kernels *kernels;
  const fm_scan_kernels *scan;
  const fm_scan *shape;
  const fm_scan_operands *operands;
  size_t x_stride, y_stride; /* values of a token */
} scan_job;

/* Some tokens of a head. */
typedef struct {
  const float *x, *b, *c;
  float *h, *y, d;
  size_t n_tokens; /* 1..CHUNK */
  float step[CHUNK], decay[CHUNK];
} scan_chunk;

static void step_by_step(const scan_job *j, const scan_chunk *k) {
  for (size_t t = 0; t < k->n_tokens; t++) {
    fm_scan_factors factors = {k->step[t], k->decay[t], k->d};
    size_t at = t * j->x_stride;
    j->scan->step(k->x + at, k->b + at, k->c + at, factors, k->h, k->y + t * j->y_stride,
                  j->shape->state_size, j->shape->head_size);
  }
}

/* scores[t][s] = weight_ts * (C_t . B_s), s <= t, plus d where s is t. weight: those of the last
 * token. */
static void score(const scan_job *j, const scan_chunk *k, float scores[CHUNK][CHUNK],
                  float weight[CHUNK], float since[CHUNK]) {
  size_t n_state = j->shape->state_size, stride = j->x_stride;
  for (size_t s = 0; s < CHUNK; s++) {
    j->kernels->dot_f32(k->b + s * stride, k->c + s * stride, &scores[s][s], n_state, CHUNK - s,
                        stride, CHUNK, false);
  }
  float passed = 1.0f;
  for (size_t t = 0; t < CHUNK; t++) {
    for (size_t s = 0; s < t; s++) {
      weight[s] = without_subnormals(weight[s] * k->decay[t]);
      scores[t][s] *= weight[s];
    }
    weight[t] = k->step[t];
    scores[t][t] = scores[t][t] * k->step[t] + k->d;
    since[t] = passed = without_subnormals(passed * k->decay[t]);
  }
}

/* y_t += sum_{s <= t} scores[t][s] x_s. Four tokens share what they all see; what comes after the
 * first of them is added to each alone, so that no later token takes part. */
static void add_earlier(const scan_job *j, const scan_chunk *k, float scores[CHUNK][CHUNK]) {
  size_t head_size = j->shape->head_size;
  for (size_t t = 0; t < CHUNK; t += 4) {
    float *y = k->y + t * j->y_stride;
    fm_strided a = {scores[t], CHUNK, 1};
    j->scan->mix(a, k->x, j->x_stride, y, j->y_stride, 4, t + 1, head_size);
    for (size_t r = 1; r < 4; r++) {
      fm_strided rest = {scores[t + r] + t + 1, CHUNK, 1};
      j->scan->mix(rest, k->x + (t + 1) * j->x_stride, j->x_stride, y + r * j->y_stride,
                   j->y_stride, 1, r, head_size);
    }
  }
}

/* H = since_last * H + sum_s B_s^T (weight_s x_s) */
static void update(const scan_job *j, const scan_chunk *k, const float weight[CHUNK], float since) {
  size_t n_state = j->shape->state_size, head_size = j->shape->head_size;
  float weighted[CHUNK][COLUMNS];
  j->kernels->scale(k->h, NULL, since, k->h, n_state * head_size);
  for (size_t p = 0; p < head_size; p += COLUMNS) {
    size_t n_cols = head_size - p < COLUMNS ? head_size - p : COLUMNS;
    for (size_t s = 0; s < CHUNK; s++)
      j->kernels->scale(k->x + s * j->x_stride + p, NULL, weight[s], weighted[s], n_cols);
    fm_strided transposed = {k->b, 1, j->x_stride};
    j->scan->mix(transposed, weighted[0], COLUMNS, k->h + p, head_size, n_state, CHUNK, n_cols);
  }
}

static void together(const scan_job *j, const scan_chunk *k) {
  float scores[CHUNK][CHUNK], weight[CHUNK], since[CHUNK];
  size_t head_size = j->shape->head_size;
  score(j, k, scores, weight, since);
  for (size_t t = 0; t < CHUNK; t++) memset(k->y + t * j->y_stride, 0, head_size * sizeof *k->y);
  fm_strided c = {k->c, j->x_stride, 1};
  j->scan->mix(c, k->h, head_size, k->y, j->y_stride, CHUNK, j->shape->state_size, head_size);
  for (size_t t = 0; t < CHUNK; t++) {
    float *y = k->y + t * j->y_stride;
    j->kernels->scale(y, NULL, since[t], y, head_size);
  }
  add_earlier(j, k, scores);
  update(j, k, weight, since[CHUNK - 1]);
}

static void scan_heads(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const scan_job *j = context;
  const fm_scan *s = j->shape;
  const fm_scan_operands *o = j->operands;
  size_t n_heads = s->n_heads, n_state = s->state_size, head_size = s->head_size;
  for (size_t head = begin; head < end; head++) {
    size_t group = head / (n_heads / s->n_groups);
    for (size_t first = 0; first < s->n_tokens; first += CHUNK) {
      scan_chunk k = {.x = o->x + first * j->x_stride + head * head_size,
                      .h = o->state + head * n_state * head_size,
                      .y = o->y + first * j->y_stride + head * head_size,
                      .d = o->d[head]};
      k.n_tokens = s->n_tokens - first < CHUNK ? s->n_tokens - first : CHUNK;
      k.b = o->x + first * j->x_stride + n_heads * head_size + group * n_state;
      k.c = k.b + s->n_groups * n_state;
      for (size_t t = 0; t < k.n_tokens; t++) {
        k.step[t] = fm_softplus(o->dt[(first + t) * n_heads + head] + o->dt_bias[head]);
        k.decay[t] = without_subnormals(fm_expf(k.step[t] * o->a[head]));
      }
      if (k.n_tokens < CHUNK) {
        step_by_step(j, &k);
      } else {
        together(j, &k);
      }
    }
  }
}

void fm_op_ssm_scan(const fm_scan *shape, const fm_scan_operands *operands) {
  int32_t isa = fm_current.isa;
  size_t inner = (size_t)shape->n_heads * shape->head_size;
  scan_job j = {.kernels = fm_shared_kernels_of(isa), .shape = shape, .operands = operands};
  j.scan = j.kernels->scan;
  j.x_stride = inner + 2 * (size_t)shape->n_groups * shape->state_size;
  j.y_stride = inner;
  fm_work work = (fm_work)2 * FM_WORK_F32 * shape->n_tokens * shape->state_size * shape->head_size;
  if (isa == FM_ISA_SCALAR) work *= FM_WORK_SCALAR;
  fm_parallel(scan_heads, &j, shape->n_heads, work);
}
