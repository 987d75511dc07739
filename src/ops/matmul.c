/* Y = X * W^T: blocking over tokens and columns, and the choice between the three shapes of kernel.
 *
 *   activation f32     each weight row's panel is decoded once, 8 KB, and multiplied with all tokens of the block
 *   up to 2 tokens     matrix-vector: blocks decoded in registers, once per token
 *   more tokens        matrix-matrix: 8 rows decoded into a strip, all tokens of the block reuse it
 *
 * Sums over panels go through y, so that scratch is bounded whatever n_cols is. A row's result depends neither on the rows
 * beside it nor on how rows are split. */
#include "fused.h"
#include "ops/ops.h"

#define TOKEN_BLOCK 128 /* tokens whose quantised activations are held at once: 320 KB as int8, within L2 */
#define PANEL_BLOCKS (FM_PANEL_COLS / FM_ACT_COLS)
#define SCRATCH_BLOCKS (TOKEN_BLOCK * PANEL_BLOCKS)
#define GEMV_MAX_TOKENS 2 /* from 3 tokens on, decoding a strip once is cheaper than decoding every row per token */

/* One matmul at a time; see fused.h. */
static union {
  fm_act_i8 i8[SCRATCH_BLOCKS];
  fm_act_i16 i16[SCRATCH_BLOCKS];
  _Alignas(64) float row[FM_PANEL_COLS];
} scratch;
static fm_strip strip;

typedef struct {
  const fm_traits *traits;
  const fm_kernels *kernels;
  fm_service service;
  const uint8_t *w; /* first row, first block of the panel */
  size_t row_bytes; /* of the whole matrix */
  const float *x;   /* first token, first column of the panel */
  float *y;         /* first token */
  size_t n_tokens, n_rows;
  size_t n_cols;     /* of the whole matrix: the stride of x */
  size_t panel_cols; /* of this panel */
  bool accumulate;
} panel;

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

fm_service fm_service_of(const fm_kernels *kernels, int32_t activation) {
  int32_t isa = fm_current.isa;
  if (!kernels->decode || activation == FM_ACT_F32) {
    return (fm_service){isa > FM_ISA_SIMD128 ? FM_ISA_SIMD128 : isa, FM_ACT_F32};
  }
  if (activation == FM_ACT_INT8 && isa >= FM_ISA_RELAXED && fm_relaxed_is_exact(kernels)) {
    return (fm_service){FM_ISA_RELAXED, FM_ACT_INT8};
  }
  if (isa >= FM_ISA_SIMD128 && kernels->simd128) return (fm_service){FM_ISA_SIMD128, FM_ACT_INT16};
  return (fm_service){FM_ISA_SCALAR, activation};
}

/* One row, decoded piece by piece, with all tokens. */
static void row_f32(const panel *p, size_t r) {
  const fm_traits *f = p->traits;
  fm_dot_f32_fn *dot = fm_shared_kernels_of(p->service.isa)->dot_f32;
  const uint8_t *w = p->w + r * p->row_bytes;
  if (f->type == FM_TYPE_F32) {
    dot((const float *)w, p->x, p->y + r, p->panel_cols, p->n_tokens, p->n_cols, p->n_rows, p->accumulate);
    return;
  }
  for (size_t c = 0; c < p->panel_cols; c += FM_PANEL_COLS) {
    size_t n = min_size(p->panel_cols - c, FM_PANEL_COLS);
    fm_op_dequantize(f, p->kernels, w + c / f->block_values * f->block_bytes, scratch.row, n);
    dot(scratch.row, p->x + c, p->y + r, n, p->n_tokens, p->n_cols, p->n_rows, p->accumulate || c > 0);
  }
}

static void matmul_f32(const panel *p) {
  fm_row_dot_fn *row_dot = p->service.isa >= FM_ISA_SIMD128 && p->n_tokens == 1 ? p->kernels->row_dot : NULL;
  for (size_t r = 0; r < p->n_rows; r++) {
    float sum;
    if (row_dot && row_dot(p->w + r * p->row_bytes, p->x, p->panel_cols, &sum)) {
      p->y[r] = p->accumulate ? p->y[r] + sum : sum;
    } else {
      row_f32(p, r);
    }
  }
}

static size_t act_blocks(const panel *p) { return (p->panel_cols + FM_ACT_COLS - 1) / FM_ACT_COLS; }

static void quantize_i8(const panel *p) {
  fm_quantize_i8_fn *quantize = fm_shared_kernels_of(p->service.isa)->quantize_i8;
  for (size_t t = 0; t < p->n_tokens; t++) {
    quantize(p->x + t * p->n_cols, scratch.i8 + t * act_blocks(p), p->panel_cols);
  }
}

static void quantize_i16(const panel *p) {
  fm_quantize_i16_fn *quantize = fm_shared_kernels_of(p->service.isa)->quantize_i16;
  for (size_t t = 0; t < p->n_tokens; t++) {
    quantize(p->x + t * p->n_cols, scratch.i16 + t * act_blocks(p), p->panel_cols);
  }
}

