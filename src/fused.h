/* fused-matmul: the public C ABI.
 *
 * Legend, here and everywhere:
 *   W  [n_rows][n_cols]    quantised, row-major, byte for byte as a GGUF file holds it
 *   X  [n_tokens][n_cols]  f32, row-major
 *   Y  [n_tokens][n_rows]  f32, row-major, Y = X * W^T
 *
 * Every function returns a status (or a value that cannot fail), never prints, never aborts, and
 * touches no memory before all arguments are checked. On any status but FM_OK the outputs are
 * unchanged. The functions are not reentrant: one operation at a time runs in a memory, since all
 * use its scratch, and only one thread, the memory's owner, calls them. The operation itself may
 * run on several threads (see Threads, below). Pointers are offsets into the linear memory and must
 * lie in its heap, where fm_alloc takes memory from. */
#ifndef FUSED_H
#define FUSED_H

#include <stddef.h>
#include <stdint.h>

#define FM_VERSION_MAJOR 0
#define FM_VERSION_MINOR 1
#define FM_VERSION_PATCH 0

#if defined(__GNUC__) || defined(__clang__)
#define FM_DEPRECATED(message) __attribute__((deprecated(message)))
#else
#define FM_DEPRECATED(message)
#endif

typedef enum {
  FM_OK = 0,
  FM_ERR_TYPE = 1,  /* an unknown type */
  FM_ERR_SHAPE = 2, /* a zero dimension, n_cols % block_values != 0, or too large for an address */
  FM_ERR_RANGE = 3, /* a pointer, or the end of its data, outside the heap */
  FM_ERR_ALIGN = 4, /* a pointer is not aligned: 4 for f32, fm_type_alignment for weights */
  FM_ERR_OVERLAP = 5,    /* an output overlaps an input */
  FM_ERR_ACTIVATION = 6, /* an unknown activation mode (fm_activation) or gate (fm_gate) */
  FM_ERR_ISA = 7         /* an instruction set or variant that this module does not hold */
} fm_status;

/* The weight types, one row each: X(kind, TYPE, name, number in GGUF, values a block holds). The
 * enum below, the facts of the types (formats/traits.c), the declarations of their kernels
 * (kernels/coded.h) and the table of kernels (kernels/table.c) all come from this list.
 *
 * kind  FLOAT32, FLOAT16: the values are floats themselves; CODED: blocks of codes with scales
 *       (formats/blocks.h); GRID: the same, with codes from a codebook (formats/codebooks.h) */
#define FM_TYPES(X)                                                                                \
  X(FLOAT32, F32, f32, 0, 1)                                                                       \
  X(FLOAT16, F16, f16, 1, 1)                                                                       \
  X(CODED, Q4_0, q4_0, 2, 32)                                                                      \
  X(CODED, Q4_1, q4_1, 3, 32)                                                                      \
  X(CODED, Q5_0, q5_0, 6, 32)                                                                      \
  X(CODED, Q5_1, q5_1, 7, 32)                                                                      \
  X(CODED, Q8_0, q8_0, 8, 32)                                                                      \
  X(CODED, Q2_K, q2_k, 10, 256)                                                                    \
  X(CODED, Q3_K, q3_k, 11, 256)                                                                    \
  X(CODED, Q4_K, q4_k, 12, 256)                                                                    \
  X(CODED, Q5_K, q5_k, 13, 256)                                                                    \
  X(CODED, Q6_K, q6_k, 14, 256)                                                                    \
  X(CODED, Q8_K, q8_k, 15, 256)                                                                    \
  X(GRID, IQ2_XXS, iq2_xxs, 16, 256)                                                               \
  X(GRID, IQ2_XS, iq2_xs, 17, 256)                                                                 \
  X(GRID, IQ3_XXS, iq3_xxs, 18, 256)                                                               \
  X(GRID, IQ1_S, iq1_s, 19, 256)                                                                   \
  X(CODED, IQ4_NL, iq4_nl, 20, 32)                                                                 \
  X(GRID, IQ3_S, iq3_s, 21, 256)                                                                   \
  X(GRID, IQ2_S, iq2_s, 22, 256)                                                                   \
  X(CODED, IQ4_XS, iq4_xs, 23, 256)                                                                \
  X(GRID, IQ1_M, iq1_m, 29, 256)                                                                   \
  X(FLOAT16, BF16, bf16, 30, 1)                                                                    \
  X(CODED, TQ1_0, tq1_0, 34, 256)                                                                  \
  X(CODED, TQ2_0, tq2_0, 35, 256)                                                                  \
  X(CODED, MXFP4, mxfp4, 39, 32)                                                                   \
  X(CODED, NVFP4, nvfp4, 40, 64)                                                                   \
  X(CODED, Q1_0, q1_0, 41, 128)                                                                    \
  X(CODED, Q2_0, q2_0, 42, 64)

