/* The flat 4-bit layout from before Q4_K: 140 bytes per 256 values, value = scale * (code - 8).
 *
 *   bytes 0..11     skipped
 *   bytes 12..139   byte 12 + k = [ code of value 2k + 1 | code of value 2k ],  k = 0..127
 *
 * The scales are f32, in an array of their own. */
#include "ops/ops.h"
#include "threads/threads.h"

#define CODES (FM_LEGACY_BLOCK_BYTES - FM_LEGACY_BLOCK_VALUES / 2)
#define OFFSET 8

static float dot_block(const uint8_t *codes, const float *x) {
  float even = 0.0f, odd = 0.0f;
  for (size_t k = 0; k < FM_LEGACY_BLOCK_VALUES / 2; k++) {
    even += x[2 * k] * (float)((codes[k] & 15) - OFFSET);
    odd += x[2 * k + 1] * (float)((codes[k] >> 4) - OFFSET);
  }
  return even + odd;
}

typedef struct {
  const uint8_t *w;
  const float *scales, *x;
  float *y;
  size_t n_tokens, n_rows, n_blocks; /* n_blocks: blocks of a row */
} legacy_job;

static void legacy_rows(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const legacy_job *j = context;
  for (size_t t = 0; t < j->n_tokens; t++) {
    const float *x = j->x + t * j->n_blocks * FM_LEGACY_BLOCK_VALUES;
    for (size_t r = begin; r < end; r++) {
      float sum = 0.0f;
      for (size_t b = 0; b < j->n_blocks; b++) {
        size_t i = r * j->n_blocks + b;
        const uint8_t *codes = j->w + i * FM_LEGACY_BLOCK_BYTES + CODES;
        sum += j->scales[i] * dot_block(codes, x + b * FM_LEGACY_BLOCK_VALUES);
      }
      j->y[t * j->n_rows + r] = sum;
    }
  }
}

void fm_op_matmul_q4_legacy(const uint8_t *w, const float *scales, const float *x, float *y,
                            size_t n_tokens, size_t n_rows, size_t n_cols) {
  const legacy_job j = {w, scales, x, y, n_tokens, n_rows, n_cols / FM_LEGACY_BLOCK_VALUES};
  fm_parallel(legacy_rows, &j, n_rows, (fm_work)n_tokens * n_cols * FM_WORK_SCALAR);
}
