#include "ops/ops.h"
#include "threads/threads.h"

typedef struct {
  fm_sum_squares_fn *sum_squares;
  const float *x;
  size_t n_cols;
  float eps, *factor;
} factors_job;

static void make_factors(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const factors_job *j = context;
  for (size_t i = begin; i < end; i++) {
    j->factor[i] =
        fm_rms_factor(j->sum_squares(j->x + i * j->n_cols, j->n_cols), j->n_cols, j->eps);
  }
}

void fm_source_factors(const fm_source *source, const fm_shared_kernels *shared, size_t first_token,
                       size_t n_tokens, size_t n_cols, float *factor) {
  if (source->kind != FM_SOURCE_NORMED) return;
  const factors_job j = {shared->sum_squares, source->x + first_token * n_cols, n_cols, source->eps,
                         factor};
  fm_parallel(make_factors, &j, n_tokens, (fm_work)n_cols * FM_WORK_CONVERT);
}

void fm_source_row(const fm_source *source, const fm_shared_kernels *shared, size_t token,
                   size_t n_cols, size_t first_col, size_t n_values, float factor, float *out) {
  size_t at = token * n_cols + first_col;
  if (source->kind == FM_SOURCE_NORMED) {
    shared->scale(source->x + at, source->other ? source->other + first_col : NULL, factor, out,
                  n_values);
  } else {
    shared->gated(source->x + at, source->other ? source->other + at : NULL, out, n_values,
                  source->act);
  }
}
