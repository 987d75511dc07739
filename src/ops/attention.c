/* Attention: batches of up to 64 query rows go through the cache, slice after slice of its
 * positions, with an online softmax. A query row is one head of one token; a pack is 4 rows in the
 * lanes of a vector.
 *
 *   one token    a batch is 64 heads. All of them take a slice before the next one is read, so that
 *                keys and values come from memory once, in order. F32 and F16 are read where they
 *                are
 *   more tokens  a batch is 64 rows (token, head) with the same KV head. A slice is converted to
 *                f32 once for all of them
 *
 * Threads take batches of a prompt, or some heads of one token. A row's result depends only on its
 * pack or, in a prompt, on its batch; both are the same for any number of threads.
 *
 * Scratch does not grow with the positions: 64 rows and one slice. */
#include <math.h>
#include <string.h>

#include "kernels/attention.h"
#include "ops/ops.h"
#include "ops/scratch.h"

#define BATCH_ROWS (FM_ATTENTION_PACKS * FM_PACK_ROWS)
#define DIRECT_POSITIONS                                                                           \
  16 /* rows of a cache are a power of two apart: more of them would evict each other from L1 */

/* A call of fm_flash_attention. */
typedef struct {
  const fm_attention_kernels *kernels;
  const fm_attention *shape;
  int32_t isa;
  const fm_traits *traits; /* the cache's type, as is the next field */
  const fm_kernels *type;
  const float *q;
  const uint8_t *k, *v;
  float *out;
  size_t n_dims; /* head_size, rounded up to 8 */
  size_t head_bytes, position_bytes;
  size_t heads_per_kv; /* query heads that share a KV head */
  bool is_direct;      /* keys and values are read where they are */
  size_t n_rows;       /* rows of a token, or of all tokens with one KV head */
  size_t n_batches;    /* batches of a KV head */
  size_t rows_of_item; /* heads of an item, where there is one token */
} job;

/* A batch: query rows first_row + i, i < n_rows. */
typedef struct {
  const job *job;
  fm_attention_scratch *scratch;
  size_t kv_head, first_row, n_rows, n_packs;
  size_t first, end;         /* positions that any row sees */
  size_t all_first, all_end; /* positions that every row sees */
} batch;

static const fm_attention_kernels *kernels_of(int32_t isa) {
  const fm_shared_kernels *shared = fm_shared_kernels_of(isa);
  return isa >= FM_ISA_RELAXED ? shared->attention_relaxed : shared->attention;
}

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }
static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

/* Finds the token and the KV head of a row; returns the offset of its head in q and out. */
static size_t row_offset(const batch *b, size_t row, size_t *token, size_t *kv_head) {
  const fm_attention *s = b->job->shape;
  size_t head = b->first_row + row;
  *token = 0;
  *kv_head = head / b->job->heads_per_kv;
  if (s->n_tokens > 1) {
    *token = head / b->job->heads_per_kv;
    *kv_head = b->kv_head;
    head = b->kv_head * b->job->heads_per_kv + head % b->job->heads_per_kv;
  }
  return (*token * s->n_heads + head) * s->head_size;
}

static void seen_positions(const fm_attention *s, size_t token, size_t *first, size_t *end) {
  uint64_t last = (uint64_t)s->first_position + token + 1, reach = s->window / 2;
  bool is_symmetric = !s->causal && s->window > 0;
  if (is_symmetric) last += reach;
  bool is_cut = (s->causal || is_symmetric) && last < s->n_positions;
  *end = is_cut ? (size_t)last : s->n_positions;
  if (is_symmetric) {
    *first = last > 2 * reach + 1 ? (size_t)min_u64(last - 2 * reach - 1, *end) : 0;
  } else {
    *first = s->window > 0 && *end > s->window ? *end - s->window : 0;
  }
}

/* Copies n values into row r of a pack, [n_dims / 4][4 rows][4 columns]; finish_row copies them
 * back. */
static void interleave(float *pack, size_t r, const float *row, size_t n) {
  float *to = pack + 4 * r;
  for (; n >= 4; n -= 4, row += 4, to += 4 * FM_PACK_ROWS) memcpy(to, row, 4 * sizeof *to);
  for (size_t c = 0; c < n; c++) to[c] = row[c];
}

static void finish_row(const float *pack, const fm_softmax_state *state, size_t r, float *row,
                       size_t n) {
  float inverse = state->sum[r] == 0.0f ? 0.0f : 1.0f / state->sum[r];
  const float *from = pack + 4 * r;
  for (size_t c = 0; c < n; c++) row[c] = from[(c - c % 4) * FM_PACK_ROWS + c % 4] * inverse;
}

