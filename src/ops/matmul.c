/* Y = X * W^T: the choice of a target's kernels, and the loops over token panels, rows and strips.
 * X is made and quantised once per token panel (ops/activations.h), for all targets that get the
 * same activations.
 *
 *   activation f32     2048 columns of a row are dequantised once, 8 KB, and multiplied with all
 *                      tokens
 *   up to 3 tokens     matrix-vector: blocks are decoded in registers, once per token
 *   more tokens        matrix-matrix: 8 rows are decoded into a strip, which all tokens reuse; with
 *                      FM_ALONE matrix-vector, where some types decode a group once for all tokens
 *
 * Sums over panels go through y, so that scratch does not grow with n_cols. A row's result depends
 * neither on the rows beside it nor on the thread that computes it: threads first share the making
 * of activations, then the rows of each target, and its tokens too where rows are few. */
#include "fused.h"
#include "ops/activations.h"
#include "ops/ops.h"
#include "ops/scratch.h"

#define MAX_TARGETS 32 /* targets that share one making of activations */

/* Threads take tokens in multiples of 16, so patches of 8 tokens do not depend on the thread count.
 */
#define SHARE_TOKENS 16

/* A target and everything that the call chooses for it. */
typedef struct {
  const fm_traits *traits;
  const fm_kernels *kernels;
  fm_service service;
  const uint8_t *w;
  float *y;
  size_t n_rows, row_bytes; /* bytes of a row of the whole matrix */
  bool accumulate;          /* y += instead of y = */
  int32_t isa;              /* in use */
  fm_dot_f32_fn *dot_f32;   /* f32 activations; of it, `rows` and `gemm` one is not NULL */
  fm_rows_fn *rows;         /* scalar */
  fm_gemv_fn *gemv;         /* this and the next three: SIMD */
  fm_gemv_many_fn *many;    /* NULL where there is none */
  fm_strip_fn *strip;
  fm_gemm_fn *gemm;
} target;

/* The product of one target with a token panel, or a thread's share of it: some rows and some
 * tokens. */
typedef struct {
  const target *target;
  const fm_activations *acts;
  bool deals;                             /* whether row_dot serves these few tokens */
  const float *dealt[FM_GEMV_MAX_TOKENS]; /* as `deal` orders them; NULL where it refuses one */
  const uint8_t *w;                       /* first row, first block of the panel's columns */
  float *y;                               /* first token, first row */
  size_t first_token, n_tokens, n_rows;
  bool accumulate;
  fm_matmul_scratch *scratch;
} share;

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

fm_service fm_service_of(int32_t isa, const fm_kernels *kernels, int32_t activation) {
  if (!kernels->decode || activation == FM_ACT_F32) {
    return (fm_service){isa > FM_ISA_SIMD128 ? FM_ISA_SIMD128 : isa, FM_ACT_F32};
  }
  if (activation == FM_ACT_INT8 && isa >= FM_ISA_RELAXED && fm_relaxed_is_exact(kernels)) {
    return (fm_service){FM_ISA_RELAXED, kernels->int8};
  }
  if (isa >= FM_ISA_SIMD128 && kernels->simd128) return (fm_service){FM_ISA_SIMD128, FM_ACT_INT16};
  return (fm_service){FM_ISA_SCALAR, activation == FM_ACT_INT8 ? kernels->int8 : activation};
}