/* FM_TYPE_F32 = 0, FM_TYPE_F16 = 1, .. FM_TYPE_Q2_0 = 42 */
typedef enum {
#define FM_TYPE_ID(kind, TYPE, name, number, block_values) FM_TYPE_##TYPE = number,
  FM_TYPES(FM_TYPE_ID)
#undef FM_TYPE_ID
} fm_type;

/* The precision that activations are converted to before they are multiplied with quantised
 * weights. F32, F16 and BF16 weights always get f32 activations. */
typedef enum {
  FM_ACT_F32 = 0,   /* stay f32 */
  FM_ACT_INT16 = 1, /* int16 per 256 columns, one f32 scale */
  FM_ACT_INT8 = 2   /* int8 per 256 columns, one f32 scale; per 32 columns where blocks of the
                       weights have fewer than 256 values. int16 serves it where that is no slower */
} fm_activation;

/* May be added to an fm_activation: the results of a token then have the bits that they have when
 * it is the only one. It is for a few tokens; many of them are faster without it. */
#define FM_ALONE 8

typedef enum {
  FM_ISA_SCALAR = 0,
  FM_ISA_SIMD128 = 1,
  FM_ISA_RELAXED = 2
} fm_isa_id;

/* The relaxed instruction that the int8 kernels of FM_ISA_RELAXED use; the other sets ignore it. */
typedef enum {
  FM_DOT_I16 = 0, /* i16x8.relaxed_dot_i8x16_i7x16_s: one instruction on x86 */
  FM_DOT_I32 = 1  /* i32x4.relaxed_dot_i8x16_i7x16_add_s: one instruction on Arm and AVX-VNNI */
} fm_dot;

/* Y = X * W^T. W stays quantised: its blocks are decoded in registers, or 8 rows at a time into L1.
 *
 * type        fm_type of w
 * w           [n_rows][n_cols / block_values] blocks; fm_type_alignment-aligned
 * x           [n_tokens][n_cols] f32; must not overlap y
 * y           [n_tokens][n_rows] f32; must overlap neither w nor x
 * activation  fm_activation, with FM_ALONE or without
 * Any n_tokens, n_rows >= 1. Reads nothing past the last block, writes nothing past the last row.
 * Returns FM_OK, FM_ERR_TYPE, FM_ERR_ACTIVATION, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or
 * FM_ERR_OVERLAP. */
int32_t fused_matmul(int32_t type, const void *w, const float *x, float *y, uint32_t n_tokens,
                     uint32_t n_rows, uint32_t n_cols, int32_t activation);

/* y[r][c] = the value of w[r][c], by the type's formula in f32 arithmetic: bit for bit what ggml
 * computes.
 *
 * w  [n_rows][n_cols / block_values] blocks     y  [n_rows][n_cols] f32; must not overlap w
 * Returns FM_OK, FM_ERR_TYPE, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP. */
int32_t fm_dequantize_rows(int32_t type, const void *w, float *y, uint32_t n_rows, uint32_t n_cols);

