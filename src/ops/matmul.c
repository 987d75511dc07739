/* Y = X * W^T: blocking over tokens and columns, and the choice between the three shapes of kernel. X is made (normed,
 * gated) and quantised once per token block and panel, for all targets that get the same activations.
 *
 *   activation f32     each weight row's panel is decoded once, 8 KB, and multiplied with all tokens of the block
 *   up to 2 tokens     matrix-vector: blocks decoded in registers, once per token
 *   more tokens        matrix-matrix: 8 rows decoded into a strip, all tokens of the block reuse it
 *
 * Sums over panels go through y, so that scratch is bounded whatever n_cols is. A row's result depends neither on the
 * rows beside it nor on how rows are split. */
#include "fused.h"
#include "ops/ops.h"

#define TOKEN_BLOCK 128 /* tokens whose quantised activations are held at once: 320 KB as int8, within L2 */
#define PANEL_BLOCKS (FM_PANEL_COLS / FM_ACT_COLS)
#define SCRATCH_BLOCKS (TOKEN_BLOCK * PANEL_BLOCKS)
#define GEMV_MAX_TOKENS 2 /* from 3 tokens on, decoding a strip once is cheaper than decoding every row per token */

/* One matmul at a time; see fused.h. acts holds the activations of a token block and panel: of matrix-matrix kernels as tiles
 * of 4 tokens, of the others token by token. */
static union {
  fm_act_i8 i8[SCRATCH_BLOCKS];
  fm_act_i16 i16[SCRATCH_BLOCKS];
  fm_act_tile_i8 tile_i8[SCRATCH_BLOCKS / FM_TILE_TOKENS];
  fm_act_tile_i16 tile_i16[SCRATCH_BLOCKS / FM_TILE_TOKENS];
  _Alignas(64) float f32[SCRATCH_BLOCKS * sizeof(fm_act_i16) / sizeof(float)];
} acts;
static _Alignas(64) float decoded[FM_PANEL_COLS]; /* of a weight row, or activations about to be quantised */
static fm_strip strip;
static union {
  fm_act_i8 i8[FM_TILE_TOKENS * PANEL_BLOCKS];
  fm_act_i16 i16[FM_TILE_TOKENS * PANEL_BLOCKS];
} unpacked; /* the tokens of a tile */

#define SCRATCH_FLOATS (sizeof acts.f32 / sizeof acts.f32[0])
#define F32_TOKEN_BLOCK (SCRATCH_FLOATS / FM_PANEL_COLS) /* where f32 activations must be made: 80 */
static_assert(F32_TOKEN_BLOCK % 4 == 0 && F32_TOKEN_BLOCK <= TOKEN_BLOCK, "whole tiles of 4 tokens, within factors[]");

/* What the targets of a call share. */
typedef struct {
  const fm_target *targets;
  size_t n_targets;
  const fm_source *source;
  size_t n_tokens, n_cols;
  int32_t activation; /* asked for */
  bool accumulate;
} call;

/* One target's part of a token block and panel of columns. */
typedef struct {
  const fm_traits *traits;
  const fm_kernels *kernels;
  fm_service service;
  const uint8_t *w; /* first row, first block of the panel */
  size_t row_bytes; /* of the whole matrix */
  const float *x;   /* f32 activations: first token, first column of the panel; the others are in acts */
  size_t x_stride;
  float *y; /* first token */
  size_t n_tokens, n_rows, panel_cols;
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
    dot((const float *)w, p->x, p->y + r, p->panel_cols, p->n_tokens, p->x_stride, p->n_rows, p->accumulate);
    return;
  }
  for (size_t c = 0; c < p->panel_cols; c += FM_PANEL_COLS) {
    size_t n = min_size(p->panel_cols - c, FM_PANEL_COLS);
    fm_op_dequantize(f, p->kernels, w + c / f->block_values * f->block_bytes, decoded, n);
    dot(decoded, p->x + c, p->y + r, n, p->n_tokens, p->x_stride, p->n_rows, p->accumulate || c > 0);
  }
}

/* Dealt activations go behind what acts holds already: x itself, where they were made. */
static const float *deal(const panel *p) {
  size_t taken = p->x == acts.f32 ? p->panel_cols : 0;
  if (p->service.isa < FM_ISA_SIMD128 || p->n_tokens > 1 || !p->kernels->deal) return NULL;
  if (taken + p->panel_cols > SCRATCH_FLOATS) return NULL;
  return p->kernels->deal(p->x, acts.f32 + taken, p->panel_cols) ? acts.f32 + taken : NULL;
}

static void matmul_f32(const panel *p) {
  const float *dealt = deal(p);
  for (size_t r = 0; r < p->n_rows; r++) {
    float sum;
    if (dealt && p->kernels->row_dot(p->w + r * p->row_bytes, dealt, p->panel_cols, &sum)) {
      p->y[r] = p->accumulate ? p->y[r] + sum : sum;
    } else {
      row_f32(p, r);
    }
  }
}

