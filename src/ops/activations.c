#include "ops/activations.h"

#include <string.h>

#include "ops/scratch.h"
#include "threads/threads.h"

#define N_BLOCKS (FM_PANEL_TOKENS * FM_STRIP_COLS / FM_ACT_COLS)

/* The token panel. One product runs at a time; see fused.h. */
static union {
  fm_act_i8 i8[N_BLOCKS];
  fm_act_i16 i16[N_BLOCKS];
  fm_act_tile_i8 tile_i8[N_BLOCKS / FM_TILE_TOKENS];
  fm_act_tile_i16 tile_i16[N_BLOCKS / FM_TILE_TOKENS];
  _Alignas(64) float f32[N_BLOCKS * sizeof(fm_act_i16) / sizeof(float)];
} panel;
#define N_FLOATS (sizeof panel.f32 / sizeof panel.f32[0])
#define PANEL_TOKENS_F32 (N_FLOATS / FM_STRIP_COLS) /* where f32 activations are made: 80 */
static_assert(PANEL_TOKENS_F32 % 4 == 0 && PANEL_TOKENS_F32 <= FM_PANEL_TOKENS,
              "whole tiles of 4 tokens, within factors[]");

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static size_t count_tiles(size_t n_tokens) {
  return (n_tokens + FM_TILE_TOKENS - 1) / FM_TILE_TOKENS;
}

/* Whether f32 activations are rows of x itself, one after another. */
static bool is_in_place(const fm_source *source) {
  return source->kind == FM_SOURCE_PLAIN && !source->rows;
}

static fm_act_order order_of(const fm_activations *a, size_t n_tokens) {
  if (a->activation == FM_ACT_F32)
    return is_in_place(a->source) ? FM_ORDER_IN_PLACE : FM_ORDER_FLOATS;
  bool has_tiles = a->isa >= FM_ISA_SIMD128 && n_tokens > FM_GEMV_MAX_TOKENS && !a->alone;
  return has_tiles ? FM_ORDER_TILES : FM_ORDER_TOKENS;
}

/* Tokens of a panel. Where each is treated as the only one, as many as fit with all their columns.
 */
static size_t max_tokens(const fm_activations *a) {
  if (a->alone && a->activation == FM_ACT_F32) return 1;
  size_t fitting = N_BLOCKS / fm_act_blocks(a->n_cols);
  if (a->alone && fitting < FM_PANEL_TOKENS) return fitting > 1 ? fitting : 1;
  return order_of(a, a->n_tokens) == FM_ORDER_FLOATS ? PANEL_TOKENS_F32 : FM_PANEL_TOKENS;
}

/* As many columns as fit, so that rows of weights are read from end to end; for tiles, a multiple
 * of a strip's columns. */
static size_t max_cols(const fm_activations *a) {
  size_t n_tokens = a->alone ? 1 : a->n_tokens;
  if (a->activation == FM_ACT_F32) {
    if (n_tokens > 1) return FM_STRIP_COLS;
    return is_in_place(a->source) ? a->n_cols : N_FLOATS;
  }
  if (n_tokens <= FM_GEMV_MAX_TOKENS) return FM_ACT_COLS * (N_BLOCKS / n_tokens);
  if (a->isa == FM_ISA_SCALAR) return FM_STRIP_COLS;
  return FM_STRIP_COLS *
         (FM_PANEL_TOKENS / FM_TILE_TOKENS / count_tiles(min_size(a->n_tokens, FM_PANEL_TOKENS)));
}

void fm_activations_init(fm_activations *a, const fm_source *source, size_t n_tokens, size_t n_cols,
                         int32_t isa, int32_t activation, bool alone) {
  a->source = source;
  a->shared = fm_shared_kernels_of(isa);
  a->isa = isa;
  a->activation = activation;
  a->alone = alone;
  a->n_tokens = n_tokens;
  a->n_cols = n_cols;
  a->max_tokens = max_tokens(a);
  a->max_cols = max_cols(a);
}

void fm_activations_begin(fm_activations *a, size_t first_token) {
  a->panel.first_token = first_token;
  a->panel.n_tokens = min_size(a->n_tokens - first_token, a->max_tokens);
  a->panel.order = order_of(a, a->panel.n_tokens);
  fm_source_factors(a->source, a->shared, first_token, a->panel.n_tokens, a->n_cols, a->factors);
}

/* The place of a strip's tiles within the panel. */
static size_t first_tile(const fm_activations *a, size_t token, size_t col, size_t n_cols) {
  return count_tiles(a->panel.n_tokens) * (col / FM_ACT_COLS) +
         token / FM_TILE_TOKENS * fm_act_blocks(n_cols);
}

static void *at_tile(const fm_activations *a, size_t tile) {
  return (uint8_t *)&panel + tile * a->shared->act[a->activation].tile_bytes;
}

static void *at_block(const fm_activations *a, size_t token, size_t col) {
  size_t block = token * fm_act_blocks(a->panel.n_cols) + col / FM_ACT_COLS;
  return (uint8_t *)&panel + block * a->shared->act[a->activation].block_bytes;
}

/* Columns col .. col + n_cols - 1 of a token of the panel, as f32: x itself where the source is
 * plain, else made in `out`. */