/* w[r] = x[r], quantised to blocks of a type.
 *
 * type  Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: the same bytes as every GGUF producer; Q4_K, Q5_K, Q6_K: a
 *       search for the least squared error
 * x     [n_rows][n_cols] f32; must not overlap w
 * w     [n_rows][n_cols / block_values] blocks; fm_type_alignment-aligned
 * NaN counts as 0, and so does a magnitude below 2^-40. Larger magnitudes than finite scales can
 * represent, and Inf, are clamped to the largest one: 65504 (the largest f16) for Q4_1 and Q5_1,
 * that times 8 for Q4_0, 16 for Q5_0, 63 for Q4_K and Q5_K, 127 for Q8_0, 127 * 31 for Q6_K. Scales
 * are therefore always finite.
 * Returns FM_OK, FM_ERR_TYPE (also for types without a quantiser), FM_ERR_SHAPE, FM_ERR_ALIGN,
 * FM_ERR_RANGE or FM_ERR_OVERLAP. */
int32_t fm_quantize_rows(int32_t type, const float *x, void *w, uint32_t n_rows, uint32_t n_cols);

/* Y = X * W^T for the flat 4-bit layout from before Q4_K; value = scale * (code - 8), in plain f32.
 *
 * w       [n_rows][n_cols / 256] blocks of 140 bytes: 12 are skipped; of the other 128, byte k
 *         holds the codes of values 2k (low nibble) and 2k + 1 (high nibble); any alignment
 * scales  [n_rows][n_cols / 256] f32, one a block
 * x       [n_tokens][n_cols] f32     y  [n_tokens][n_rows] f32; must overlap no input
 * Returns FM_OK, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP.
 * Deprecated: quantise to Q4_K and use fused_matmul. */
int32_t fused_dequant_matmul_q4k_legacy(const uint8_t *w, const float *scales, const float *x,
                                        float *y, uint32_t n_tokens, uint32_t n_rows,
                                        uint32_t n_cols)
    FM_DEPRECATED("use fused_matmul with FM_TYPE_Q4_K");

/* Facts of a type, from the GGUF specification; 0 where the type is unknown. */
uint32_t fm_type_block_values(int32_t type); /* values a block holds */
uint32_t fm_type_block_bytes(int32_t type);  /* bytes a block takes */
uint32_t fm_type_alignment(int32_t type);    /* bytes a weight pointer must be a multiple of */

/* bytes of heap, 64-byte aligned; NULL when bytes is 0 or the memory cannot grow. Contents are
 * undefined. */
void *fm_alloc(size_t bytes);

/* Gives back what fm_alloc returned; NULL is allowed. */
void fm_free(void *p);

/* FM_VERSION_MAJOR << 16 | FM_VERSION_MINOR << 8 | FM_VERSION_PATCH */
uint32_t fm_version(void);

/* The instruction set in use, an fm_isa_id: initially the best that the module holds. */
int32_t fm_isa(void);

/* Switches to another instruction set (and fm_dot) of this module. Returns FM_OK or FM_ERR_ISA. */
int32_t fm_select(int32_t isa, int32_t dot);

/* ---- The rest of a transformer layer. Tensors are f32, row-major, 4-byte aligned, in the heap, as
 * above. ---- */

/* One of several weights that share their activations: y = X * W^T as in fused_matmul. */
typedef struct {
  int32_t type; /* fm_type */
  uint32_t n_rows;
  const void *w; /* [n_rows][n_cols / block_values] blocks */
  float *y;      /* [n_tokens][n_rows] */
} fm_target;

typedef enum {
  FM_GATE_SILU = 0,
  FM_GATE_GELU = 1, /* the tanh approximation */
  FM_GATE_RELU = 2, /* max(x, 0) */
  /* The gate of gpt-oss: x / (1 + e^(-1.702 x)) with x = min(gate, 7). In place of up it takes
   * min(max(up, -7), 7) + 1. */
  FM_GATE_CLAMPED = 3,
  FM_GATE_SIGMOID = 4 /* 1 / (1 + e^-x); fm_gated only */
} fm_gate;

/* fused_matmul for n_targets weights; x is quantised once for every 32 of them. No y may overlap x,
 * a weight, the list or another y. Returns as fused_matmul; FM_ERR_SHAPE where n_targets is 0. */
