/* The operations: loops, token panels, scratch. The exports have checked all arguments. */
#ifndef FM_OPS_OPS_H
#define FM_OPS_OPS_H

#include <stdint.h>

#include "formats/traits.h"
#include "fused.h"
#include "kernels/table.h"

/* The source of a product's activations, which are made a token panel at a time
 * (ops/activations.h). */
typedef enum {
  FM_SOURCE_PLAIN,
  FM_SOURCE_NORMED, /* rms_norm(x) * other */
  FM_SOURCE_GATED   /* act(x) * other */
} fm_source_kind;

typedef struct {
  fm_source_kind kind;
  const float *x;       /* [n_tokens][n_cols] */
  const float *other;   /* NORMED: [n_cols], or NULL for ones; GATED: [n_tokens][n_cols] or NULL */
  float eps;            /* NORMED */
  int32_t act;          /* GATED: an fm_gate */
  const uint32_t *rows; /* the row of x (and other) for each token, or NULL for all rows in order;
                           not NORMED */
} fm_source;

/* The factors of a NORMED source, which depend on whole rows: factor[i] of token first_token + i,
 * i = 0..n_tokens-1. Does nothing for other sources. */
void fm_source_factors(const fm_source *source, const fm_shared_kernels *shared, size_t first_token,
                       size_t n_tokens, size_t n_cols, float *factor);

/* out[0 .. n_values) = the activations of a token, from first_col on. The source is not PLAIN;
 * factor: the token's, where the source is NORMED. */
void fm_source_row(const fm_source *source, const fm_shared_kernels *shared, size_t token,
                   size_t n_cols, size_t first_col, size_t n_values, float factor, float *out);

/* y = (or += where accumulate) X * W^T for every target. X is made and quantised once for all
 * targets that get the same activations.
 * Contracts: fused_matmul, fused_matmul_many, fused_rmsnorm_matmul and fused_swiglu_matmul in
 * fused.h. */
void fm_op_matmul(const fm_target *targets, size_t n_targets, const fm_source *source,
                  size_t n_tokens, size_t n_cols, int32_t activation, bool accumulate);

/* Contract: fused_ffn in fused.h. */
void fm_op_ffn(const fm_ffn_weights *weights, const float *x, const float *norm_weight, float eps,
               float *y, float *workspace, size_t n_tokens, size_t n_embd, size_t n_ff, int32_t act,
               bool residual, int32_t activation);

/* Contracts: fm_route, fm_matmul_experts and fm_mix_rows in fused.h. */
typedef struct {
  const uint32_t *rows, *ends;
  size_t n_pairs, n_experts;
} fm_groups;
void fm_op_route(const fm_routing *routing, const float *logits, const float *bias, uint32_t *rows,
                 uint32_t *ends, float *weights, uint32_t *workspace);
void fm_op_matmul_experts(const fm_expert_target *targets, size_t n_targets,
                          const fm_groups *groups, const fm_source *source, size_t n_cols,
                          int32_t activation);
void fm_op_mix_rows(const float *x, const uint32_t *rows, const float *weights, float *y,
                    size_t n_pairs, size_t n_tokens, size_t n_cols);

/* Contract: fm_dequantize_rows in fused.h. */
void fm_op_dequantize(int32_t type, const uint8_t *w, float *y, size_t n_values);

/* The same on the calling thread, with kernels that the caller has chosen: operations that read
 * blocks on their way use it. */
void fm_dequantize(const fm_traits *traits, const fm_kernels *kernels, int32_t isa,
                   const uint8_t *w, float *y, size_t n_values);

/* The flat layout of fused_dequant_matmul_q4k_legacy, drawn in ops/legacy.c. */
#define FM_LEGACY_BLOCK_VALUES 256
#define FM_LEGACY_BLOCK_BYTES 140

/* Contracts: fm_quantize_rows and fused_dequant_matmul_q4k_legacy in fused.h. */
void fm_op_quantize(int32_t type, const float *x, uint8_t *w, size_t n_values);
void fm_op_matmul_q4_legacy(const uint8_t *w, const float *scales, const float *x, float *y,
                            size_t n_tokens, size_t n_rows, size_t n_cols);

/* How a product is served: the instruction set of its kernels and the activations they get. */
typedef struct {
  int32_t isa;        /* fm_isa_id */
  int32_t activation; /* their form: an fm_activation or FM_ACT_INT8_BY_32 */
} fm_service;

/* isa: the instruction set in use; activation: asked for. */
fm_service fm_service_of(int32_t isa, const fm_kernels *kernels, int32_t activation);

/* Contracts: fm_rms_norm .. fm_multiply and fm_kv_write in fused.h; rows: the first row of the
 * cache to be written. */
typedef struct {
  size_t n_tokens, n_heads, head_size, n_dims;
  uint32_t first_position;
  int32_t pairing; /* fm_rope_pairing */
} fm_rope_shape;
void fm_op_rms_norm(const float *x, const float *weight, float *y, size_t n_rows, size_t n_cols,
                    float eps);
void fm_op_layer_norm(const float *x, const float *weight, const float *bias, float *y,
                      size_t n_rows, size_t n_cols, float eps);
void fm_op_softmax(const float *x, float *y, size_t n_rows, size_t n_cols);
void fm_op_rope(float *x, const fm_rope_shape *shape, float base, float linear_scale,
                const float *factors, float magnitude);
void fm_op_embed(int32_t type, const uint8_t *table, const uint32_t *ids, float *y, size_t n_tokens,
                 size_t n_cols);
void fm_op_add(const float *a, const float *b, float *y, size_t n_values);
void fm_op_add_row(const float *x, const float *row, float *y, size_t n_rows, size_t n_cols);
void fm_op_add_scaled(const float *a, const float *b, float *y, size_t n_values, float factor);
void fm_op_scale(const float *x, float *y, size_t n_values, float factor);
void fm_op_gated(const float *gate, const float *up, float *y, size_t n_values, int32_t act);
void fm_op_multiply(const float *a, const float *b, float *y, size_t n_values);
void fm_op_kv_write(int32_t type, uint8_t *rows, const float *x, size_t n_values);

/* Contract: fm_causal_conv in fused.h. */
void fm_op_causal_conv(const fm_conv *conv, int32_t act);

/* Contracts: fm_flash_attention and fused_attention_score in fused.h. */
void fm_op_flash_attention(const fm_attention *shape, const float *q, const uint8_t *k,
                           const uint8_t *v, float *out);
void fm_op_attention_score(const float *q, const float *k, float *scores, size_t n_q, size_t n_k,
                           size_t head_size, float scale, bool causal);

/* The inputs of fm_delta_net, as it names them. */
typedef struct {
  const float *qkv, *alpha, *beta, *dt_bias, *a, *gate, *norm_weight;
} fm_delta_operands;

/* Contract: fm_delta_net in fused.h. */
void fm_op_delta_net(const fm_delta *shape, const fm_delta_operands *with, float *state,
                     float *out);

/* Contract: fm_ssm_scan in fused.h. */
typedef struct {
  const float *x, *dt, *a, *d, *dt_bias;
  float *state, *y;
} fm_scan_operands;
void fm_op_ssm_scan(const fm_scan *shape, const fm_scan_operands *operands);

#endif
