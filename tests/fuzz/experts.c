/* Mixtures of experts: the choice of experts, products, sums. */
#include <math.h>

#include "fuzz.h"

#define MAX_TARGETS 3
#define MAX_EXPERTS 9
#define MAX_PAIRS 20

typedef struct {
  const fm_routing *routing;
  const fm_expert_target *targets;
  const float *x, *up, *bias, *weights;
  const uint32_t *rows, *ends;
  uint32_t *out_rows, *out_ends, *workspace;
  float *y;
  uint32_t n_targets, n_pairs, n_experts, n_tokens, n_cols;
  int32_t act, activation;
} arguments;

static const float *place_floats(fuzz *f, uint64_t a, uint64_t b) {
  return fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a, b, sizeof(float)), sizeof(float));
}

static void *place_words(fuzz *f, fuzz_role role, uint64_t a, uint64_t b, uint64_t c) {
  return fuzz_place(f, role, fuzz_bytes(f, a, b, c * sizeof(uint32_t)), sizeof(uint32_t));
}

static int32_t call_route(void *p) {
  arguments *a = p;
  return fm_route(a->routing, a->x, a->bias, a->out_rows, a->out_ends, a->y, a->workspace);
}

static void run_route(fuzz *f) {
  arguments a = {0};
  fm_routing r = {.n_tokens = fuzz_dimension(f, 5),
                  .n_groups = fuzz_dimension(f, 4),
                  .normalize = fuzz_u8(f) & 1,
                  .scale = fuzz_parameter(f)};
  uint32_t size = fuzz_dimension(f, fuzz_u8(f) >= 250 ? 300 : 6);
  r.n_experts = fuzz_rarely(f) ? fuzz_u32(f) : r.n_groups * size;
  r.n_groups_used = fuzz_rarely(f) ? fuzz_u32(f) : 1 + fuzz_below(f, r.n_groups | !r.n_groups);
  uint64_t most = (uint64_t)(r.n_groups == 0 ? 0 : r.n_experts / r.n_groups) * r.n_groups_used;
  r.n_used = fuzz_rarely(f) || most == 0 || most > 1024 ? fuzz_dimension(f, 5)
                                                        : 1 + fuzz_below(f, (uint32_t)most);
  r.scores = fuzz_enum(f, FM_SCORES_SIGMOID);
  fuzz_fault(f, r.scores < FM_SCORES_SOFTMAX || r.scores > FM_SCORES_SIGMOID, FM_ERR_TYPE);
  bool is_shape = r.n_tokens > 0 && r.n_experts > 0 && r.n_experts <= FM_EXPERTS_MAX &&
                  r.n_groups > 0 && r.n_experts % r.n_groups == 0 && r.n_groups_used > 0 &&
                  r.n_groups_used <= r.n_groups && r.n_used > 0 && r.n_used <= most;
  fuzz_fault(f, !is_shape, FM_ERR_SHAPE);
  a.routing = fuzz_place(f, FUZZ_IN, sizeof r, _Alignof(fm_routing));
  unsigned at_routing = fuzz_last(f);
  a.x = place_floats(f, r.n_tokens, r.n_experts);
  a.bias = fuzz_place_optional(f, fuzz_bytes(f, r.n_experts, 1, sizeof *a.bias), sizeof *a.bias);
  a.out_rows = place_words(f, FUZZ_OUT, r.n_tokens, r.n_used, 1);
  a.out_ends = place_words(f, FUZZ_OUT, r.n_experts, 1, 1);
  a.y = place_words(f, FUZZ_OUT, r.n_tokens, r.n_used, 1);
  a.workspace = place_words(f, FUZZ_OUT, r.n_tokens, r.n_used, 2);
  fuzz_fill(f);
  fuzz_store(f, at_routing, &r, sizeof r);
  if (!fuzz_is_readable(f, at_routing)) {
    /* Another struct may lie there. */
    fuzz_fault(f, true, FM_ERR_ALIGN);
    fuzz_fault(f, true, FM_ERR_RANGE);
  }
  if (fuzz_run(f, call_route, &a) != FM_OK) return;
  uint32_t n_pairs = r.n_tokens * r.n_used, first = 0;
  for (uint32_t e = 0; e < r.n_experts; first = a.out_ends[e++]) {
    if (a.out_ends[e] < first || a.out_ends[e] - first > r.n_tokens) fuzz_fail("end %u", e);
    for (uint32_t i = first; i < a.out_ends[e]; i++) {
      bool is_next = i == first || a.out_rows[i] > a.out_rows[i - 1];
      if (a.out_rows[i] >= r.n_tokens || !is_next) fuzz_fail("row %u is %u", i, a.out_rows[i]);
    }
  }
  if (first != n_pairs) fuzz_fail("%u pairs instead of %u", first, n_pairs);
}