int32_t fused_matmul_many(const fm_target *targets, uint32_t n_targets, const float *x,
                          uint32_t n_tokens, uint32_t n_cols, int32_t activation);

/* The same for rms_norm(x) * norm_weight, which is normalised and quantised in one pass and never
 * written to memory as f32. norm_weight [n_cols], or NULL for ones; eps >= 0, and with eps 0 a row
 * of zeros stays zeros. No y may overlap norm_weight. A row that holds NaN or Inf gives NaN. The
 * results are those of fm_rms_norm and fused_matmul. */
int32_t fused_rmsnorm_matmul(const fm_target *targets, uint32_t n_targets, const float *x,
                             const float *norm_weight, float eps, uint32_t n_tokens,
                             uint32_t n_cols, int32_t activation);

/* y = (act(gate) * up) * W^T; gate, up [n_tokens][n_cols], act an fm_gate. up NULL: act(gate) *
 * W^T. y must overlap no input. The results are those of fm_gated and fused_matmul. */
int32_t fused_swiglu_matmul(int32_t type, const void *w, const float *gate, const float *up,
                            float *y, uint32_t n_tokens, uint32_t n_rows, uint32_t n_cols,
                            int32_t act, int32_t activation);

/* A feed-forward block: h = rms_norm(x) * norm_weight;
 * y = (act(h * Wg^T) * (h * Wu^T)) * Wd^T (+ x where residual).
 * x, y [n_tokens][n_embd], y may be x; gate, up: n_ff rows of n_embd; down: n_embd rows of n_ff.
 * norm_weight NULL: no norm at all. workspace [2 * n_tokens][n_ff] f32 must overlap nothing; it
 * holds h * Wg^T and h * Wu^T afterwards. Returns as fused_matmul. */
typedef struct {
  int32_t gate_type, up_type, down_type;
  const void *gate, *up, *down;
} fm_ffn_weights;
int32_t fused_ffn(const fm_ffn_weights *weights, const float *x, const float *norm_weight,
                  float eps, float *y, float *workspace, uint32_t n_tokens, uint32_t n_embd,
                  uint32_t n_ff, int32_t act, int32_t residual, int32_t activation);

/* ---- Mixtures of experts: each token is computed by a few of many matrices. The rows of a batch
 * are grouped by expert: those of expert 0 come first, then those of expert 1, and so on. Two
 * lists describe the groups:
 *   rows  [n_pairs]    the token of each grouped row
 *   ends  [n_experts]  the row behind the last one of each expert: not decreasing, at last n_pairs
 * ---- */

#define FM_EXPERTS_MAX 1024

typedef enum {
  FM_SCORES_SOFTMAX = 0,        /* softmax of all logits of a token */
  FM_SCORES_SOFTMAX_CHOSEN = 1, /* softmax of the logits of the chosen experts */
  FM_SCORES_SIGMOID = 2         /* 1 / (1 + e^-logit) */
} fm_scores;

/* Chooses n_used experts for each token, and their weights. Chosen are the experts with the largest
 * score + bias (FM_SCORES_SOFTMAX_CHOSEN: logit + bias), of equal ones the first. The weight of an
 * expert is its score, without the bias; where normalize, divided by the sum of the token's weights
 * or by 2^-14, whichever is more; times scale.
 *
 * n_groups  a divisor of n_experts. Only experts of n_groups_used groups of neighbours are chosen
 *           from: those whose two largest values of score + bias have the largest sums
 * logits    [n_tokens][n_experts]    bias  [n_experts], or NULL for zeros
 * rows, weights  [n_tokens * n_used], grouped by expert, the tokens of an expert in their order
 * ends      [n_experts]
 * workspace [2 * n_tokens * n_used] words
 * n_experts 1..FM_EXPERTS_MAX, n_used 1..n_experts and at most as many as the groups have. Any
 * logits are allowed: an expert whose score + bias is NaN is chosen first. Where the score is NaN,
 * its weight is NaN, and where normalize, all weights of the token are; no other token changes.
 * Returns FM_OK, FM_ERR_TYPE (unknown scores), FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or
 * FM_ERR_OVERLAP (an output or the workspace overlaps anything). */
