/* Mixtures of experts: the choice of experts, products with their matrices, and the sum of their
 * results. A product is one of fm_op_matmul for each expert that has rows; its rows are gathered
 * while activations are made. */
#include <math.h>
#include <string.h>

#include "kernels/exp.h"
#include "ops/ops.h"
#include "ops/scratch.h"

#define LEAST_SUM 0x1p-14f /* least divisor of normalised weights */
#define MAX_LIST 32        /* targets that are passed on at a time */

static_assert(2 * FM_EXPERTS_MAX <= FM_STRIP_COLS, "scores and ranks fit into the scratch");

typedef struct {
  fm_softmax_fn *softmax;
  const fm_routing *routing;
  const float *logits, *bias;
  uint32_t *chosen; /* this and the next one: [n_tokens][n_used], best first */
  float *weights;
} route_job;

/* The largest rank that is still there, of equal ones the first. NaN is the largest, so that it is
 * chosen and its token's weights show it. */
static size_t best_of(const float *ranks, const uint8_t *gone, size_t first, size_t end) {
  size_t best = end;
  for (size_t e = first; e < end; e++) {
    if (gone[e]) continue;
    if (best == end || (!isnan(ranks[best]) && !(ranks[e] <= ranks[best]))) best = e;
  }
  return best;
}

/* Marks the experts of the groups that are not used. */
static void leave_groups(const fm_routing *s, const float *ranks, uint8_t *gone) {
  size_t size = s->n_experts / s->n_groups;
  float sums[FM_EXPERTS_MAX];
  uint8_t used[FM_EXPERTS_MAX] = {0};
  for (size_t g = 0; g < s->n_groups; g++) {
    size_t first = g * size, end = first + size, best = best_of(ranks, gone, first, end);
    sums[g] = ranks[best];
    gone[best] = 1;
    size_t second = best_of(ranks, gone, first, end);
    if (second < end) sums[g] += ranks[second];
    gone[best] = 0;
  }
  for (size_t i = 0; i < s->n_groups_used; i++) used[best_of(sums, used, 0, s->n_groups)] = 1;
  for (size_t e = 0; e < s->n_experts; e++) gone[e] = !used[e / size];
}

static void score_token(const route_job *j, const float *logits, float *scores) {
  size_t n = j->routing->n_experts;
  if (j->routing->scores == FM_SCORES_SOFTMAX) {
    j->softmax(logits, scores, n);
  } else if (j->routing->scores == FM_SCORES_SIGMOID) {
    for (size_t e = 0; e < n; e++) scores[e] = fm_sigmoid(logits[e]);
  } else {
    memcpy(scores, logits, n * sizeof *scores);
  }
}

static void route_token(const route_job *j, size_t token, float *scores, float *ranks) {
  const fm_routing *s = j->routing;
  uint8_t gone[FM_EXPERTS_MAX] = {0};
  uint32_t *chosen = j->chosen + token * s->n_used;
  float *weights = j->weights + token * s->n_used;
  score_token(j, j->logits + token * s->n_experts, scores);
  for (size_t e = 0; e < s->n_experts; e++) ranks[e] = j->bias ? scores[e] + j->bias[e] : scores[e];
  if (s->n_groups_used < s->n_groups) leave_groups(s, ranks, gone);
  for (size_t i = 0; i < s->n_used; i++) {
    size_t best = best_of(ranks, gone, 0, s->n_experts);
    gone[best] = 1;
    chosen[i] = (uint32_t)best;
    weights[i] = scores[best];
  }
  if (s->scores == FM_SCORES_SOFTMAX_CHOSEN) j->softmax(weights, weights, s->n_used);
  float sum = 0, factor = s->scale;
  for (size_t i = 0; i < s->n_used; i++) sum += weights[i];
  if (s->normalize) factor /= sum < LEAST_SUM ? LEAST_SUM : sum;
  for (size_t i = 0; i < s->n_used; i++) weights[i] *= factor;
}

static void route_tokens(const void *context, size_t begin, size_t end, size_t thread) {
  float *scores = fm_scratch_of(thread)->matmul.floats;
  for (size_t t = begin; t < end; t++) route_token(context, t, scores, scores + FM_EXPERTS_MAX);
}

/* A counting sort of all pairs (token, chosen expert) by expert. ends[e] counts, then is the place
 * of the expert's next pair from behind, and so at last its first one. */
static void group_pairs(const fm_routing *s, const uint32_t *chosen, const float *values,
                        uint32_t *rows, uint32_t *ends, float *weights) {
  size_t n_pairs = (size_t)s->n_tokens * s->n_used;
  memset(ends, 0, s->n_experts * sizeof *ends);
  for (size_t i = 0; i < n_pairs; i++) ends[chosen[i]]++;
  for (size_t e = 1; e < s->n_experts; e++) ends[e] += ends[e - 1];
  for (size_t i = n_pairs; i-- > 0;) {
    size_t place = --ends[chosen[i]];
    rows[place] = (uint32_t)(i / s->n_used);
    weights[place] = values[i];
  }
  for (size_t e = 1; e < s->n_experts; e++) ends[e - 1] = ends[e];
  ends[s->n_experts - 1] = (uint32_t)n_pairs;
}

