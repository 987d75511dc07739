/* Y = X * W^T: blocking over tokens and columns, and the choice between the three shapes of kernel. X is made (normed,
 * gated) and quantised once per token block and panel, for all targets that get the same activations.
 *
 *   activation f32     each weight row's panel is decoded once, 8 KB, and multiplied with all tokens of the block
 *   up to 2 tokens     matrix-vector: blocks decoded in registers, once per token
 *   more tokens        matrix-matrix: 8 rows decoded into a strip, all tokens of the block reuse it
 *
 * Sums over panels go through y, so that scratch is bounded whatever n_cols is. A row's result depends neither on the
 * rows beside it nor on how rows are split, so threads share them: first the making of activations, then the rows (and tokens, where
 * rows are few) of each target. */
#include "fused.h"
#include "ops/ops.h"
#include "ops/scratch.h"

#define TOKEN_BLOCK 128 /* tokens whose quantised activations are held at once: 320 KB as int8, within L2 */
#define PANEL_BLOCKS (FM_PANEL_COLS / FM_ACT_COLS)
#define SCRATCH_BLOCKS (TOKEN_BLOCK * PANEL_BLOCKS)
#define TOUCH_MIN_TOKENS 16 /* for few tokens, asking takes as long as waiting */
#define GEMV_MAX_TOKENS 2   /* from 3 tokens on, decoding a strip once is cheaper than decoding every row per token */

/* Threads split tokens in groups of a multiple of that, so that tiles of tokens are the same however many there are. */
#define TOKEN_GROUP 16
/* One matmul at a time; see fused.h. The activations of a token block and panel, which all threads read: for strips as tiles of
 * 4 tokens, else token by token. */
static union {
  fm_act_i8 i8[SCRATCH_BLOCKS];
  fm_act_i16 i16[SCRATCH_BLOCKS];
  fm_act_tile_i8 tile_i8[SCRATCH_BLOCKS / FM_TILE_TOKENS];
  fm_act_tile_i16 tile_i16[SCRATCH_BLOCKS / FM_TILE_TOKENS];
  _Alignas(64) float f32[SCRATCH_BLOCKS * sizeof(fm_act_i16) / sizeof(float)];
} acts;
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

/* One target's part of a token block and panel of columns, or the rows and tokens of it that a thread takes. */
typedef struct {
  const fm_traits *traits;
  const fm_kernels *kernels;
  fm_service service;
  const uint8_t *w; /* first row, first block of the panel */
  size_t row_bytes; /* of the whole matrix */
  const float *x;   /* f32 activations: first token, first column of the panel; the others are in acts */
  const float *dealt;
  size_t x_stride;
  size_t first_token, n_tiles; /* the first token within acts; tiles of tokens that acts holds */
  float *y;                    /* first token, first row */
  size_t y_stride;
  size_t n_tokens, n_rows, panel_cols;
  bool is_gemv, accumulate;
  fm_matmul_scratch *scratch;
} panel;

static bool is_gemv(size_t n_tokens) { return n_tokens <= GEMV_MAX_TOKENS; }
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
    dot((const float *)w, p->x, p->y + r, p->panel_cols, p->n_tokens, p->x_stride, p->y_stride, p->accumulate);
    return;
  }
  float *decoded = p->scratch->decoded;
  for (size_t c = 0; c < p->panel_cols; c += FM_PANEL_COLS) {
    size_t n = min_size(p->panel_cols - c, FM_PANEL_COLS);
    fm_op_dequantize(f, p->kernels, w + c / f->block_values * f->block_bytes, decoded, n);
    dot(decoded, p->x + c, p->y + r, n, p->n_tokens, p->x_stride, p->y_stride, p->accumulate || c > 0);
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
  for (size_t r = 0; r < p->n_rows; r++) {
    float sum;
    if (p->dealt && p->kernels->row_dot(p->w + r * p->row_bytes, p->dealt, p->panel_cols, &sum)) {
      p->y[r] = p->accumulate ? p->y[r] + sum : sum;
    } else {
      row_f32(p, r);
    }
  }
}

static size_t act_blocks(size_t panel_cols) { return (panel_cols + FM_ACT_COLS - 1) / FM_ACT_COLS; }

/* Where the activations of a strip begin within acts: of the first FM_PANEL_COLS columns tile after tile, then of the next. col, n_cols:
 * the strip's. */
static size_t first_tile(size_t n_tiles, size_t first_token, size_t col, size_t n_cols) {
  return n_tiles * (col / FM_ACT_COLS) + first_token / FM_TILE_TOKENS * act_blocks(n_cols);
}