typedef struct {
  uint32_t n_tokens, n_experts, n_used, n_groups, n_groups_used;
  int32_t scores, normalize; /* fm_scores */
  float scale;
} fm_routing;
int32_t fm_route(const fm_routing *routing, const float *logits, const float *bias, uint32_t *rows,
                 uint32_t *ends, float *weights, uint32_t *workspace);

/* One of several matrices of all experts that share their activations. */
typedef struct {
  int32_t type;      /* fm_type */
  uint32_t n_rows;   /* of one expert */
  const void *w;     /* [n_experts][n_rows][n_cols / block_values] blocks */
  const float *bias; /* [n_experts][n_rows], or NULL for zeros */
  float *y;          /* [n_pairs][n_rows] */
} fm_expert_target;

/* y[i] = x[rows[i]] * W[e]^T + bias[e] for every grouped row i, e its expert: each expert's weights
 * are decoded once per token panel of its rows, and those of experts without rows are not read.
 *
 * rows  NULL: x has n_pairs rows, grouped already, and n_tokens is n_pairs
 * act   -1: x is multiplied as it is, and up is NULL; an fm_gate: act(x) * up is, as in
 *       fused_swiglu_matmul
 * x, up [n_tokens][n_cols]
 * No y may overlap an input, a list or another y. Returns as fused_matmul; FM_ERR_SHAPE also where
 * n_targets, n_pairs or n_experts is 0, or n_tokens is wrong; FM_ERR_RANGE also where a row or an
 * end is. */
int32_t fm_matmul_experts(const fm_expert_target *targets, uint32_t n_targets, const uint32_t *rows,
                          const uint32_t *ends, uint32_t n_pairs, uint32_t n_experts,
                          const float *x, const float *up, uint32_t n_tokens, uint32_t n_cols,
                          int32_t act, int32_t activation);

/* y[t] = the sum of weights[i] * x[i] over all i with rows[i] = t, in the order of i; zeros where
 * there is none. x [n_pairs][n_cols], y [n_tokens][n_cols]; y must overlap no input. FM_ERR_RANGE
 * also where a row is not below n_tokens. */
int32_t fm_mix_rows(const float *x, const uint32_t *rows, const float *weights, float *y,
                    uint32_t n_pairs, uint32_t n_tokens, uint32_t n_cols);

/* Attention scores, written out: scores[i][j] = softmax_j(scale * sum_c q[i][c] * k[j][c] + mask),
 * q [n_q][head_size], k [n_k][head_size], head_size 1..576, scores [n_q][n_k]. causal != 0: entries
 * with j > i + n_k - n_q are masked. Rows sum to 1, masked entries are exactly 0, and a row whose
 * entries are all masked is all 0. Scores of -Inf count as masked. A score of NaN or +Inf makes the
 * unmasked entries of its row NaN or 0, and at least one of them NaN. Masked keys change nothing,
 * whatever they hold.
 * Returns FM_OK, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP. */
int32_t fused_attention_score(const float *q, const float *k, float *scores, uint32_t n_q,
                              uint32_t n_k, uint32_t head_size, float scale, int32_t causal);

typedef enum {
  FM_KV_F32 = 0,
  FM_KV_F16 = 1,
  FM_KV_Q8_0 = 8
} fm_kv_type; /* numbered as in fm_type */