void fm_op_route(const fm_routing *routing, const float *logits, const float *bias, uint32_t *rows,
                 uint32_t *ends, float *weights, uint32_t *workspace) {
  size_t n_experts = routing->n_experts;
  float *values = (float *)workspace + (size_t)routing->n_tokens * routing->n_used;
  const route_job j = {.softmax = fm_shared_kernels_of(fm_current.isa)->softmax,
                       .routing = routing,
                       .logits = logits,
                       .bias = bias,
                       .chosen = workspace,
                       .weights = values};
  fm_parallel(route_tokens, &j, routing->n_tokens,
              n_experts * (FM_WORK_EXP + (fm_work)routing->n_used * FM_WORK_F32));
  group_pairs(routing, workspace, values, rows, ends, weights);
}

/* The matrix of one expert, with the results of its rows, which begin at row `first`. */
static fm_target target_of(const fm_expert_target *target, size_t expert, size_t first,
                           size_t n_cols) {
  const fm_traits *traits = fm_traits_of(target->type);
  size_t row_bytes = n_cols / traits->block_values * traits->block_bytes;
  return (fm_target){.type = target->type,
                     .n_rows = target->n_rows,
                     .w = (const uint8_t *)target->w + expert * target->n_rows * row_bytes,
                     .y = target->y + first * target->n_rows};
}

/* Prepares n rows of results for a product that is added to them. */
static void start_with_bias(const fm_expert_target *target, size_t expert, float *y, size_t n) {
  for (size_t i = 0, n_rows = target->n_rows; i < n; i++, y += n_rows) {
    if (target->bias) {
      memcpy(y, target->bias + expert * n_rows, n_rows * sizeof *y);
    } else {
      memset(y, 0, n_rows * sizeof *y);
    }
  }
}

/* The source of rows first .. first + n - 1. A single row is no list. */
static fm_source part_of(const fm_source *source, size_t first, size_t n, size_t n_cols) {
  fm_source part = *source;
  size_t skipped = source->rows ? 0 : first;
  if (source->rows) part.rows += first;
  if (source->rows && n == 1) {
    skipped = *part.rows;
    part.rows = NULL;
  }
  part.x += skipped * n_cols;
  if (part.other) part.other += skipped * n_cols;
  return part;
}

/* Whether all rows are the same one, and no expert has two of them: the product of one token. */
static bool is_one_token(const fm_groups *groups) {
  if (!groups->rows) return false;
  for (size_t i = 1; i < groups->n_pairs; i++) {
    if (groups->rows[i] != groups->rows[0]) return false;
  }
  for (size_t e = 0, first = 0; e < groups->n_experts; first = groups->ends[e++]) {
    if (groups->ends[e] - first > 1) return false;
  }
  return true;
}

/* The activations of one token are made once, for all of its experts. */
void fm_op_matmul_experts(const fm_expert_target *targets, size_t n_targets,
                          const fm_groups *groups, const fm_source *source, size_t n_cols,
                          int32_t activation) {
  bool accumulate = false, one_token = is_one_token(groups);
  for (size_t i = 0; i < n_targets; i++) accumulate |= targets[i].bias != NULL;
  fm_target list[MAX_LIST];
  size_t n_list = 0;
  for (size_t e = 0, first = 0, n; e < groups->n_experts; e++, first += n) {
    n = groups->ends[e] - first;
    if (n == 0) continue;
    const fm_source part = part_of(source, first, n, n_cols);
    for (size_t i = 0; i < n_targets; i++) {
      list[n_list++] = target_of(&targets[i], e, first, n_cols);
      if (accumulate) start_with_bias(&targets[i], e, list[n_list - 1].y, n);
      bool is_last = i + 1 == n_targets && (!one_token || first + n == groups->n_pairs);
      if (n_list < MAX_LIST && !is_last) continue;
      fm_op_matmul(list, n_list, &part, n, n_cols, activation, accumulate);
      n_list = 0;
    }
  }
}

#define MIX_COLS 64 /* columns of an item */

typedef struct {
  const fm_shared_kernels *kernels;
  const float *x;
  const uint32_t *rows;
  const float *weights;
  float *y;
  size_t n_pairs, n_tokens, n_cols;
} mix_job;

static void mix_cols(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const mix_job *j = context;
  size_t first = begin * MIX_COLS, last = end * MIX_COLS < j->n_cols ? end * MIX_COLS : j->n_cols;
  for (size_t t = 0; t < j->n_tokens; t++)
    memset(j->y + t * j->n_cols + first, 0, (last - first) * sizeof *j->y);
  for (size_t i = 0; i < j->n_pairs; i++) {
    float *y = j->y + j->rows[i] * j->n_cols + first;
    j->kernels->add_scaled(y, j->x + i * j->n_cols + first, j->weights[i], y, last - first);
  }
}

void fm_op_mix_rows(const float *x, const uint32_t *rows, const float *weights, float *y,
                    size_t n_pairs, size_t n_tokens, size_t n_cols) {
  const mix_job j = {
      fm_shared_kernels_of(fm_current.isa), x, rows, weights, y, n_pairs, n_tokens, n_cols};
  fm_parallel(mix_cols, &j, (n_cols + MIX_COLS - 1) / MIX_COLS,
              (fm_work)(n_pairs + n_tokens) * MIX_COLS * FM_WORK_COPY);
}