static fm_pack_heads heads_of(const batch *b, size_t p) {
  fm_pack_heads heads = {0};
  for (size_t r = 0; r < FM_PACK_ROWS; r++) {
    size_t row = min_size(p * FM_PACK_ROWS + r, b->n_rows - 1), token,
           kv_head; /* missing rows repeat the last one */
    row_offset(b, row, &token, &kv_head);
    if (heads.n_heads == 0 || heads.head[heads.n_heads - 1] != kv_head)
      heads.head[heads.n_heads++] = kv_head;
    heads.of_row[r] = heads.n_heads - 1;
  }
  return heads;
}

/* The first score of a row is its sink: the sum of weights is e^0, and nothing is mixed yet. */
static void begin_with_sink(const fm_attention *s, size_t offset, fm_softmax_state *state,
                            size_t r) {
  float sink = s->sinks[offset / s->head_size % s->n_heads];
  state->max[r] = sink;
  state->sum[r] = sink == -INFINITY ? 0.0f : 1.0f;
}

static void begin_batch(batch *b) {
  const job *j = b->job;
  b->n_packs = (b->n_rows + FM_PACK_ROWS - 1) / FM_PACK_ROWS;
  b->first = b->all_end = SIZE_MAX;
  b->end = b->all_first = 0;
  for (size_t p = 0; p < b->n_packs; p++) {
    fm_softmax_state *state = &b->scratch->state[p];
    memset(b->scratch->q[p], 0, j->n_dims * FM_PACK_ROWS * sizeof(float));
    memset(b->scratch->out[p], 0, j->n_dims * FM_PACK_ROWS * sizeof(float));
    memset(state, 0, sizeof *state);
    b->scratch->heads[p] = heads_of(b, p);
    for (size_t r = 0; r < FM_PACK_ROWS; r++) {
      size_t row = p * FM_PACK_ROWS + r, token, kv_head, first, end;
      state->max[r] = -INFINITY;
      if (row >= b->n_rows) continue;
      size_t offset = row_offset(b, row, &token, &kv_head);
      interleave(b->scratch->q[p], r, j->q + offset, j->shape->head_size);
      if (j->shape->sinks) begin_with_sink(j->shape, offset, state, r);
      seen_positions(j->shape, token, &first, &end);
      state->first[r] = (int32_t)first;
      state->end[r] = (int32_t)end;
      b->first = min_size(b->first, first);
      b->end = max_size(b->end, end);
      b->all_first = max_size(b->all_first, first);
      b->all_end = min_size(b->all_end, end);
    }
  }
}

static void end_batch(const batch *b) {
  for (size_t row = 0; row < b->n_rows; row++) {
    size_t p = row / FM_PACK_ROWS, token, kv_head;
    float *out = b->job->out + row_offset(b, row, &token, &kv_head);
    finish_row(b->scratch->out[p], &b->scratch->state[p], row % FM_PACK_ROWS, out,
               b->job->shape->head_size);
  }
}

static fm_kv_slice slice_in_cache(const job *j, const fm_pack_heads *heads, const uint8_t *cache,
                                  size_t position, size_t n) {
  fm_kv_slice slice = {
      .start = cache + position * j->position_bytes, .stride = j->position_bytes, .n_positions = n};
  for (size_t r = 0; r < FM_PACK_ROWS; r++)
    slice.offset[r] = heads->head[heads->of_row[r]] * j->head_bytes;
  slice.is_shared = heads->n_heads == 1;
  slice.is_f16 = j->shape->kv_type == FM_KV_F16;
  return slice;
}

/* The same slice, as f32 with zeros up to n_dims. */
static fm_kv_slice slice_in_scratch(const job *j, const fm_pack_heads *heads, const uint8_t *cache,
                                    size_t position, size_t n, float *values) {
  size_t head_size = j->shape->head_size, stride = heads->n_heads * j->n_dims;
  fm_kv_slice slice = {
      .start = (const uint8_t *)values, .stride = stride * sizeof(float), .n_positions = n};
  for (size_t r = 0; r < FM_PACK_ROWS; r++)
    slice.offset[r] = heads->of_row[r] * j->n_dims * sizeof(float);
  slice.is_shared = heads->n_heads == 1;
  for (size_t i = 0; i < n; i++) {
    for (size_t h = 0; h < heads->n_heads; h++) {
      const uint8_t *from =
          cache + (position + i) * j->position_bytes + heads->head[h] * j->head_bytes;
      float *to = values + i * stride + h * j->n_dims;
      fm_dequantize(j->traits, j->type, j->isa, from, to, head_size);
      for (size_t c = head_size; c < j->n_dims; c++) to[c] = 0.0f;
    }
  }
  return slice;
}

