/* The gated delta net. A value head is an item: its tokens go through its state in order, in chunks
 * of up to 32 with matrix products, or one by one where only a few are left.
 *
 * With d(i, j) the product of the decays of tokens j + 1 .. i, and d(i) that of tokens 0 .. i, the
 * recurrence of a chunk that begins with state S is
 *
 *   r_i = beta_i (v_i - d(i) S^T k_i) - sum over j < i of  beta_i d(i, j) (k_i . k_j) r_j
 *   o_i = d(i) S^T q_i + sum over j <= i of  d(i, j) (q_i . k_j) r_j
 *   S   = d(n - 1) S + sum over j of  d(n - 1, j) k_j r_j^T
 *
 * so r follows by forward substitution, 4 tokens at a time. Decays are multiplied, never divided: a
 * decay of 0 is no special case. Tokens after the i-th have no part in o_i and r_i, whatever
 * they hold. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels/delta.h"
#include "kernels/softplus.h"
#include "ops/ops.h"
#include "ops/scratch.h"

#define CHUNK FM_DELTA_CHUNK
#define STRIDE FM_DELTA_STRIDE
#define FEW_TOKENS 8 /* so many or fewer tokens are taken one by one */

typedef struct {
  const fm_shared_kernels *shared;
  const fm_delta_kernels *kernels;
  const fm_delta *shape;
  fm_delta_operands with;
  float *state, *out;
} job;

/* A token of a head: what it leaves of the state, and how much it writes. */
typedef struct {
  float decay, beta;
} gates;

/* y = x / sqrt(|x|^2 + eps) * scale. */
static void normalise(const job *j, const float *x, double scale, float *y) {
  size_t n = j->shape->key_size;
  double factor = scale / sqrt(j->shared->sum_squares(x, n) + (double)j->shape->eps);
  j->shared->scale(x, NULL, factor > (double)FLT_MAX ? FLT_MAX : (float)factor, y, n);
}

static const float *value_of(const job *j, size_t head, size_t token) {
  const fm_delta *s = j->shape;
  size_t keys = (size_t)2 * s->n_key_heads * s->key_size;
  return j->with.qkv + token * (keys + (size_t)s->n_value_heads * s->value_size) + keys +
         head * s->value_size;
}

static gates take_token(const job *j, size_t head, size_t token, float *q, float *k) {
  const fm_delta *s = j->shape;
  size_t key_cols = (size_t)s->n_key_heads * s->key_size;
  const float *row = value_of(j, 0, token) - 2 * key_cols;
  const float *query = row + head % s->n_key_heads * s->key_size;
  normalise(j, query, 1.0 / sqrt((double)s->key_size), q);
  normalise(j, query + key_cols, 1.0, k);
  size_t at = token * s->n_value_heads + head;
  float time = fm_softplus(j->with.alpha[at] + j->with.dt_bias[head]);
  return (gates){.decay = fm_expf(j->with.a[head] * time), .beta = fm_sigmoid(j->with.beta[at])};
}

/* out = rms_norm(o) * norm_weight * silu(gate), or o itself where there is no gate. o changes. */
static void finish_token(const job *j, size_t head, size_t token, float *o) {
  const fm_delta *s = j->shape;
  size_t n = s->value_size, at = (token * s->n_value_heads + head) * n;
  if (!j->with.gate) {
    memcpy(j->out + at, o, n * sizeof *o);
    return;
  }
  float factor = fm_rms_factor(j->shared->sum_squares(o, n), n, s->eps);
  j->shared->scale(o, j->with.norm_weight, factor, o, n);
  j->shared->gated(j->with.gate + at, o, j->out + at, n, FM_GATE_SILU);
}

/* The rows of a chunk, in scratch memory; there are n_rows of each, n and zeros up to a multiple of
 * 4. */
typedef struct {
  float *k, *q, *r, *o;
  size_t n, n_rows;
} chunk;

/* Weights of r in r (mix_r) and in o (mix_o); total: d(i); decay: d(n - 1, j). */
static void weigh(const job *j, const chunk *c, const gates *token, fm_delta_scratch *s,
                  float *total, float *decay) {
  size_t size = j->shape->key_size;
  float all = 1.0f;
  memset(s->mix_r, 0, sizeof s->mix_r);
  memset(s->mix_o, 0, sizeof s->mix_o);
  for (size_t i = 0; i < c->n; i++) {
    float *mix_r = s->mix_r[i], *mix_o = s->mix_o[i];
    j->shared->dot_f32(c->k + i * STRIDE, c->k, mix_r, size, i, STRIDE, 1, false);
    j->shared->dot_f32(c->q + i * STRIDE, c->k, mix_o, size, i + 1, STRIDE, 1, false);
    for (size_t at = 0; at < i; at++) {
      decay[at] *= token[i].decay;
      mix_r[at] *= -token[i].beta * decay[at];
      mix_o[at] *= decay[at];
    }
    decay[i] = 1.0f;
    all *= token[i].decay;
    total[i] = all;
  }
}