/* Grouped-query attention over a KV cache, in one pass with online softmax. The scores are never
 * stored; the working memory does not grow with the number of positions.
 *
 * q        [n_tokens][n_heads][head_size]    out  the same shape; must not overlap the others
 * k, v     [n_positions][n_kv_heads][head_size] of kv_type; Q8_0: head_size % 32 == 0
 * head_size 1..576
 * n_heads  a multiple of n_kv_heads; query head h reads KV head h / (n_heads / n_kv_heads)
 * first_position  position of q[0]; causal: token t sees positions j <= first_position + t
 * window   0: all of these positions; > 0 and causal: a token sees only the last `window` of them;
 *          > 0 and not causal: only those at most window / 2 (rounded down) from its own, on both
 *          sides
 * sinks    [n_heads] f32, or NULL. A sink is one more score of its head, behind scale and softcap,
 *          whose value is 0; a sink of NaN or +Inf makes the head's outputs NaN
 * softcap  > 0: scores become softcap * tanh(score / softcap) before the mask; 0: none
 * A token that sees no position gets zeros, and so does one whose scores are all -Inf, which counts
 * as masked. A NaN in the query or in a key that the token sees, or a score of +Inf, makes the
 * head's output NaN; NaN or Inf in a value that it sees makes that column NaN or Inf. Positions
 * that a token does not see change nothing, whatever they hold.
 * Returns FM_OK, FM_ERR_TYPE (of the cache), FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or
 * FM_ERR_OVERLAP. */
typedef struct {
  uint32_t n_tokens, n_heads, n_kv_heads, head_size, n_positions, first_position;
  int32_t kv_type, causal;
  uint32_t window;
  float scale, softcap;
  const float *sinks;
} fm_attention;
int32_t fm_flash_attention(const fm_attention *shape, const float *q, const void *k, const void *v,
                           float *out);

/* Writes rows of f32 into a KV cache: cache[position + t] = x[t], in rows of
 * n_cols = n_kv_heads * head_size values, converted to kv_type. F16 rounds to nearest, ties to
 * even; Q8_0 is quantised as by fm_quantize_rows, where NaN counts as 0. The cache holds
 * n_positions rows; FM_ERR_RANGE where position + n_tokens is more. */
int32_t fm_kv_write(int32_t kv_type, void *cache, const float *x, uint32_t n_tokens,
                    uint32_t n_cols, uint32_t position, uint32_t n_positions);

/* y = x / sqrt(mean(x^2) + eps) * weight; weight [n_cols] or NULL; y may be x. The sum is in f64,
 * so no square overflows. The factor is at most FLT_MAX, so zeros stay zeros with eps 0 too. This
 * function and the following ones return FM_OK, FM_ERR_TYPE (of a table or a cache), FM_ERR_SHAPE,
 * FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP. "y may be x" means that y starts at the same
 * address, or does not overlap x. */
int32_t fm_rms_norm(const float *x, const float *weight, float *y, uint32_t n_rows, uint32_t n_cols,
                    float eps);

/* y = (x - mean) / sqrt(variance + eps) * weight + bias; weight, bias [n_cols] or NULL; y may be
 * x. */
int32_t fm_layer_norm(const float *x, const float *weight, const float *bias, float *y,
                      uint32_t n_rows, uint32_t n_cols, float eps);

/* y = the softmax of each row of x; y may be x. -Inf entries become exactly 0, a row of only -Inf
 * becomes all 0, and a row with NaN or Inf all NaN. */
int32_t fm_softmax(const float *x, float *y, uint32_t n_rows, uint32_t n_cols);

typedef enum {
  FM_ROPE_ADJACENT = 0,
  FM_ROPE_HALVES = 1
} fm_rope_pairing; /* (2i, 2i+1) or (i, i + n_dims/2) */

/* Rotates x [n_tokens][n_heads][head_size] in place: of every head the first n_dims (even) values,
 * pair i at position p by the angle (p / linear_scale) * base^(-2i/n_dims) / factors[i], times
 * magnitude. factors [n_dims/2] (llama3) or NULL. The angle is computed in f64; a pair becomes NaN
 * where the angle is not below 2^32, or base is not positive and finite. Any magnitude is allowed.
 * FM_ERR_SHAPE where n_dims is odd, 0 or over head_size, or the pairing is unknown. */
int32_t fm_rope(float *x, uint32_t n_tokens, uint32_t n_heads, uint32_t head_size, uint32_t n_dims,
                uint32_t first_position, float base, float linear_scale, const float *factors,
                float magnitude, int32_t pairing);