/* Mixes only the positions that each row sees: a weight of 0 times Inf or NaN would be NaN. */
static void mix_seen(const fm_kv_slice *v, const fm_softmax_state *state, fm_slice_weights weights,
                     size_t position, size_t n_dims, float *out) {
  for (size_t r = 0; r < FM_PACK_ROWS; r++) {
    for (size_t c = 0; c < n_dims; c++) {
      float *o = &out[(c / 4 * 4 + r) * 4 + c % 4];
      float sum = *o * state->correction[r];
      for (size_t i = 0; i < v->n_positions; i++) {
        int32_t at = (int32_t)(position + i);
        const float *value = (const float *)(const void *)(v->start + v->offset[r] + i * v->stride);
        if (at >= state->first[r] && at < state->end[r]) sum += weights[i][r][0] * value[c];
      }
      *o = sum;
    }
  }
}

static bool all_finite(const float *values, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (!(fabsf(values[i]) < INFINITY)) return false;
  }
  return true;
}

/* Adds one slice to one pack. is_special: v holds Inf or NaN that not every row sees. */
static void take_slice(const batch *b, size_t p, const fm_kv_slice *k, const fm_kv_slice *v,
                       size_t position, bool is_special) {
  const job *j = b->job;
  fm_softmax_state *state = &b->scratch->state[p];
  size_t end = position + k->n_positions;
  bool masked = false, any = false;
  for (size_t r = 0; r < min_size(b->n_rows - p * FM_PACK_ROWS, FM_PACK_ROWS); r++) {
    size_t row_first = (size_t)state->first[r], row_end = (size_t)state->end[r];
    masked |= row_first > position || row_end < end;
    any |= row_first < end && row_end > position;
  }
  if (!any) return;
  fm_logits logits = {j->shape->scale, j->shape->softcap};
  j->kernels->score(k, b->scratch->q[p], j->n_dims, b->scratch->scores);
  j->kernels->weigh(logits, b->scratch->scores, k->n_positions, position, masked, state,
                    b->scratch->weights);
  if (masked && is_special) {
    mix_seen(v, state, b->scratch->weights, position, j->n_dims, b->scratch->out[p]);
  } else {
    j->kernels->mix(v, b->scratch->weights, state->correction, j->n_dims, b->scratch->out[p]);
  }
}

/* f16: whether the KV heads that n_rows rows of the batch read are finite in these positions. */
static bool cache_is_finite(const batch *b, size_t row, size_t n_rows, const uint8_t *cache,
                            size_t position, size_t n) {
  const job *j = b->job;
  size_t first = (b->first_row + row) / j->heads_per_kv,
         last = (b->first_row + row + n_rows - 1) / j->heads_per_kv;
  const uint8_t *start = cache + position * j->position_bytes + first * j->head_bytes;
  size_t row_bytes = (last - first + 1) * j->head_bytes;
  if (row_bytes == j->position_bytes) return j->kernels->is_finite(start, n * row_bytes, 0, 1);
  return j->kernels->is_finite(start, row_bytes, j->position_bytes, n);
}

static bool slice_is_finite(const batch *b, size_t row, size_t n_rows, size_t position, size_t n) {
  if (b->job->shape->kv_type == FM_KV_F32) return true;
  return cache_is_finite(b, row, n_rows, b->job->k, position, n) &&
         cache_is_finite(b, row, n_rows, b->job->v, position, n);
}

/* All heads of a batch see the same positions: nothing is masked. Whether a pack reads its keys in
 * place depends on its own KV heads only; the whole batch is tested first, in one go. */
static void decode_batch(const batch *b) {
  const job *j = b->job;
  /* A pack has one KV head, or up to 4 where a KV head's rows do not fill packs. */
  size_t in_scratch =
      j->heads_per_kv % FM_PACK_ROWS == 0 ? FM_SLICE_POSITIONS : FM_SLICE_POSITIONS / FM_PACK_ROWS;
  for (size_t position = b->first, n; position < b->end; position += n) {
    n = min_size(b->end - position, j->is_direct ? DIRECT_POSITIONS : in_scratch);
    bool all_direct = j->is_direct && slice_is_finite(b, 0, b->n_rows, position, n);
    for (size_t p = 0; p < b->n_packs; p++) {
      size_t row = p * FM_PACK_ROWS, n_rows = min_size(b->n_rows - row, FM_PACK_ROWS);
      bool is_direct = all_direct || (j->is_direct && slice_is_finite(b, row, n_rows, position, n));
      const fm_pack_heads *heads = &b->scratch->heads[p];
      fm_kv_slice k, v;
      if (is_direct) {
        k = slice_in_cache(j, heads, j->k, position, n);
        v = slice_in_cache(j, heads, j->v, position, n);
      }
      for (size_t i = 0, part; i < n; i += part) {
        part = n;
        if (!is_direct) {
          part = min_size(n - i, in_scratch);
          k = slice_in_scratch(j, heads, j->k, position + i, part, b->scratch->k);
          v = slice_in_scratch(j, heads, j->v, position + i, part, b->scratch->v);
        }
        take_slice(b, p, &k, &v, position + i, false);
      }
    }
  }
}