static void matmul_scalar(const panel *p) {
  const fm_traits *f = p->traits;
  size_t first_act = p->first_token * act_blocks(p->panel_cols);
  if (p->service.activation == FM_ACT_INT8) {
    fm_rows_i8__scalar(p->kernels->decode, p->w, p->row_bytes, f->block_values, f->block_bytes, acts.i8 + first_act,
                       p->y, p->n_rows, p->panel_cols, p->n_tokens, p->y_stride, p->accumulate);
  } else {
    fm_rows_i16__scalar(p->kernels->decode, p->w, p->row_bytes, f->block_values, f->block_bytes, acts.i16 + first_act,
                        p->y, p->n_rows, p->panel_cols, p->n_tokens, p->y_stride, p->accumulate);
  }
}

/* A strip: n_cols columns of n_rows rows. */
typedef struct {
  const uint8_t *row[FM_STRIP_ROWS];
  size_t n_rows, n_cols, first_tile; /* first_tile: of its activations */
} strip_at;

/* Past the last row the last one stands again, and its result is not stored. */
static strip_at strip_of(const panel *p, size_t r, size_t col) {
  const fm_traits *f = p->traits;
  strip_at at = {.n_rows = min_size(p->n_rows - r, FM_STRIP_ROWS),
                 .n_cols = min_size(p->panel_cols - col, FM_PANEL_COLS)};
  const uint8_t *w = p->w + col / f->block_values * f->block_bytes;
  for (size_t i = 0; i < FM_STRIP_ROWS; i++) at.row[i] = w + (r + min_size(i, at.n_rows - 1)) * p->row_bytes;
  at.first_tile = first_tile(p->n_tiles, p->first_token, col, at.n_cols);
  return at;
}

/* Asks for the rows of the next strip, from end to end, which the cache then brings while this one is multiplied: loads that nothing
 * waits for. Of rows that are more than the panel, only its part. */
static void touch_next_strip(const panel *p, size_t r) {
  const fm_traits *f = p->traits;
  size_t first = r + FM_STRIP_ROWS, end = min_size(p->n_rows, first + FM_STRIP_ROWS);
  size_t n_bytes = p->panel_cols / f->block_values * f->block_bytes;
  for (size_t next = first; next < end; next++) {
    const volatile uint8_t *w = p->w + next * p->row_bytes;
    for (size_t i = 0; i < n_bytes; i += FM_CACHE_LINE_BYTES) (void)w[i];
  }
}

/* Where the last row's part of the panel ends. */
static const uint8_t *end_of(const panel *p) {
  return p->w + (p->n_rows - 1) * p->row_bytes + p->panel_cols / p->traits->block_values * p->traits->block_bytes;
}

static void matmul_i16(const panel *p) {
  const fm_simd128_kernels *k = p->kernels->simd128;
  const fm_shared_kernels *shared = fm_shared_kernels_of(p->service.isa);
  if (p->is_gemv) {
    for (size_t t = 0; t < p->n_tokens; t++) {
      k->gemv_i16(p->w, p->row_bytes, end_of(p), acts.i16 + t * act_blocks(p->panel_cols), p->y + t * p->y_stride,
                  p->n_rows, p->panel_cols, p->accumulate);
    }
    return;
  }
  fm_strip *strip = &p->scratch->strip;
  for (size_t r = 0; r < p->n_rows; r += FM_STRIP_ROWS) {
    for (size_t col = 0; col < p->panel_cols; col += FM_PANEL_COLS) {
      strip_at at = strip_of(p, r, col);
      shared->strip_i16(k, at.row, at.n_cols, strip);
      if (p->n_tokens >= TOUCH_MIN_TOKENS && col + at.n_cols == p->panel_cols) touch_next_strip(p, r);
      shared->gemm_i16(k->layout, strip, acts.tile_i16 + at.first_tile, p->y + r, act_blocks(at.n_cols), p->n_tokens,
                       p->y_stride, at.n_rows, p->accumulate || col > 0);
    }
  }
}

static void matmul_i8(const panel *p) {
  const fm_relaxed_kernels *k = p->kernels->relaxed;
  const fm_simd128_kernels *simd128 = p->kernels->simd128;
  const fm_shared_kernels *shared = fm_shared_kernels_of(p->service.isa);
  int32_t dot = simd128->layout->wide ? FM_DOT_I32 : fm_current.dot;
  if (p->is_gemv) {
    for (size_t t = 0; t < p->n_tokens; t++) {
      k->gemv_i8[dot](p->w, p->row_bytes, end_of(p), acts.i8 + t * act_blocks(p->panel_cols), p->y + t * p->y_stride,
                      p->n_rows, p->panel_cols, p->accumulate);
    }
    return;
  }
  fm_strip *strip = &p->scratch->strip;
  for (size_t r = 0; r < p->n_rows; r += FM_STRIP_ROWS) {
    for (size_t col = 0; col < p->panel_cols; col += FM_PANEL_COLS) {
      strip_at at = strip_of(p, r, col);
      shared->strip_i8(simd128, at.row, at.n_cols, dot == FM_DOT_I32, strip);
      if (p->n_tokens >= TOUCH_MIN_TOKENS && col + at.n_cols == p->panel_cols) touch_next_strip(p, r);
      k->gemm_i8[dot](simd128->layout, strip, acts.tile_i8 + at.first_tile, p->y + r, act_blocks(at.n_cols),
                      p->n_tokens, p->y_stride, at.n_rows, p->accumulate || col > 0);
    }
  }
}