/* Lists of rows and ends, as a rule correct ones. */
static void store_lists(fuzz *f, const arguments *a, unsigned at_rows, unsigned at_ends) {
  uint32_t rows[MAX_PAIRS], ends[MAX_EXPERTS];
  if (a->n_pairs <= MAX_PAIRS && a->n_experts <= MAX_EXPERTS && a->n_experts > 0) {
    for (uint32_t i = 0; i < a->n_pairs; i++)
      rows[i] = fuzz_rarely(f) ? fuzz_u32(f) : a->n_tokens == 0 ? 0 : fuzz_below(f, a->n_tokens);
    for (uint32_t e = 0, last = 0; e < a->n_experts; last = ends[e++])
      ends[e] = last <= a->n_pairs ? last + fuzz_below(f, a->n_pairs - last + 1) : last;
    if (!fuzz_rarely(f)) ends[a->n_experts - 1] = a->n_pairs;
    if (a->rows) fuzz_store(f, at_rows, rows, a->n_pairs * sizeof *rows);
    fuzz_store(f, at_ends, ends, a->n_experts * sizeof *ends);
  }
}

/* Faults of the lists as they are in memory in the end: operands may lie over one another. */
static void judge_lists(fuzz *f, const arguments *a, unsigned at_rows, unsigned at_ends) {
  for (uint32_t i = 0; a->rows && fuzz_is_readable(f, at_rows) && i < a->n_pairs; i++)
    fuzz_fault(f, a->rows[i] >= a->n_tokens, FM_ERR_RANGE);
  if (!fuzz_is_readable(f, at_ends) || a->n_experts == 0) return;
  for (uint32_t e = 1; e < a->n_experts; e++)
    fuzz_fault(f, a->ends[e - 1] > a->ends[e], FM_ERR_RANGE);
  fuzz_fault(f, a->ends[a->n_experts - 1] != a->n_pairs, FM_ERR_RANGE);
}

static int32_t call_experts(void *p) {
  arguments *a = p;
  return fm_matmul_experts(a->targets, a->n_targets, a->rows, a->ends, a->n_pairs, a->n_experts,
                           a->x, a->up, a->n_tokens, a->n_cols, a->act, a->activation);
}

