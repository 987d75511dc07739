#include "ops/ops.h"

void fm_source_factors(const fm_source *source, size_t first_token, size_t n_tokens, size_t n_cols, float *factor) {
  if (source->kind != FM_SOURCE_NORMED) return;
  fm_sum_squares_fn *sum_squares = fm_shared_kernels_of(fm_current.isa)->sum_squares;
  const float *x = source->x + first_token * n_cols;
  for (size_t i = 0; i < n_tokens; i++, x += n_cols) {
    factor[i] = fm_rms_factor(sum_squares(x, n_cols), n_cols, source->eps);
  }
}

void fm_source_row(const fm_source *source, size_t token, size_t n_cols, size_t first_col, size_t n_values,
                   float factor, float *out) {
  const fm_shared_kernels *shared = fm_shared_kernels_of(fm_current.isa);
  size_t at = token * n_cols + first_col;
  if (source->kind == FM_SOURCE_NORMED) {
    shared->scale(source->x + at, source->other ? source->other + first_col : NULL, factor, out, n_values);
  } else {
    shared->gated(source->x + at, source->other + at, out, n_values, source->act);
  }
}
