/* The scratch that operations work in; each thread has its own. */
#ifndef FM_OPS_SCRATCH_H
#define FM_OPS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/activations.h"
#include "kernels/attention.h"
#include "kernels/delta.h"
#include "kernels/strip.h"
#include "threads/threads.h"

#define FM_ATTENTION_PACKS 16

/* The KV heads that a pack's rows read, without repetition, and the index of each row's among
 * them. */
typedef struct {
  size_t n_heads, head[FM_PACK_ROWS], of_row[FM_PACK_ROWS];
} fm_pack_heads;

/* The scratch of a product. */
typedef struct {
  fm_strip strip;
  union {
    fm_act_i8 i8[FM_TILE_TOKENS * FM_STRIP_COLS / FM_ACT_COLS];
    fm_act_i16 i16[FM_TILE_TOKENS * FM_STRIP_COLS / FM_ACT_COLS];
  } tokens;                                 /* the blocks of 4 tokens, before they become tiles */
  _Alignas(64) float floats[FM_STRIP_COLS]; /* a piece of a weight row, or of activations about to
                                               be quantised */
} fm_matmul_scratch;

/* The scratch of attention. Keys and values are f32, [position][head][n_dims]. */
typedef struct {
  _Alignas(64) float q[FM_ATTENTION_PACKS][FM_HEAD_SIZE_MAX * FM_PACK_ROWS];
  float out[FM_ATTENTION_PACKS][FM_HEAD_SIZE_MAX * FM_PACK_ROWS];
  float k[FM_SLICE_POSITIONS * FM_HEAD_SIZE_MAX];
  float v[FM_SLICE_POSITIONS * FM_HEAD_SIZE_MAX];
  _Alignas(16) fm_slice_scores scores;
  _Alignas(16) fm_slice_weights weights;
  fm_softmax_state state[FM_ATTENTION_PACKS];
  fm_pack_heads heads[FM_ATTENTION_PACKS];
} fm_attention_scratch;

#define FM_DELTA_CHUNK 32
#define FM_DELTA_STRIDE (FM_DELTA_SIZE_MAX + 16) /* rows do not share a cache set */

/* The scratch of the gated delta net, for the tokens of a chunk: keys, then queries; writes, then
 * results; the weights of writes in later writes and in results. */
typedef struct {
  _Alignas(64) float kq[2 * FM_DELTA_CHUNK][FM_DELTA_STRIDE];
  float ro[2 * FM_DELTA_CHUNK][FM_DELTA_STRIDE];
  float mix_r[FM_DELTA_CHUNK][FM_DELTA_CHUNK], mix_o[FM_DELTA_CHUNK][FM_DELTA_CHUNK];
} fm_delta_scratch;

typedef union {
  fm_matmul_scratch matmul;
  fm_attention_scratch attention;
  fm_delta_scratch delta;
} fm_scratch;

/* The scratch of a thread; thread 0, the caller, always has one. */
fm_scratch *fm_scratch_of(size_t thread);

#if FM_HAS_THREADS
/* Gives a thread the memory of its fm_scratch, which must stay. thread: 1 .. FM_MAX_THREADS - 1. */
void fm_scratch_give(size_t thread, void *memory);
#endif

#endif