static void run_experts(fuzz *f) {
  arguments a = {.n_experts = fuzz_dimension(f, MAX_EXPERTS), .n_tokens = fuzz_dimension(f, 6)};
  int32_t type = fuzz_type(f);
  bool gathered = fuzz_u8(f) & 1;
  a.n_pairs = gathered || fuzz_rarely(f) ? fuzz_dimension(f, MAX_PAIRS) : a.n_tokens;
  fuzz_fault(f, !gathered && a.n_pairs != a.n_tokens, FM_ERR_SHAPE);
  a.activation = fuzz_activation(f);
  a.act = fuzz_u8(f) & 1 ? -1 : fuzz_enum(f, FM_GATE_CLAMPED);
  fuzz_fault(f, a.act < -1 || a.act > FM_GATE_CLAMPED, FM_ERR_ACTIVATION);
  a.n_cols = fuzz_columns(f, type, 256);
  a.x = place_floats(f, a.n_tokens, a.n_cols);
  a.up = fuzz_place_optional(f, fuzz_bytes(f, a.n_tokens, a.n_cols, sizeof *a.up), sizeof *a.up);
  fuzz_fault(f, a.up != NULL && a.act == -1, FM_ERR_ACTIVATION);
  a.ends = place_words(f, FUZZ_IN, a.n_experts, 1, 1);
  unsigned at_ends = fuzz_last(f), at_rows = at_ends;
  if (gathered) {
    a.rows = place_words(f, FUZZ_IN, a.n_pairs, 1, 1);
    at_rows = fuzz_last(f);
    f->operands[at_rows].absent = a.rows == NULL;
    fuzz_fault(f, a.rows == NULL && a.n_pairs != a.n_tokens, FM_ERR_SHAPE);
  }
  fm_expert_target list[MAX_TARGETS];
  a.n_targets = fuzz_dimension(f, MAX_TARGETS - 1);
  uint32_t n = a.n_targets < MAX_TARGETS ? a.n_targets : 0;
  a.targets = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_targets, 1, sizeof *list),
                         _Alignof(fm_expert_target));
  unsigned at_list = fuzz_last(f);
  for (uint32_t i = 0; i < n; i++) {
    fm_expert_target *t = &list[i];
    *t = (fm_expert_target){.type = i == 0 ? type : fuzz_type(f), .n_rows = fuzz_dimension(f, 5)};
    uint64_t all = (uint64_t)t->n_rows * a.n_experts;
    fuzz_fault(f, all > UINT32_MAX, FM_ERR_SHAPE);
    t->w = fuzz_place(f, FUZZ_IN, fuzz_weight_bytes(f, t->type, (uint32_t)all, a.n_cols),
                      fuzz_alignment(t->type));
    t->bias = fuzz_place_optional(f, fuzz_bytes(f, a.n_experts, t->n_rows, sizeof *t->bias),
                                  sizeof *t->bias);
    t->y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_pairs, t->n_rows, sizeof *t->y), sizeof *t->y);
  }
  /* Lists of others lie over canaries: their shapes are wrong. */
  fuzz_fault(f, n == 0, FM_ERR_SHAPE);
  fuzz_fault(f, n == 0, FM_ERR_TYPE);
  fuzz_fault(f, n == 0, FM_ERR_ALIGN);
  fuzz_fault(f, n == 0, FM_ERR_RANGE);
  fuzz_fill(f);
  store_lists(f, &a, at_rows, at_ends);
  fuzz_store(f, at_list, list, n * sizeof *list);
  judge_lists(f, &a, at_rows, at_ends);
  fuzz_run(f, call_experts, &a);
}

static int32_t call_mix(void *p) {
  arguments *a = p;
  return fm_mix_rows(a->x, a->rows, a->weights, a->y, a->n_pairs, a->n_tokens, a->n_cols);
}

static void run_mix(fuzz *f) {
  arguments a = {.n_pairs = fuzz_dimension(f, MAX_PAIRS),
                 .n_tokens = fuzz_dimension(f, 6),
                 .n_cols = fuzz_dimension(f, 150)};
  a.x = place_floats(f, a.n_pairs, a.n_cols);
  a.rows = place_words(f, FUZZ_IN, a.n_pairs, 1, 1);
  unsigned at_rows = fuzz_last(f);
  a.weights = place_floats(f, a.n_pairs, 1);
  a.y = place_words(f, FUZZ_OUT, a.n_tokens, a.n_cols, 1);
  fuzz_fill(f);
  if (a.n_pairs <= MAX_PAIRS) {
    uint32_t rows[MAX_PAIRS];
    for (uint32_t i = 0; i < a.n_pairs; i++)
      rows[i] = fuzz_rarely(f) ? fuzz_u32(f) : a.n_tokens == 0 ? 0 : fuzz_below(f, a.n_tokens);
    fuzz_store(f, at_rows, rows, a.n_pairs * sizeof *rows);
  }
  for (uint32_t i = 0; fuzz_is_readable(f, at_rows) && i < a.n_pairs; i++)
    fuzz_fault(f, a.rows[i] >= a.n_tokens, FM_ERR_RANGE);
  fuzz_run(f, call_mix, &a);
}

const fuzz_target fuzz_experts[] = {{"fm_route", run_route},
                                    {"fm_matmul_experts", run_experts},
                                    {"fm_mix_rows", run_mix},
                                    {NULL, NULL}};
