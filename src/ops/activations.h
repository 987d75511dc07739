/* The activations of a product, as its kernels read them. They are made from a source and
 * quantised, one token panel at a time, in memory that activations.c owns. All threads and all
 * targets of the call then read them.
 *
 * A token panel is n_tokens tokens x n_cols columns, in one of four orders:
 *   IN_PLACE  f32 activations that are the source's own x: nothing is made
 *   FLOATS    f32 [n_tokens][n_cols]
 *   TOKENS    blocks of 256 columns, [n_tokens][ceil(n_cols / 256)], for matrix-vector and scalar
 *             kernels
 *   TILES     tiles of 4 tokens, for the matrix-matrix kernels, in the order in which strips
 *             read them: all tiles of the first FM_STRIP_COLS columns, then those of the next */
#ifndef FM_OPS_ACTIVATIONS_H
#define FM_OPS_ACTIVATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/table.h"
#include "ops/ops.h"

/* From 4 tokens on, decoding a strip once is cheaper than decoding every row for each token. */
#define FM_GEMV_MAX_TOKENS 3
/* The most tokens of a panel: 464 KB of int8 tiles, within L2. */
#define FM_PANEL_TOKENS 128

typedef enum {
  FM_ORDER_IN_PLACE,
  FM_ORDER_FLOATS,
  FM_ORDER_TOKENS,
  FM_ORDER_TILES
} fm_act_order;

/* The activations of one call, for the targets that get them as `activation`, and the current token
 * panel. */
typedef struct {
  const fm_source *source;
  const fm_shared_kernels *shared;
  int32_t isa, activation;     /* fm_isa_id; the form that the kernels get, as in fm_service */
  bool alone;                  /* each token is treated as if it were the only one */
  size_t n_tokens, n_cols;     /* the source's */
  size_t max_tokens, max_cols; /* a panel's, at most */
  struct {
    size_t first_token, n_tokens, first_col, n_cols;
    fm_act_order order;
  } panel;
  float factors[FM_PANEL_TOKENS]; /* factors of the panel's tokens, where the source is normed */
} fm_activations;

/* activation: the form that the kernels get, not what the caller asked for; alone: FM_ALONE. */
void fm_activations_init(fm_activations *a, const fm_source *source, size_t n_tokens, size_t n_cols,
                         int32_t isa, int32_t activation, bool alone);

/* Sets the tokens of the next panels: those from first_token on, at most max_tokens. */
void fm_activations_begin(fm_activations *a, size_t first_token);

/* Makes the panel of these tokens and the columns from first_col on, at most max_cols. */
void fm_activations_make(fm_activations *a, size_t first_col);

/* IN_PLACE, FLOATS: the panel's columns of a token; those of the next token are *stride floats
 * further. */
const float *fm_activations_floats(const fm_activations *a, size_t token, size_t *stride);

/* The tokens of a panel of floats, reordered by `deal`: NULL where it refuses one. Returns false if
 * the call has more than FM_GEMV_MAX_TOKENS tokens, or the reordered ones do not fit. */
bool fm_activations_dealt(const fm_activations *a, fm_deal_fn *deal,
                          const float *dealt[FM_GEMV_MAX_TOKENS]);

/* TOKENS: the blocks of a token of the panel. */
const void *fm_activations_token(const fm_activations *a, size_t token);

/* TILES: the tiles for a strip, whose columns are col .. col + n_cols - 1 of the panel, from
 * `token` (a multiple of 4) on. */
const void *fm_activations_tiles(const fm_activations *a, size_t token, size_t col, size_t n_cols);

/* Blocks of 256 columns, the last of which may be padded. */
static inline size_t fm_act_blocks(size_t n_cols) {
  return (n_cols + FM_ACT_COLS - 1) / FM_ACT_COLS;
}

#endif