static const float *floats_of(const fm_activations *a, size_t token, size_t col, size_t n_cols,
                              float *out) {
  size_t source_token = a->panel.first_token + token, source_col = a->panel.first_col + col;
  if (a->source->rows) source_token = a->source->rows[source_token];
  if (a->source->kind == FM_SOURCE_PLAIN)
    return a->source->x + source_token * a->n_cols + source_col;
  fm_source_row(a->source, a->shared, source_token, a->n_cols, source_col, n_cols,
                a->factors[token], out);
  return out;
}

/* An item is a piece: FM_STRIP_COLS columns of one token. */
static size_t count_pieces(const fm_activations *a) {
  return (a->panel.n_cols + FM_STRIP_COLS - 1) / FM_STRIP_COLS;
}

static void make_pieces(const void *context, size_t begin, size_t end, size_t thread) {
  const fm_activations *a = context;
  const fm_act_kernels *k = &a->shared->act[a->activation];
  float *floats = fm_scratch_of(thread)->matmul.floats;
  for (size_t piece = begin, n_pieces = count_pieces(a); piece < end; piece++) {
    size_t token = piece / n_pieces, col = piece % n_pieces * FM_STRIP_COLS;
    size_t n = min_size(a->panel.n_cols - col, FM_STRIP_COLS);
    if (a->panel.order == FM_ORDER_FLOATS) {
      float *made = panel.f32 + token * a->panel.n_cols + col;
      const float *from = floats_of(a, token, col, n, made);
      if (from != made) memcpy(made, from, n * sizeof *made);
      continue;
    }
    void *blocks = at_block(a, token, col);
    k->quantize(floats_of(a, token, col, n, floats), blocks, n);
    if (k->deal) k->deal(blocks, fm_act_blocks(n));
  }
}

/* An item is the pieces of 4 tokens, in the order of tiles. */
static void make_tiles(const void *context, size_t begin, size_t end, size_t thread) {
  const fm_activations *a = context;
  const fm_act_kernels *k = &a->shared->act[a->activation];
  fm_matmul_scratch *scratch = &fm_scratch_of(thread)->matmul;
  for (size_t i = begin, n_tiles = count_tiles(a->panel.n_tokens); i < end; i++) {
    size_t col = i / n_tiles * FM_STRIP_COLS, first = i % n_tiles * FM_TILE_TOKENS;
    size_t n = min_size(a->panel.n_tokens - first, FM_TILE_TOKENS);
    size_t n_cols = min_size(a->panel.n_cols - col, FM_STRIP_COLS),
           n_blocks = fm_act_blocks(n_cols);
    for (size_t t = 0; t < n; t++) {
      uint8_t *blocks = (uint8_t *)&scratch->tokens + t * n_blocks * k->block_bytes;
      k->quantize(floats_of(a, first + t, col, n_cols, scratch->floats), blocks, n_cols);
    }
    k->interleave(&scratch->tokens, n, n_blocks, at_tile(a, first_tile(a, first, col, n_cols)));
  }
}

void fm_activations_make(fm_activations *a, size_t first_col) {
  a->panel.first_col = first_col;
  a->panel.n_cols = min_size(a->n_cols - first_col, a->max_cols);
  if (a->panel.order == FM_ORDER_IN_PLACE) return;
  fm_source_kind kind = a->source->kind;
  fm_work work = kind == FM_SOURCE_GATED    ? FM_WORK_EXP
                 : kind == FM_SOURCE_NORMED ? FM_WORK_CONVERT
                                            : FM_WORK_COPY;
  work *= min_size(a->panel.n_cols, FM_STRIP_COLS);
  if (a->panel.order == FM_ORDER_TILES) {
    fm_parallel(make_tiles, a, count_tiles(a->panel.n_tokens) * count_pieces(a),
                work * FM_TILE_TOKENS);
  } else {
    fm_parallel(make_pieces, a, a->panel.n_tokens * count_pieces(a), work);
  }
}

const float *fm_activations_floats(const fm_activations *a, size_t token, size_t *stride) {
  bool in_place = a->panel.order == FM_ORDER_IN_PLACE;
  *stride = in_place ? a->n_cols : a->panel.n_cols;
  const float *first =
      in_place ? a->source->x + a->panel.first_token * a->n_cols + a->panel.first_col : panel.f32;
  return first + token * *stride;
}

/* The dealt values are put behind those that the panel holds. */
bool fm_activations_dealt(const fm_activations *a, fm_deal_fn *deal,
                          const float *dealt[FM_GEMV_MAX_TOKENS]) {
  size_t n_tokens = a->panel.n_tokens, n_cols = a->panel.n_cols, stride;
  size_t taken = a->panel.order == FM_ORDER_FLOATS ? n_tokens * n_cols : 0;
  /* The call's tokens decide, not those of its last panel: its panels must not differ in bits. */
  if ((a->alone ? 1 : a->n_tokens) > FM_GEMV_MAX_TOKENS || taken + n_tokens * n_cols > N_FLOATS)
    return false;
  for (size_t i = 0; i < n_tokens; i++) {
    float *made = panel.f32 + taken + i * n_cols;
    dealt[i] = deal(fm_activations_floats(a, i, &stride), made, n_cols) ? made : NULL;
  }
  return true;
}

const void *fm_activations_token(const fm_activations *a, size_t token) {
  return at_block(a, token, 0);
}

const void *fm_activations_tiles(const fm_activations *a, size_t token, size_t col, size_t n_cols) {
  return at_tile(a, first_tile(a, token, col, n_cols));
}
