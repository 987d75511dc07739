#include <string.h>

#include "ops/ops.h"

void fm_op_ffn(const fm_ffn_weights *weights, const float *x, const float *norm_weight, float eps,
               float *y, float *workspace, size_t n_tokens, size_t n_embd, size_t n_ff, int32_t act,
               bool residual, int32_t activation) {
  float *gate = workspace, *up = workspace + n_tokens * n_ff;
  const fm_source normed = {.kind = norm_weight ? FM_SOURCE_NORMED : FM_SOURCE_PLAIN,
                            .x = x,
                            .other = norm_weight,
                            .eps = eps};
  const fm_target inner[] = {
      {.type = weights->gate_type, .n_rows = (uint32_t)n_ff, .w = weights->gate, .y = gate},
      {.type = weights->up_type, .n_rows = (uint32_t)n_ff, .w = weights->up, .y = up},
  };
  fm_op_matmul(inner, 2, &normed, n_tokens, n_embd, activation, false);

  /* The product is added onto the residual: x is read for the last time here. */
  if (residual && y != x) memcpy(y, x, n_tokens * n_embd * sizeof *y);
  const fm_source gated = {.kind = FM_SOURCE_GATED, .x = gate, .other = up, .act = act};
  const fm_target down = {
      .type = weights->down_type, .n_rows = (uint32_t)n_embd, .w = weights->down, .y = y};
  fm_op_matmul(&down, 1, &gated, n_tokens, n_ff, activation, residual);
}