/* y[t] = row ids[t] of a quantised table of n_rows rows, dequantised. FM_ERR_RANGE where an id is
 * not below n_rows. */
int32_t fm_embed(int32_t type, const void *table, const uint32_t *ids, float *y, uint32_t n_tokens,
                 uint32_t n_rows, uint32_t n_cols);

/* y = a + b over n values; y may be a or b. */
int32_t fm_add(const float *a, const float *b, float *y, uint32_t n);

/* y[r] = x[r] + row for each of n_rows rows of n_cols values; y may be x, and must not overlap row.
 */
int32_t fm_add_row(const float *x, const float *row, float *y, uint32_t n_rows, uint32_t n_cols);

/* y = a + scale * b over n values, the product rounded before it is added; y may be a or b. Any
 * scale is allowed. */
int32_t fm_add_scaled(const float *a, const float *b, float *y, uint32_t n, float scale);

/* y = scale * x over n values; y may be x. Any scale is allowed. */
int32_t fm_scale(const float *x, float *y, uint32_t n, float scale);

/* y = act(gate) * up over n values, act an fm_gate (else FM_ERR_ACTIVATION); y may be gate or up.
 * For FM_GATE_CLAMPED, up is changed too. act(-Inf) is -0, and 0 for FM_GATE_RELU and
 * FM_GATE_SIGMOID; below -88.72 silu is -0 too, where its value is above -2.7e-37, and sigmoid 0,
 * where it is below 3e-39. */
int32_t fm_gated(const float *gate, const float *up, float *y, uint32_t n, int32_t act);

/* y = a * b over n values; y may be a or b. */
int32_t fm_multiply(const float *a, const float *b, float *y, uint32_t n);

#define FM_CONV_LONGEST 16 /* tokens that a causal convolution covers at most */
#define FM_CONV_PLAIN (-1) /* no activation function */

/* A causal convolution of each channel over the tokens, x and y [n_tokens][n_channels]:
 *   y[t][c] = act(bias[c] + sum_j weight[c][j] * x[t - length + 1 + j][c]), j = 0 .. length - 1.
 * weight [n_channels][length]; bias [n_channels] or NULL. state [length - 1][n_channels]: the
 * tokens before x[0], oldest first; replaced by the last ones of x. act: FM_CONV_PLAIN or an
 * fm_gate up to FM_GATE_RELU, else FM_ERR_ACTIVATION. y may be x. FM_ERR_SHAPE where length is not
 * 2 to FM_CONV_LONGEST. */
int32_t fm_causal_conv(const float *x, const float *weight, const float *bias, float *state,
                       float *y, uint32_t n_tokens, uint32_t n_channels, uint32_t length,
                       int32_t act);

#define FM_DELTA_SIZE_MAX 256 /* values of a key or value of the delta net at most */

/* The gated delta net: every value head has a state S [key_size][value_size], which a token reads
 * and writes:
 *   S = decay * S;  r = beta * (v - S^T k);  S = S + k r^T;  o = S^T q
 *   decay = e^(a * softplus(alpha + dt_bias)),  beta = sigmoid(beta)
 *   q and k are divided by sqrt(sum of squares + eps), and q by sqrt(key_size) too
 *
 * qkv      [n_tokens][2 * n_key_heads * key_size + n_value_heads * value_size]: the queries of all
 *          key heads, their keys, then the values
 * alpha    [n_tokens][n_value_heads], and so beta
 * dt_bias  [n_value_heads], and so a
 * gate     [n_tokens][n_value_heads][value_size], or NULL: out = o. With a gate
 *          out = rms_norm(o) * norm_weight * silu(gate), head by head, with the same eps
 * norm_weight  [value_size], or NULL for ones
 * state    [n_value_heads][key_size][value_size], read and written; it overlaps nothing
 * out      [n_tokens][n_value_heads][value_size]; it overlaps nothing
 * key_size, value_size  multiples of 8, up to FM_DELTA_SIZE_MAX
 * n_value_heads  a multiple of n_key_heads; value head h reads key head h % n_key_heads
 *
 * Tokens go through the state in order. One call for many tokens computes the same as a call for
 * each, in other sums: more than 8 are taken together, up to 32 at once. Later tokens have no part
 * in an output, whatever they hold; NaN in a token stays in the state of its heads. Returns FM_OK,
 * FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP. */