static void matmul_scalar(const panel *p) {
  const fm_traits *f = p->traits;
  if (p->service.activation == FM_ACT_INT8) {
    quantize_i8(p);
    fm_rows_i8__scalar(p->kernels->decode, p->w, p->row_bytes, f->block_values, f->block_bytes, scratch.i8, p->y,
                       p->n_rows, p->panel_cols, p->n_tokens, p->n_rows, p->accumulate);
  } else {
    quantize_i16(p);
    fm_rows_i16__scalar(p->kernels->decode, p->w, p->row_bytes, f->block_values, f->block_bytes, scratch.i16, p->y,
                        p->n_rows, p->panel_cols, p->n_tokens, p->n_rows, p->accumulate);
  }
}

/* The rows of one strip; past the last row the last one stands again, and its result is not stored. */
static size_t strip_rows(const panel *p, size_t r, const uint8_t *row[FM_STRIP_ROWS]) {
  size_t n = min_size(p->n_rows - r, FM_STRIP_ROWS);
  for (size_t i = 0; i < FM_STRIP_ROWS; i++) row[i] = p->w + (r + min_size(i, n - 1)) * p->row_bytes;
  return n;
}

static void matmul_i16(const panel *p) {
  const fm_simd128_kernels *k = p->kernels->simd128;
  quantize_i16(p);
  if (p->n_tokens <= GEMV_MAX_TOKENS) {
    for (size_t t = 0; t < p->n_tokens; t++) {
      k->gemv_i16(p->w, p->row_bytes, scratch.i16 + t * act_blocks(p), p->y + t * p->n_rows, p->n_rows, p->panel_cols,
                  p->accumulate);
    }
    return;
  }
  for (size_t r = 0; r < p->n_rows; r += FM_STRIP_ROWS) {
    const uint8_t *row[FM_STRIP_ROWS];
    size_t n = strip_rows(p, r, row);
    fm_shared_kernels_of(p->service.isa)->strip_i16(k, row, p->panel_cols, &strip);
    k->gemm_i16(&strip, scratch.i16, p->y + r, act_blocks(p), p->n_tokens, p->n_rows, n, p->accumulate);
  }
}

static void matmul_i8(const panel *p) {
  const fm_relaxed_kernels *k = p->kernels->relaxed;
  int32_t dot = p->kernels->simd128->layout->wide ? FM_DOT_I32 : fm_current.dot;
  quantize_i8(p);
  if (p->n_tokens <= GEMV_MAX_TOKENS) {
    for (size_t t = 0; t < p->n_tokens; t++) {
      k->gemv_i8[dot](p->w, p->row_bytes, scratch.i8 + t * act_blocks(p), p->y + t * p->n_rows, p->n_rows,
                      p->panel_cols, p->accumulate);
    }
    return;
  }
  for (size_t r = 0; r < p->n_rows; r += FM_STRIP_ROWS) {
    const uint8_t *row[FM_STRIP_ROWS];
    size_t n = strip_rows(p, r, row);
    fm_shared_kernels_of(p->service.isa)->strip_i8(p->kernels->simd128, row, p->panel_cols, &strip);
    k->gemm_i8[dot](&strip, scratch.i8, p->y + r, act_blocks(p), p->n_tokens, p->n_rows, n, p->accumulate);
  }
}

static void matmul_panel(const panel *p) {
  if (p->service.activation == FM_ACT_F32) {
    matmul_f32(p);
  } else if (p->service.isa == FM_ISA_SCALAR) {
    matmul_scalar(p);
  } else if (p->service.activation == FM_ACT_INT8) {
    matmul_i8(p);
  } else {
    matmul_i16(p);
  }
}

void fm_op_matmul(const fm_traits *traits, const fm_kernels *kernels, const uint8_t *w, const float *x, float *y,
                  size_t n_tokens, size_t n_rows, size_t n_cols, int32_t activation) {
  panel p = {.traits = traits, .kernels = kernels, .service = fm_service_of(kernels, activation), .n_rows = n_rows};
  p.n_cols = n_cols;
  p.row_bytes = n_cols / traits->block_values * traits->block_bytes;
  /* A matrix-vector product has no strip and no tokens to fit into a cache: its panel is as long as the scratch allows, so
   * that rows are read from end to end. */
  size_t max_cols = FM_PANEL_COLS;
  if (p.service.activation == FM_ACT_F32) {
    if (n_tokens == 1) max_cols = n_cols;
  } else if (n_tokens <= GEMV_MAX_TOKENS) {
    max_cols = FM_ACT_COLS * (SCRATCH_BLOCKS / n_tokens);
  }
  for (size_t t = 0; t < n_tokens; t += TOKEN_BLOCK) {
    p.n_tokens = min_size(n_tokens - t, TOKEN_BLOCK);
    p.y = y + t * n_rows;
    for (size_t c = 0; c < n_cols; c += max_cols) {
      p.panel_cols = min_size(n_cols - c, max_cols);
      p.w = w + c / traits->block_values * traits->block_bytes;
      p.x = x + t * n_cols + c;
      p.accumulate = c > 0;
      matmul_panel(&p);
    }
  }
}
