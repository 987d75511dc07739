/* Operations on rows of blocks: dequantise, quantise, embed, write to a cache. */
#include <math.h>
#include <stdlib.h>

#include "fuzz.h"

typedef struct {
  int32_t type;
  const void *w;
  void *blocks;
  const float *x;
  const uint32_t *ids;
  float *y;
  uint32_t n_tokens, n_rows, n_cols, position;
} arguments;

static int32_t call_dequantize(void *p) {
  arguments *a = p;
  return fm_dequantize_rows(a->type, a->w, a->y, a->n_rows, a->n_cols);
}

static void run_dequantize(fuzz *f) {
  arguments a = {.type = fuzz_type(f), .n_rows = fuzz_dimension(f, 5)};
  a.n_cols = fuzz_columns(f, a.type, 1024);
  a.w = fuzz_place(f, FUZZ_IN, fuzz_weight_bytes(f, a.type, a.n_rows, a.n_cols),
                   fuzz_alignment(a.type));
  a.y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_rows, a.n_cols, sizeof *a.y), 4);
  fuzz_fill(f);
  fuzz_run(f, call_dequantize, &a);
}

static int32_t call_quantize(void *p) {
  arguments *a = p;
  return fm_quantize_rows(a->type, a->x, a->blocks, a->n_rows, a->n_cols);
}

static bool can_quantize_to(int32_t type) {
  static const int32_t known[] = {FM_TYPE_Q4_0, FM_TYPE_Q4_1, FM_TYPE_Q5_0, FM_TYPE_Q5_1,
                                  FM_TYPE_Q8_0, FM_TYPE_Q4_K, FM_TYPE_Q5_K, FM_TYPE_Q6_K};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    if (type == known[i]) return true;
  }
  return false;
}

static void run_quantize(fuzz *f) {
  arguments a = {.type = fuzz_type(f), .n_rows = fuzz_dimension(f, 3)};
  fuzz_fault(f, !can_quantize_to(a.type), FM_ERR_TYPE);
  a.n_cols = fuzz_columns(f, a.type, 256);
  a.x = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_rows, a.n_cols, sizeof *a.x), 4);
  size_t bytes = fuzz_weight_bytes(f, a.type, a.n_rows, a.n_cols);
  a.blocks = fuzz_place(f, FUZZ_OUT, bytes, fuzz_alignment(a.type));
  fuzz_fill(f);
  if (fuzz_run(f, call_quantize, &a) != FM_OK) return;
  size_t n_values = (size_t)a.n_rows * a.n_cols;
  float *back = malloc(n_values * sizeof *back);
  if (!back) return;
  fuzz_dequantize(a.type, a.blocks, back, a.n_rows, a.n_cols);
  for (size_t i = 0; i < n_values; i++) {
    if (!isfinite(back[i]))
      fuzz_fail("type %d: %g became %g", a.type, (double)a.x[i], (double)back[i]);
  }
  free(back);
}

static int32_t call_embed(void *p) {
  arguments *a = p;
  return fm_embed(a->type, a->w, a->ids, a->y, a->n_tokens, a->n_rows, a->n_cols);
}

static void run_embed(fuzz *f) {
  enum {
    MAX_TOKENS = 9
  };
  arguments a = {.type = fuzz_type(f),
                 .n_tokens = fuzz_dimension(f, MAX_TOKENS),
                 .n_rows = fuzz_dimension(f, 7)};
  a.n_cols = fuzz_columns(f, a.type, 512);
  a.w = fuzz_place(f, FUZZ_IN, fuzz_weight_bytes(f, a.type, a.n_rows, a.n_cols),
                   fuzz_alignment(a.type));
  a.ids = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_tokens, 1, sizeof *a.ids), 4);
  unsigned at_ids = fuzz_last(f);
  a.y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_tokens, a.n_cols, sizeof *a.y), 4);
  fuzz_fill(f);
  if (a.n_tokens <= MAX_TOKENS) {
    uint32_t ids[MAX_TOKENS];
    for (uint32_t t = 0; t < a.n_tokens; t++) {
      ids[t] = fuzz_rarely(f) ? fuzz_u32(f) : a.n_rows == 0 ? 0 : fuzz_below(f, a.n_rows);
    }
    fuzz_store(f, at_ids, ids, a.n_tokens * sizeof *ids);
  }
  for (uint32_t t = 0; fuzz_is_readable(f, at_ids) && t < a.n_tokens; t++) {
    fuzz_fault(f, a.ids[t] >= a.n_rows, FM_ERR_RANGE);
  }
  fuzz_run(f, call_embed, &a);
}

static int32_t call_kv_write(void *p) {
  arguments *a = p;
  return fm_kv_write(a->type, a->blocks, a->x, a->n_tokens, a->n_cols, a->position, a->n_rows);
}

static void run_kv_write(fuzz *f) {
  static const int32_t kinds[] = {FM_KV_F32, FM_KV_F16, FM_KV_Q8_0};
  arguments a = {.type = fuzz_rarely(f) ? fuzz_type(f) : kinds[fuzz_below(f, 3)]};
  bool is_known = a.type == FM_KV_F32 || a.type == FM_KV_F16 || a.type == FM_KV_Q8_0;
  fuzz_fault(f, !is_known, FM_ERR_TYPE);
  a.n_rows = fuzz_dimension(f, 12);
  a.position = fuzz_rarely(f) ? fuzz_u32(f) : fuzz_below(f, a.n_rows == 0 ? 1 : a.n_rows);
  a.n_tokens = a.position < a.n_rows && !fuzz_rarely(f) ? 1 + fuzz_below(f, a.n_rows - a.position)
                                                        : fuzz_dimension(f, 4);
  a.n_cols = fuzz_columns(f, a.type, 256);
  fuzz_fault(f, a.position > a.n_rows || a.n_tokens > a.n_rows - a.position, FM_ERR_RANGE);
  size_t bytes = fuzz_weight_bytes(f, a.type, a.n_rows, a.n_cols);
  a.x = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_tokens, a.n_cols, sizeof *a.x), 4);
  a.blocks = fuzz_place(f, FUZZ_OUT, bytes, fuzz_alignment(a.type));
  if (f->faults == 0) {
    fuzz_operand *cache = &f->operands[fuzz_last(f)];
    cache->written_from = bytes / a.n_rows * a.position;
    cache->written_bytes = bytes / a.n_rows * a.n_tokens;
  }
  fuzz_fill(f);
  fuzz_run(f, call_kv_write, &a);
}

const fuzz_target fuzz_rows[] = {{"fm_dequantize_rows", run_dequantize},
                                 {"fm_quantize_rows", run_quantize},
                                 {"fm_embed", run_embed},
                                 {"fm_kv_write", run_kv_write},
                                 {NULL, NULL}};