typedef struct {
  uint32_t n_tokens, n_key_heads, n_value_heads, key_size, value_size;
  float eps;
} fm_delta;
int32_t fm_delta_net(const fm_delta *shape, const float *qkv, const float *alpha, const float *beta,
                     const float *dt_bias, const float *a, const float *gate,
                     const float *norm_weight, float *state, float *out);

/* The selective scan of Mamba-2. Every head has a state h [state_size][head_size], which n_tokens
 * tokens go through one after another:
 *
 *   step = softplus(dt + dt_bias),  softplus(v) = ln(1 + e^v)
 *   h[n][p] = e^(step * a) * h[n][p] + B[n] * step * x[p]
 *   y[p] = sum_n C[n] * h[n][p] + d * x[p]
 *
 * x        [n_tokens][n_heads * head_size + 2 * n_groups * state_size]: a token has x of every
 *          head, then B of every group, then C of every group; at most 2^32 - 1 values
 * n_heads  a multiple of n_groups; head i reads B and C of group i / (n_heads / n_groups)
 * dt       [n_tokens][n_heads]
 * a, d, dt_bias  [n_heads]; a is below 0 in models
 * state    [n_heads][state_size][head_size], read and written
 * y        [n_tokens][n_heads][head_size]
 * y and state must overlap neither each other nor any other argument. Of several tokens, what has
 * decayed to less than 2^-100 of itself may count as 0. Tokens are computed 16 at a time, the rest
 * one by one. NaN and Inf reach the results of their own token and of later ones only. Returns
 * FM_OK, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP. */
typedef struct {
  uint32_t n_tokens, n_heads, n_groups, head_size, state_size;
} fm_scan;
int32_t fm_ssm_scan(const fm_scan *shape, const float *x, const float *dt, const float *a,
                    const float *d, const float *dt_bias, float *state, float *y);

/* The kernels that serve (type, activation) now: their fm_isa_id | the fm_activation they get << 8;
 * -1 where the type or the activation is unknown. */
int32_t fm_served_by(int32_t type, int32_t activation);

/* ---- Threads: only in the modules with shared memory (fused-*-mt*.wasm). A thread is another
 * instance of the module on the same memory, in a worker. ----
 *
 * To start n threads, the owner calls fm_thread_stack(i) for i = 1 .. n - 1. Worker i sets its
 * stack pointer to the result (_emscripten_stack_restore) and calls fm_thread_run(i), which returns
 * only after fm_threads_stop. Then the owner calls fm_threads_use(n, ..).
 * Results are the same bits for any number of threads. */

/* Allocates a thread's stack and its scratch. thread: 1..63. Returns the end of the stack, where a
 * stack starts, or NULL where there is no memory. */
void *fm_thread_stack(uint32_t thread);

/* Takes part in the owner's operations until fm_threads_stop; sleeps when there is nothing to
 * do. */
void fm_thread_run(uint32_t thread);

/* Reports that fm_thread_run trapped. The operation that it took part in then traps in the owner,
 * and later ones run on one thread. */
void fm_thread_failed(void);

/* Sets the number of running threads that operations use from now on, 1..64, the owner included.
 * fork_work: the least work (in multiply-adds of an int8 product) that is split between threads;
 * UINT32_MAX: the default. may_sleep: 0 where the owner is a browser's main thread, which must not
 * wait in a futex. Returns FM_OK or FM_ERR_SHAPE. */
int32_t fm_threads_use(uint32_t n_threads, uint32_t fork_work, int32_t may_sleep);

/* Makes every fm_thread_run return. Threads cannot be started again. */
void fm_threads_stop(void);

#endif
