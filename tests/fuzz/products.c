/* fused_matmul and the layout from before Q4_K. */
#include "fuzz.h"

typedef struct {
  int32_t type, activation;
  const void *w;
  const float *scales, *x;
  float *y;
  uint32_t n_tokens, n_rows, n_cols;
} arguments;

/* Mostly a few; now and then more than a block of 128. */
static uint32_t some_tokens(fuzz *f) {
  return fuzz_u8(f) >= 254 ? 126 + fuzz_below(f, 8) : fuzz_dimension(f, 9);
}

static int32_t call_matmul(void *p) {
  arguments *a = p;
  return fused_matmul(a->type, a->w, a->x, a->y, a->n_tokens, a->n_rows, a->n_cols, a->activation);
}

static void run_matmul(fuzz *f) {
  arguments a = {.type = fuzz_type(f)};
  a.activation = fuzz_activation(f);
  a.n_tokens = some_tokens(f);
  a.n_rows = fuzz_dimension(f, 10);
  a.n_cols = fuzz_columns(f, a.type, a.n_tokens <= 9 && fuzz_u8(f) >= 250 ? 2600 : 256);
  a.w = fuzz_place(f, FUZZ_IN, fuzz_weight_bytes(f, a.type, a.n_rows, a.n_cols),
                   fuzz_alignment(a.type));
  a.x = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_tokens, a.n_cols, sizeof *a.x), 4);
  a.y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_tokens, a.n_rows, sizeof *a.y), 4);
  fuzz_fill(f);
  fuzz_run(f, call_matmul, &a);
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static int32_t call_legacy(void *p) {
  arguments *a = p;
  return fused_dequant_matmul_q4k_legacy(a->w, a->scales, a->x, a->y, a->n_tokens, a->n_rows,
                                         a->n_cols);
}

static void run_legacy(fuzz *f) {
  enum {
    BLOCK_VALUES = 256,
    BLOCK_BYTES = 140
  };
  arguments a = {.n_tokens = fuzz_dimension(f, 6), .n_rows = fuzz_dimension(f, 6)};
  a.n_cols = fuzz_columns(f, FM_TYPE_Q4_K, 1024);
  fuzz_fault(f, a.n_cols % BLOCK_VALUES != 0, FM_ERR_SHAPE);
  a.w = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_rows, a.n_cols / BLOCK_VALUES, BLOCK_BYTES), 1);
  a.scales =
      fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_rows, a.n_cols / BLOCK_VALUES, sizeof *a.scales), 4);
  a.x = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_tokens, a.n_cols, sizeof *a.x), 4);
  a.y = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_tokens, a.n_rows, sizeof *a.y), 4);
  fuzz_fill(f);
  fuzz_run(f, call_legacy, &a);
}

const fuzz_target fuzz_products[] = {
    {"fused_matmul", run_matmul}, {"fused_dequant_matmul_q4k_legacy", run_legacy}, {NULL, NULL}};