static size_t act_blocks(size_t panel_cols) { return (panel_cols + FM_ACT_COLS - 1) / FM_ACT_COLS; }

static void matmul_scalar(const panel *p) {
  const fm_traits *f = p->traits;
  if (p->service.activation == FM_ACT_INT8) {
    fm_rows_i8__scalar(p->kernels->decode, p->w, p->row_bytes, f->block_values, f->block_bytes, acts.i8, p->y,
                       p->n_rows, p->panel_cols, p->n_tokens, p->n_rows, p->accumulate);
  } else {
    fm_rows_i16__scalar(p->kernels->decode, p->w, p->row_bytes, f->block_values, f->block_bytes, acts.i16, p->y,
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
  const fm_shared_kernels *shared = fm_shared_kernels_of(p->service.isa);
  if (p->n_tokens <= GEMV_MAX_TOKENS) {
    for (size_t t = 0; t < p->n_tokens; t++) {
      k->gemv_i16(p->w, p->row_bytes, acts.i16 + t * act_blocks(p->panel_cols), p->y + t * p->n_rows, p->n_rows,
                  p->panel_cols, p->accumulate);
    }
    return;
  }
  for (size_t r = 0; r < p->n_rows; r += FM_STRIP_ROWS) {
    const uint8_t *row[FM_STRIP_ROWS];
    size_t n = strip_rows(p, r, row);
    shared->strip_i16(k, row, p->panel_cols, &strip);
    shared->gemm_i16(k->layout, &strip, acts.tile_i16, p->y + r, act_blocks(p->panel_cols), p->n_tokens, p->n_rows, n, p->accumulate);
  }
}

static void matmul_i8(const panel *p) {
  const fm_relaxed_kernels *k = p->kernels->relaxed;
  const fm_simd128_kernels *simd128 = p->kernels->simd128;
  const fm_shared_kernels *shared = fm_shared_kernels_of(p->service.isa);
  int32_t dot = simd128->layout->wide ? FM_DOT_I32 : fm_current.dot;
  if (p->n_tokens <= GEMV_MAX_TOKENS) {
    for (size_t t = 0; t < p->n_tokens; t++) {
      k->gemv_i8[dot](p->w, p->row_bytes, acts.i8 + t * act_blocks(p->panel_cols), p->y + t * p->n_rows, p->n_rows,
                      p->panel_cols, p->accumulate);
    }
    return;
  }
  for (size_t r = 0; r < p->n_rows; r += FM_STRIP_ROWS) {
    const uint8_t *row[FM_STRIP_ROWS];
    size_t n = strip_rows(p, r, row);
    shared->strip_i8(simd128, row, p->panel_cols, dot == FM_DOT_I32, &strip);
    k->gemm_i8[dot](simd128->layout, &strip, acts.tile_i8, p->y + r, act_blocks(p->panel_cols), p->n_tokens, p->n_rows,
                    n, p->accumulate);
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

/* Tokens first_token.. and columns first_col.. of the activations. */
typedef struct {
  size_t first_token, n_tokens, first_col, n_cols;
} tile;

/* Where quantised activations go: token by token, or through `unpacked` into tiles. */
typedef struct {
  fm_act_i8 *i8;
  fm_act_i16 *i16;
} act_row;

static void quantize(const float *x, int32_t served, act_row to, size_t first_block, size_t n_cols) {
  const fm_shared_kernels *shared = fm_shared_kernels_of(fm_current.isa);
  if (served == FM_ACT_INT8) {
    shared->quantize_i8(x, to.i8 + first_block, n_cols);
  } else {
    shared->quantize_i16(x, to.i16 + first_block, n_cols);
  }
}

/* One token: to.. = its activations, quantised. */
static void quantize_token(const call *c, int32_t served, const tile *at, size_t t, float factor, act_row to) {
  if (c->source->kind == FM_SOURCE_PLAIN) {
    quantize(c->source->x + t * c->n_cols + at->first_col, served, to, 0, at->n_cols);
    return;
  }
  for (size_t col = 0; col < at->n_cols; col += FM_PANEL_COLS) {
    size_t n = min_size(at->n_cols - col, FM_PANEL_COLS);
    fm_source_row(c->source, t, c->n_cols, at->first_col + col, n, factor, decoded);
    quantize(decoded, served, to, col / FM_ACT_COLS, n);
  }
}

/* Tile by tile; whole tiles, so that where a tile begins does not matter to its tokens. */
static void make_tiles(const call *c, int32_t served, const tile *at, const float *factors) {
  const fm_shared_kernels *shared = fm_shared_kernels_of(fm_current.isa);
  size_t n_blocks = act_blocks(at->n_cols);
  for (size_t i = 0; i < at->n_tokens; i += FM_TILE_TOKENS) {
    size_t n = min_size(at->n_tokens - i, FM_TILE_TOKENS), first = i / FM_TILE_TOKENS * n_blocks;
    for (size_t k = 0; k < n; k++) {
      const act_row to = {unpacked.i8 + k * n_blocks, unpacked.i16 + k * n_blocks};
      quantize_token(c, served, at, at->first_token + i + k, factors[i + k], to);
    }
    if (served == FM_ACT_INT8) {
      shared->pack_i8(unpacked.i8, n, n_blocks, acts.tile_i8 + first);
    } else {
      shared->pack_i16(unpacked.i16, n, n_blocks, acts.tile_i16 + first);
    }
  }
}

/* Whether a product with so many tokens goes through strips, and its activations into tiles. */
static bool uses_strips(size_t n_tokens) { return fm_current.isa >= FM_ISA_SIMD128 && n_tokens > GEMV_MAX_TOKENS; }

/* Fills acts; f32 activations that are x itself are left where they are. */
static void make_activations(const call *c, int32_t served, const tile *at, const float *factors) {
  bool plain = c->source->kind == FM_SOURCE_PLAIN;
  if (plain && served == FM_ACT_F32) return;
  if (served != FM_ACT_F32 && uses_strips(at->n_tokens)) {
    make_tiles(c, served, at, factors);
    return;
  }
  for (size_t i = 0; i < at->n_tokens; i++) {
    size_t t = at->first_token + i, first_block = i * act_blocks(at->n_cols);
    if (served == FM_ACT_F32) {
      fm_source_row(c->source, t, c->n_cols, at->first_col, at->n_cols, factors[i], acts.f32 + i * at->n_cols);
    } else {
      quantize_token(c, served, at, t, factors[i], (act_row){acts.i8 + first_block, acts.i16 + first_block});
    }
  }
}

static void matmul_target(const call *c, const fm_target *target, int32_t served, const tile *at) {
  const fm_kernels *kernels = fm_kernels_of(target->type);
  fm_service service = fm_service_of(kernels, c->activation);
  if (service.activation != served) return;
  const fm_traits *traits = fm_traits_of(target->type);
  bool in_place = c->source->kind == FM_SOURCE_PLAIN;
  panel p = {
      .traits = traits,
      .kernels = kernels,
      .service = service,
      .w = (const uint8_t *)target->w + at->first_col / traits->block_values * traits->block_bytes,
      .row_bytes = c->n_cols / traits->block_values * traits->block_bytes,
      .x = in_place ? c->source->x + at->first_token * c->n_cols + at->first_col : acts.f32,
      .x_stride = in_place ? c->n_cols : at->n_cols,
      .y = target->y + at->first_token * target->n_rows,
      .n_tokens = at->n_tokens,
      .n_rows = target->n_rows,
      .panel_cols = at->n_cols,
      .accumulate = c->accumulate || at->first_col > 0,
  };
  matmul_panel(&p);
}

/* A matrix-vector product has no strip and no tokens to fit into a cache: its panel is as long as the scratch allows, so
 * that rows are read from end to end. */
static size_t panel_limit(const call *c, int32_t served) {
  if (served == FM_ACT_F32) {
    if (c->n_tokens > 1) return FM_PANEL_COLS;
    return c->source->kind == FM_SOURCE_PLAIN ? c->n_cols : SCRATCH_FLOATS;
  }
  return c->n_tokens <= GEMV_MAX_TOKENS ? FM_ACT_COLS * (SCRATCH_BLOCKS / c->n_tokens) : FM_PANEL_COLS;
}

/* All targets whose kernels get one kind of activations. */
static void matmul_served(const call *c, int32_t served) {
  float factors[TOKEN_BLOCK] = {0};
  bool made_f32 = served == FM_ACT_F32 && c->source->kind != FM_SOURCE_PLAIN;
  size_t max_tokens = made_f32 ? F32_TOKEN_BLOCK : TOKEN_BLOCK, max_cols = panel_limit(c, served);
  for (size_t t = 0; t < c->n_tokens; t += max_tokens) {
    tile at = {.first_token = t, .n_tokens = min_size(c->n_tokens - t, max_tokens)};
    fm_source_factors(c->source, t, at.n_tokens, c->n_cols, factors);
    for (size_t col = 0; col < c->n_cols; col += max_cols) {
      at.first_col = col;
      at.n_cols = min_size(c->n_cols - col, max_cols);
      make_activations(c, served, &at, factors);
      for (size_t i = 0; i < c->n_targets; i++) matmul_target(c, c->targets + i, served, &at);
    }
  }
}

void fm_op_matmul(const fm_target *targets, size_t n_targets, const fm_source *source, size_t n_tokens, size_t n_cols,
                  int32_t activation, bool accumulate) {
  const call c = {targets, n_targets, source, n_tokens, n_cols, activation, accumulate};
  bool needed[FM_ACT_INT8 + 1] = {false};
  for (size_t i = 0; i < n_targets; i++) {
    needed[fm_service_of(fm_kernels_of(targets[i].type), activation).activation] = true;
  }
  for (int32_t served = FM_ACT_F32; served <= FM_ACT_INT8; served++) {
    if (needed[served]) matmul_served(&c, served);
  }
}