/* Rows first .. first + 3 of r and o get the parts of the rows before them, then of each other. */
static void substitute(const job *j, const chunk *c, size_t first, fm_delta_scratch *s) {
  size_t n_cols = j->shape->value_size;
  fm_delta_product before = {.b = c->r,
                             .b_row = STRIDE,
                             .y_row = STRIDE,
                             .a_row = CHUNK,
                             .a_col = 1,
                             .n_rows = 4,
                             .depth = first,
                             .n_cols = n_cols,
                             .factor = 1.0f};
  if (first > 0) {
    before.a = s->mix_r[first];
    before.y = c->r + first * STRIDE;
    j->kernels->products(&before);
    before.a = s->mix_o[first];
    before.y = c->o + first * STRIDE;
    j->kernels->products(&before);
  }
  for (size_t i = first; i < first + 4 && i < c->n; i++) {
    float *r = c->r + i * STRIDE, *o = c->o + i * STRIDE;
    for (size_t at = first; at < i; at++)
      j->shared->add_scaled(r, c->r + at * STRIDE, s->mix_r[i][at], r, n_cols);
    for (size_t at = first; at <= i; at++)
      j->shared->add_scaled(o, c->r + at * STRIDE, s->mix_o[i][at], o, n_cols);
  }
}

static void run_chunk(const job *j, size_t head, size_t first, size_t n, float *state,
                      fm_delta_scratch *s) {
  size_t key_size = j->shape->key_size, n_cols = j->shape->value_size,
         n_rows = (n + 3) & ~(size_t)3;
  chunk c = {.k = s->kq[0], .q = s->kq[n_rows], .r = s->ro[0], .o = s->ro[n_rows]};
  c.n = n;
  c.n_rows = n_rows;
  gates token[CHUNK];
  float total[CHUNK], decay[CHUNK];
  for (size_t i = 0; i < n_rows; i++) {
    float *q = c.q + i * STRIDE, *k = c.k + i * STRIDE;
    if (i < n) {
      token[i] = take_token(j, head, first + i, q, k);
    } else {
      memset(q, 0, key_size * sizeof *q);
      memset(k, 0, key_size * sizeof *k);
    }
  }
  weigh(j, &c, token, s, total, decay);
  const fm_delta_product of_state = {.a = c.k,
                                     .b = state,
                                     .y = c.r,
                                     .a_row = STRIDE,
                                     .a_col = 1,
                                     .b_row = n_cols,
                                     .y_row = STRIDE,
                                     .n_rows = 2 * n_rows,
                                     .depth = key_size,
                                     .n_cols = n_cols,
                                     .is_new = true};
  j->kernels->products(&of_state);
  for (size_t i = 0; i < n; i++) {
    float *r = c.r + i * STRIDE, *o = c.o + i * STRIDE, beta = token[i].beta;
    j->shared->scale(r, NULL, -beta * total[i], r, n_cols);
    j->shared->add_scaled(r, value_of(j, head, first + i), beta, r, n_cols);
    j->shared->scale(o, NULL, total[i], o, n_cols);
  }
  for (size_t i = 0; i < n; i += 4) substitute(j, &c, i, s);
  for (size_t i = 0; i < n; i++) {
    j->shared->scale(c.r + i * STRIDE, NULL, decay[i], c.r + i * STRIDE, n_cols);
    finish_token(j, head, first + i, c.o + i * STRIDE);
  }
  const fm_delta_product written = {.a = c.k,
                                    .b = c.r,
                                    .y = state,
                                    .a_row = 1,
                                    .a_col = STRIDE,
                                    .b_row = STRIDE,
                                    .y_row = n_cols,
                                    .n_rows = key_size,
                                    .depth = n,
                                    .n_cols = n_cols,
                                    .factor = total[n - 1]};
  j->kernels->products(&written);
}

static void run_token(const job *j, size_t head, size_t token, float *state, fm_delta_scratch *s) {
  fm_delta_token t = {.state = state,
                      .q = s->kq[1],
                      .k = s->kq[0],
                      .v = value_of(j, head, token),
                      .out = s->ro[0],
                      .key_size = j->shape->key_size,
                      .value_size = j->shape->value_size};
  gates of_token = take_token(j, head, token, s->kq[1], s->kq[0]);
  t.decay = of_token.decay;
  t.beta = of_token.beta;
  j->kernels->step(&t);
  finish_token(j, head, token, t.out);
}

static void run_heads(const void *context, size_t begin, size_t end, size_t thread) {
  const job *j = context;
  const fm_delta *shape = j->shape;
  fm_delta_scratch *scratch = &fm_scratch_of(thread)->delta;
  size_t state_values = (size_t)shape->key_size * shape->value_size;
  /* All heads take a chunk before the next one, so that its rows are read while they are near. */
  for (size_t t = 0, n; t < shape->n_tokens; t += n) {
    n = shape->n_tokens - t < CHUNK ? shape->n_tokens - t : CHUNK;
    for (size_t head = begin; head < end; head++) {
      float *state = j->state + head * state_values;
      if (n > FEW_TOKENS) {
        run_chunk(j, head, t, n, state, scratch);
      } else {
        for (size_t i = 0; i < n; i++) run_token(j, head, t + i, state, scratch);
      }
    }
  }
}

void fm_op_delta_net(const fm_delta *shape, const fm_delta_operands *with, float *state,
                     float *out) {
  int32_t isa = fm_current.isa;
  const fm_shared_kernels *shared = fm_shared_kernels_of(isa);
  const job j = {.shared = shared,
                 .kernels = isa >= FM_ISA_RELAXED ? shared->delta_relaxed : shared->delta,
                 .shape = shape,
                 .with = *with,
                 .state = state,
                 .out = out};
  fm_work work = (fm_work)shape->n_tokens * shape->key_size * shape->value_size * 3 * FM_WORK_F32;
  if (isa == FM_ISA_SCALAR) work *= FM_WORK_SCALAR;
  fm_parallel(run_heads, &j, shape->n_value_heads, work);
}