static void matmul_rows(const panel *p) {
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

/* A panel's items are strips of rows: all strips with the first group of tokens, then all with the next. */
typedef struct {
  const panel *whole;
  size_t n_strips, group_tokens;
} panel_job;

static void matmul_items(const void *context, size_t begin, size_t end, size_t thread) {
  const panel_job *j = context;
  const panel *whole = j->whole;
  for (size_t i = begin, last; i < end; i = last) {
    size_t group = i / j->n_strips, first_token = group * j->group_tokens;
    size_t first_row = (i - group * j->n_strips) * FM_STRIP_ROWS;
    last = min_size(end, (group + 1) * j->n_strips);
    panel p = *whole;
    p.w += first_row * p.row_bytes;
    p.x += first_token * p.x_stride;
    p.y += first_token * p.y_stride + first_row;
    p.first_token = first_token;
    p.n_rows = min_size((last - i) * FM_STRIP_ROWS, whole->n_rows - first_row);
    p.n_tokens = min_size(j->group_tokens, whole->n_tokens - first_token);
    p.scratch = &fm_scratch_of(thread)->matmul;
    matmul_rows(&p);
  }
}

static void matmul_panel(const panel *p) {
  panel_job j = {.whole = p, .n_strips = (p->n_rows + FM_STRIP_ROWS - 1) / FM_STRIP_ROWS, .group_tokens = p->n_tokens};
  size_t n_threads = fm_threads_in_use(), wanted = 4 * n_threads / j.n_strips, most = p->n_tokens / TOKEN_GROUP;
  size_t n_groups = n_threads > 1 ? min_size(wanted, most) : 0;
  if (n_groups > 1) {
    size_t tokens = (p->n_tokens + n_groups - 1) / n_groups;
    j.group_tokens = (tokens + TOKEN_GROUP - 1) / TOKEN_GROUP * TOKEN_GROUP;
  }
  n_groups = (p->n_tokens + j.group_tokens - 1) / j.group_tokens;
  fm_work work = FM_STRIP_ROWS * p->panel_cols * j.group_tokens;
  if (fm_current.isa == FM_ISA_SCALAR) work *= FM_WORK_SCALAR;
  if (p->service.activation == FM_ACT_F32) work *= FM_WORK_F32;
  fm_parallel(matmul_items, &j, j.n_strips * n_groups, work, 1);
}

/* Tokens first_token.. and columns first_col.. of the activations. */
typedef struct {
  size_t first_token, n_tokens, first_col, n_cols;
} tile;

/* The making of a tile's activations. Its items are pieces of FM_PANEL_COLS columns, token by token. */
typedef struct {
  const call *call;
  const tile *at;
  const float *factors;
  int32_t served;
  size_t n_pieces; /* of a token */
} activations_job;

/* The block that quantised activations go to. */
typedef struct {
  fm_act_i8 *i8;
  fm_act_i16 *i16;
} act_block;

/* Token i of the tile, columns col .. col + n - 1: quantised. */
static void quantize(const activations_job *j, size_t i, size_t col, size_t n, float *decoded, act_block to) {
  const fm_shared_kernels *shared = fm_shared_kernels_of(fm_current.isa);
  const fm_source *source = j->call->source;
  size_t t = j->at->first_token + i, first_col = j->at->first_col + col;
  const float *x = decoded;
  if (source->kind == FM_SOURCE_PLAIN) {
    x = source->x + t * j->call->n_cols + first_col;
  } else {
    fm_source_row(source, t, j->call->n_cols, first_col, n, j->factors[i], decoded);
  }
  if (j->served == FM_ACT_INT8) {
    shared->quantize_i8(x, to.i8, n);
  } else {
    shared->quantize_i16(x, to.i16, n);
  }
}

static size_t tiles_of(size_t n_tokens) { return (n_tokens + FM_TILE_TOKENS - 1) / FM_TILE_TOKENS; }

/* Items are tiles of tokens, FM_PANEL_COLS columns wide; in the order of strips. */
static void make_tiles(const void *context, size_t begin, size_t end, size_t thread) {
  const activations_job *j = context;
  const fm_shared_kernels *shared = fm_shared_kernels_of(fm_current.isa);
  fm_matmul_scratch *scratch = &fm_scratch_of(thread)->matmul;
  size_t n_tiles = tiles_of(j->at->n_tokens);
  for (size_t i = begin; i < end; i++) {
    size_t col = i / n_tiles * FM_PANEL_COLS, first = i % n_tiles * FM_TILE_TOKENS;
    size_t n = min_size(j->at->n_tokens - first, FM_TILE_TOKENS), n_cols = min_size(j->at->n_cols - col, FM_PANEL_COLS);
    size_t n_blocks = act_blocks(n_cols), to_tile = first_tile(n_tiles, first, col, n_cols);
    for (size_t k = 0; k < n; k++) {
      const act_block to = {scratch->unpacked.i8 + k * n_blocks, scratch->unpacked.i16 + k * n_blocks};
      quantize(j, first + k, col, n_cols, scratch->decoded, to);
    }
    if (j->served == FM_ACT_INT8) {
      shared->pack_i8(scratch->unpacked.i8, n, n_blocks, acts.tile_i8 + to_tile);
    } else {
      shared->pack_i16(scratch->unpacked.i16, n, n_blocks, acts.tile_i16 + to_tile);
    }
  }
}

static void make_pieces(const void *context, size_t begin, size_t end, size_t thread) {
  const activations_job *j = context;
  const tile *at = j->at;
  float *decoded = fm_scratch_of(thread)->matmul.decoded;
  for (size_t piece = begin; piece < end; piece++) {
    size_t i = piece / j->n_pieces, col = piece % j->n_pieces * FM_PANEL_COLS;
    size_t n = min_size(at->n_cols - col, FM_PANEL_COLS);
    size_t first_block = i * act_blocks(at->n_cols) + col / FM_ACT_COLS;
    if (j->served == FM_ACT_F32) {
      fm_source_row(j->call->source, at->first_token + i, j->call->n_cols, at->first_col + col, n, j->factors[i],
                    acts.f32 + i * at->n_cols + col);
    } else {
      quantize(j, i, col, n, decoded, (act_block){acts.i8 + first_block, acts.i16 + first_block});
      bool is_simd = fm_current.isa >= FM_ISA_SIMD128; /* and so a matrix-vector product: others come in tiles */
      if (j->served == FM_ACT_INT16 && is_simd) {
        fm_shared_kernels_of(fm_current.isa)->deal_i16(acts.i16 + first_block, act_blocks(n));
      }
    }
  }
}

/* Fills acts; f32 activations that are x itself are left where they are. */
static void make_activations(const call *c, int32_t served, const tile *at, const float *factors) {
  fm_source_kind kind = c->source->kind;
  if (kind == FM_SOURCE_PLAIN && served == FM_ACT_F32) return;
  activations_job j = {c, at, factors, served, (at->n_cols + FM_PANEL_COLS - 1) / FM_PANEL_COLS};
  fm_work work = kind == FM_SOURCE_GATED ? FM_WORK_EXP : kind == FM_SOURCE_NORMED ? FM_WORK_CONVERT : FM_WORK_COPY;
  work *= min_size(at->n_cols, FM_PANEL_COLS);
  if (served != FM_ACT_F32 && fm_current.isa >= FM_ISA_SIMD128 && !is_gemv(at->n_tokens)) {
    fm_parallel(make_tiles, &j, tiles_of(at->n_tokens) * j.n_pieces, work * FM_TILE_TOKENS, 1);
  } else {
    fm_parallel(make_pieces, &j, at->n_tokens * j.n_pieces, work, 1);
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
      .y_stride = target->n_rows,
      .n_tokens = at->n_tokens,
      .n_tiles = tiles_of(at->n_tokens),
      .n_rows = target->n_rows,
      .panel_cols = at->n_cols,
      .is_gemv = is_gemv(at->n_tokens),
      .accumulate = c->accumulate || at->first_col > 0,
  };
  if (served == FM_ACT_F32) p.dealt = deal(&p);
  matmul_panel(&p);
}

/* The columns whose activations are made at once: as many as the scratch holds, so that rows are read from end to end. For strips,
 * whose activations all tokens of a block read again and again, whole pieces. */
static size_t panel_limit(const call *c, int32_t served) {
  if (served == FM_ACT_F32) {
    if (c->n_tokens > 1) return FM_PANEL_COLS;
    return c->source->kind == FM_SOURCE_PLAIN ? c->n_cols : SCRATCH_FLOATS;
  }
  if (is_gemv(c->n_tokens)) return FM_ACT_COLS * (SCRATCH_BLOCKS / c->n_tokens);
  if (fm_current.isa == FM_ISA_SCALAR) return FM_PANEL_COLS;
  size_t n_tiles = tiles_of(min_size(c->n_tokens, TOKEN_BLOCK));
  return FM_PANEL_COLS * (TOKEN_BLOCK / FM_TILE_TOKENS / n_tiles);
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