static void prompt_batch(const batch *b) {
  const job *j = b->job;
  const fm_pack_heads *heads = &b->scratch->heads[0];
  for (size_t position = b->first, n; position < b->end; position += n) {
    n = min_size(b->end - position, FM_SLICE_POSITIONS);
    fm_kv_slice k = slice_in_scratch(j, heads, j->k, position, n, b->scratch->k);
    fm_kv_slice v = slice_in_scratch(j, heads, j->v, position, n, b->scratch->v);
    bool is_partial = position < b->all_first || position + n > b->all_end;
    bool is_special = is_partial && !all_finite(b->scratch->v, n * j->n_dims);
    for (size_t p = 0; p < b->n_packs; p++) take_slice(b, p, &k, &v, position, is_special);
  }
}

static void run_batch(const job *j, size_t kv_head, size_t first_row, size_t n_rows,
                      size_t thread) {
  fm_attention_scratch *scratch = &fm_scratch_of(thread)->attention;
  batch b = {
      .job = j, .scratch = scratch, .kv_head = kv_head, .first_row = first_row, .n_rows = n_rows};
  begin_batch(&b);
  if (j->shape->n_tokens == 1) {
    decode_batch(&b);
  } else {
    prompt_batch(&b);
  }
  end_batch(&b);
}

static void decode_items(const void *context, size_t begin, size_t end, size_t thread) {
  const job *j = context;
  size_t row = begin * j->rows_of_item, end_row = min_size(end * j->rows_of_item, j->n_rows);
  for (; row < end_row; row += BATCH_ROWS)
    run_batch(j, 0, row, min_size(end_row - row, BATCH_ROWS), thread);
}

/* The last tokens, which see the most positions, come first, so that no thread is left alone with
 * them. */
static void prompt_items(const void *context, size_t begin, size_t end, size_t thread) {
  const job *j = context;
  for (size_t i = begin; i < end; i++) {
    size_t kv_head = i % j->shape->n_kv_heads,
           row = (j->n_batches - 1 - i / j->shape->n_kv_heads) * BATCH_ROWS;
    run_batch(j, kv_head, row, min_size(j->n_rows - row, BATCH_ROWS), thread);
  }
}

void fm_op_flash_attention(const fm_attention *shape, const float *q, const uint8_t *k,
                           const uint8_t *v, float *out) {
  const fm_traits *traits = fm_traits_of(shape->kv_type);
  job j = {
      .isa = fm_current.isa, .shape = shape, .traits = traits, .q = q, .k = k, .v = v, .out = out};
  j.kernels = kernels_of(j.isa);
  j.type = fm_kernels_of(shape->kv_type);
  j.n_dims = (shape->head_size + 7) & ~(size_t)7;
  j.head_bytes = shape->head_size / traits->block_values * traits->block_bytes;
  j.position_bytes = shape->n_kv_heads * j.head_bytes;
  j.heads_per_kv = shape->n_heads / shape->n_kv_heads;
  j.is_direct =
      j.isa >= FM_ISA_SIMD128 && shape->head_size % 8 == 0 && shape->kv_type != FM_KV_Q8_0;
  bool is_decode = shape->n_tokens == 1;
  j.n_rows = is_decode ? shape->n_heads : shape->n_tokens * j.heads_per_kv;
  j.n_batches = (j.n_rows + BATCH_ROWS - 1) / BATCH_ROWS;
  fm_work row_work = (fm_work)2 * FM_WORK_F32 * j.n_dims * shape->n_positions;
  if (j.isa == FM_ISA_SCALAR) row_work *= FM_WORK_SCALAR;
  if (!is_decode) {
    fm_parallel(prompt_items, &j, shape->n_kv_heads * j.n_batches,
                row_work * min_size(j.n_rows, BATCH_ROWS));
    return;
  }
  /* Two items for each thread: with more of them, each would read few bytes of a position. The
   * heads of a pack stay together. */
  size_t n_threads = fm_threads_in_use(), n_packs = (j.n_rows + FM_PACK_ROWS - 1) / FM_PACK_ROWS;
  size_t packs = n_threads == 1 ? n_packs : (n_packs + 2 * n_threads - 1) / (2 * n_threads);
  j.rows_of_item = min_size(packs * FM_PACK_ROWS, BATCH_ROWS);
  size_t n_items = (j.n_rows + j.rows_of_item - 1) / j.rows_of_item;
  fm_parallel(decode_items, &j, n_items, row_work * j.rows_of_item);
}