static target resolve(const fm_target *asked, fm_dispatch now, size_t n_cols, int32_t activation,
                      bool accumulate) {
  const fm_traits *traits = fm_traits_of(asked->type);
  const fm_kernels *kernels = fm_kernels_of(asked->type);
  target t = {.traits = traits,
              .kernels = kernels,
              .service = fm_service_of(now.isa, kernels, activation),
              .w = asked->w,
              .y = asked->y,
              .n_rows = asked->n_rows,
              .row_bytes = n_cols / traits->block_values * traits->block_bytes,
              .accumulate = accumulate,
              .isa = now.isa};
  const fm_shared_kernels *shared = fm_shared_kernels_of(t.service.isa);
  if (t.service.activation == FM_ACT_F32) {
    t.dot_f32 = shared->dot_f32;
  } else if (t.service.isa == FM_ISA_SCALAR) {
    t.rows = t.service.activation == FM_ACT_INT16 ? fm_rows_i16__scalar : fm_rows_i8__scalar;
  } else if (t.service.activation != FM_ACT_INT16) {
    int32_t dot = kernels->simd128->layout->wide ? FM_DOT_I32 : now.dot;
    t.gemv = kernels->relaxed->gemv_i8[dot];
    t.many = kernels->relaxed->gemv_many_i8[dot];
    t.strip = shared->strip_i8[dot];
    t.gemm = kernels->relaxed->gemm_i8[dot];
  } else {
    t.gemv = kernels->simd128->gemv_i16;
    t.strip = shared->strip_i16;
    t.gemm = shared->gemm_i16;
  }
  return t;
}

/* Bytes from a row's start to a column, a multiple of block_values. */
static size_t bytes_to(const target *t, size_t col) {
  return col / t->traits->block_values * t->traits->block_bytes;
}

/* One row, dequantised piece by piece, with some tokens. */
static void row_f32(const share *s, size_t r, size_t token, size_t n_tokens) {
  const target *t = s->target;
  const uint8_t *w = s->w + r * t->row_bytes;
  size_t n_cols = s->acts->panel.n_cols, x_stride;
  const float *x = fm_activations_floats(s->acts, s->first_token + token, &x_stride);
  float *y = s->y + token * t->n_rows + r;
  if (t->traits->type == FM_TYPE_F32) {
    t->dot_f32((const float *)w, x, y, n_cols, n_tokens, x_stride, t->n_rows, s->accumulate);
    return;
  }
  float *floats = s->scratch->floats;
  for (size_t col = 0; col < n_cols; col += FM_STRIP_COLS) {
    size_t n = min_size(n_cols - col, FM_STRIP_COLS);
    fm_dequantize(t->traits, t->kernels, t->isa, w + bytes_to(t, col), floats, n);
    t->dot_f32(floats, x + col, y, n, n_tokens, x_stride, t->n_rows, s->accumulate || col > 0);
  }
}

/* One row with a dealt token, which leaves no dequantised values; false where that does not serve.
 */
static bool row_dealt(const share *s, size_t r, size_t token) {
  const target *t = s->target;
  const uint8_t *w = s->w + r * t->row_bytes;
  float sum, *y = s->y + token * t->n_rows + r;
  if (!s->dealt[token] || !t->kernels->row_dot(w, s->dealt[token], s->acts->panel.n_cols, &sum))
    return false;
  *y = s->accumulate ? *y + sum : sum;
  return true;
}

static void multiply_f32(const share *s) {
  for (size_t r = 0; r < s->n_rows; r++) {
    if (!s->deals) {
      row_f32(s, r, 0, s->n_tokens);
      continue;
    }
    for (size_t i = 0; i < s->n_tokens; i++) {
      if (!row_dealt(s, r, i)) row_f32(s, r, i, 1);
    }
  }
}

static void multiply_vectors(const share *s) {
  const target *t = s->target;
  size_t n_cols = s->acts->panel.n_cols;
  const uint8_t *end = s->w + (s->n_rows - 1) * t->row_bytes + bytes_to(t, n_cols);
  if (t->many && s->n_tokens > FM_GEMV_MAX_TOKENS) {
    for (size_t i = 0, n; i < s->n_tokens; i += n) {
      n = min_size(s->n_tokens - i, FM_MANY_TOKENS);
      t->many(s->w, t->row_bytes, end, fm_activations_token(s->acts, s->first_token + i),
              s->y + i * t->n_rows, s->n_rows, n_cols, n, t->n_rows, s->accumulate);
    }
    return;
  }
  /* Several tokens take a few rows, which stay in a near cache, before the next ones. */
  size_t most = s->n_tokens > 1 ? FM_STRIP_ROWS : s->n_rows;
  for (size_t r = 0, n_rows; r < s->n_rows; r += n_rows) {
    n_rows = min_size(s->n_rows - r, most);
    for (size_t i = 0; i < s->n_tokens; i++) {
      t->gemv(s->w + r * t->row_bytes, t->row_bytes, end,
              fm_activations_token(s->acts, s->first_token + i), s->y + i * t->n_rows + r, n_rows,
              n_cols, s->accumulate);
    }
  }
}

/* Loads a byte of each cache line of the next strip's rows, which nothing waits for: the caches
 * fetch the lines while the current strip is multiplied. Rows are taken from end to end, or the
 * panel's columns of them. */
static void touch_next_strip(const share *s, size_t r) {
  size_t first = r + FM_STRIP_ROWS, end = min_size(s->n_rows, first + FM_STRIP_ROWS);
  size_t n_bytes = bytes_to(s->target, s->acts->panel.n_cols);
  for (size_t next = first; next < end; next++) {
    const volatile uint8_t *w = s->w + next * s->target->row_bytes;
    for (size_t i = 0; i < n_bytes; i += FM_CACHE_LINE_BYTES) (void)w[i];
  }
}

static void multiply_strips(const share *s) {
  const target *t = s->target;
  const fm_simd128_kernels *type = t->kernels->simd128;
  fm_strip *strip = &s->scratch->strip;
  size_t panel_cols = s->acts->panel.n_cols;
  for (size_t r = 0; r < s->n_rows; r += FM_STRIP_ROWS) {
    size_t n_rows = min_size(s->n_rows - r, FM_STRIP_ROWS);
    for (size_t col = 0; col < panel_cols; col += FM_STRIP_COLS) {
      size_t n_cols = min_size(panel_cols - col, FM_STRIP_COLS);
      const uint8_t *row[FM_STRIP_ROWS], *w = s->w + bytes_to(t, col);
      /* Missing rows repeat the last one; their results are not stored. */
      for (size_t i = 0; i < FM_STRIP_ROWS; i++)
        row[i] = w + (r + min_size(i, n_rows - 1)) * t->row_bytes;
      t->strip(type, row, n_cols, strip);
      if (col + n_cols == panel_cols) touch_next_strip(s, r);
      t->gemm(type->layout, strip, fm_activations_tiles(s->acts, s->first_token, col, n_cols),
              s->y + r, fm_act_blocks(n_cols), s->n_tokens, t->n_rows, n_rows,
              s->accumulate || col > 0);
    }
  }
}

static void multiply(const share *s) {
  const target *t = s->target;
  if (t->dot_f32) {
    multiply_f32(s);
  } else if (t->rows) {
    t->rows(t->traits, t->kernels->decode, s->w, t->row_bytes,
            fm_activations_token(s->acts, s->first_token), s->y, s->n_rows, s->acts->panel.n_cols,
            s->n_tokens, t->n_rows, s->accumulate);
  } else if (s->acts->panel.order == FM_ORDER_TILES) {
    multiply_strips(s);
  } else {
    multiply_vectors(s);
  }
}

/* An item is a strip of rows with the tokens of one share: all strips with the first share, then
 * all with the next. */
typedef struct {
  const share *whole;
  size_t n_strips, share_tokens;
} share_job;