/* A call of fused_attention_score. Its items are packs of rows of q. */
typedef struct {
  const fm_attention_kernels *kernels;
  fm_softmax_fn *softmax;
  const float *q, *k;
  float *scores;
  size_t n_q, n_k, head_size, n_dims;
  float scale;
  bool causal;
} score_job;

/* Scores up to 4 rows of q with the keys that the last of them sees. */
static void score_rows(const score_job *s, const float *q, float *scores, size_t n_rows,
                       size_t n_seen, fm_attention_scratch *scratch) {
  size_t head_size = s->head_size, n_dims = s->n_dims;
  memset(scratch->q[0], 0, n_dims * FM_PACK_ROWS * sizeof(float));
  for (size_t r = 0; r < n_rows; r++) interleave(scratch->q[0], r, q + r * head_size, head_size);
  for (size_t j = 0, n; j < n_seen; j += n) {
    n = min_size(n_seen - j, FM_SLICE_POSITIONS);
    const float *keys = s->k + j * head_size;
    if (n_dims != head_size) {
      for (size_t i = 0; i < n; i++) {
        memset(scratch->k + i * n_dims, 0, n_dims * sizeof(float));
        memcpy(scratch->k + i * n_dims, keys + i * head_size, head_size * sizeof(float));
      }
      keys = scratch->k;
    }
    fm_kv_slice slice = {.start = (const uint8_t *)keys, .n_positions = n, .is_shared = true};
    slice.stride = n_dims * sizeof(float);
    s->kernels->score(&slice, scratch->q[0], n_dims, scratch->scores);
    for (size_t r = 0; r < n_rows; r++) {
      for (size_t i = 0; i < n; i++) scores[r * s->n_k + j + i] = scratch->scores[i][r] * s->scale;
    }
  }
}

static void score_items(const void *context, size_t begin, size_t end, size_t thread) {
  const score_job *s = context;
  for (size_t first = begin * FM_PACK_ROWS; first < min_size(end * FM_PACK_ROWS, s->n_q);
       first += FM_PACK_ROWS) {
    size_t n_rows = min_size(s->n_q - first, FM_PACK_ROWS), n_k = s->n_k, seen[FM_PACK_ROWS];
    for (size_t r = 0; r < n_rows; r++) {
      size_t hidden =
          s->causal ? s->n_q - 1 - first - r : 0; /* keys after the last one that the row sees */
      seen[r] = hidden < n_k ? n_k - hidden : 0;
    }
    float *rows = s->scores + first * n_k;
    score_rows(s, s->q + first * s->head_size, rows, n_rows, seen[n_rows - 1],
               &fm_scratch_of(thread)->attention);
    for (size_t r = 0; r < n_rows; r++) {
      if (seen[r] > 0) s->softmax(rows + r * n_k, rows + r * n_k, seen[r]);
      memset(rows + r * n_k + seen[r], 0, (n_k - seen[r]) * sizeof *rows);
    }
  }
}

void fm_op_attention_score(const float *q, const float *k, float *scores, size_t n_q, size_t n_k,
                           size_t head_size, float scale, bool causal) {
  int32_t isa = fm_current.isa;
  const score_job s = {.kernels = kernels_of(isa),
                       .softmax = fm_shared_kernels_of(isa)->softmax,
                       .q = q,
                       .k = k,
                       .scores = scores,
                       .n_q = n_q,
                       .n_k = n_k,
                       .head_size = head_size,
                       .n_dims = (head_size + 7) & ~(size_t)7,
                       .scale = scale,
                       .causal = causal};
  fm_work work = (fm_work)FM_PACK_ROWS * n_k * (FM_WORK_F32 * s.n_dims + FM_WORK_EXP);
  if (isa == FM_ISA_SCALAR) work *= FM_WORK_SCALAR;
  fm_parallel(score_items, &s, (n_q + FM_PACK_ROWS - 1) / FM_PACK_ROWS, work);
}