static void multiply_items(const void *context, size_t begin, size_t end, size_t thread) {
  const share_job *j = context;
  const share *whole = j->whole;
  for (size_t i = begin, last; i < end; i = last) {
    size_t n_before = i / j->n_strips, first_token = n_before * j->share_tokens;
    size_t first_row = (i - n_before * j->n_strips) * FM_STRIP_ROWS;
    last = min_size(end, (n_before + 1) * j->n_strips);
    share s = *whole;
    s.w += first_row * s.target->row_bytes;
    s.y += first_token * s.target->n_rows + first_row;
    s.first_token = first_token;
    s.n_rows = min_size((last - i) * FM_STRIP_ROWS, whole->n_rows - first_row);
    s.n_tokens = min_size(j->share_tokens, whole->n_tokens - first_token);
    s.scratch = &fm_scratch_of(thread)->matmul;
    multiply(&s);
  }
}

/* Multiplies one target with the panel. Threads share tokens too where there are few strips. */
static void multiply_target(const target *t, const fm_activations *a) {
  share whole = {.target = t,
                 .acts = a,
                 .w = t->w + bytes_to(t, a->panel.first_col),
                 .y = t->y + a->panel.first_token * t->n_rows,
                 .n_tokens = a->panel.n_tokens,
                 .n_rows = t->n_rows,
                 .accumulate = t->accumulate || a->panel.first_col > 0};
  if (t->dot_f32 && t->isa >= FM_ISA_SIMD128 && t->kernels->deal) {
    whole.deals = fm_activations_dealt(a, t->kernels->deal, whole.dealt);
  }
  size_t n_tokens = a->panel.n_tokens;
  share_job j = {&whole, (t->n_rows + FM_STRIP_ROWS - 1) / FM_STRIP_ROWS, n_tokens};
  size_t n_threads = fm_threads_in_use(), wanted = 4 * n_threads / j.n_strips,
         most = n_tokens / SHARE_TOKENS;
  size_t n_shares = n_threads > 1 ? min_size(wanted, most) : 0;
  if (n_shares > 1) {
    size_t tokens = (n_tokens + n_shares - 1) / n_shares;
    j.share_tokens = (tokens + SHARE_TOKENS - 1) / SHARE_TOKENS * SHARE_TOKENS;
  }
  n_shares = (n_tokens + j.share_tokens - 1) / j.share_tokens;
  fm_work work = FM_STRIP_ROWS * a->panel.n_cols * j.share_tokens;
  if (t->isa == FM_ISA_SCALAR) work *= FM_WORK_SCALAR;
  if (t->dot_f32) work *= FM_WORK_F32;
  fm_parallel(multiply_items, &j, j.n_strips * n_shares, work);
}

/* Multiplies all targets whose kernels get these activations, panel after panel. */
static void multiply_targets(const target *targets, size_t n_targets, fm_activations *a) {
  for (size_t token = 0; token < a->n_tokens; token += a->max_tokens) {
    fm_activations_begin(a, token);
    for (size_t col = 0; col < a->n_cols; col += a->max_cols) {
      fm_activations_make(a, col);
      for (size_t i = 0; i < n_targets; i++) {
        if (targets[i].service.activation == a->activation) multiply_target(&targets[i], a);
      }
    }
  }
}

void fm_op_matmul(const fm_target *targets, size_t n_targets, const fm_source *source,
                  size_t n_tokens, size_t n_cols, int32_t activation, bool accumulate) {
  const fm_dispatch now = fm_current;
  bool alone = (activation & FM_ALONE) && n_tokens > 1;
  activation &= ~FM_ALONE;
  for (size_t first = 0, n; first < n_targets; first += n) {
    n = min_size(n_targets - first, MAX_TARGETS);
    target resolved[MAX_TARGETS];
    bool needed[FM_ACT_FORMS] = {false};
    for (size_t i = 0; i < n; i++) {
      resolved[i] = resolve(&targets[first + i], now, n_cols, activation, accumulate);
      needed[resolved[i].service.activation] = true;
    }
    for (int32_t served = FM_ACT_F32; served < FM_ACT_FORMS; served++) {
      if (!needed[served]) continue;
      fm_activations a;
      fm_activations_init(&a, source, n_tokens, n_cols, now.isa, served, alone);
      multiply_targets(resolved, n, &a);
    }
  }
}
