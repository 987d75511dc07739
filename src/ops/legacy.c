/* The flat 4-bit layout from before Q4_K: 140 bytes per 256 values, value = scale * (code - 8).
 *
 *   bytes 0..11     skipped
 *   bytes 12..139   byte 12 + k = [ code of value 2k + 1 | code of value 2k ],  k = 0..127
 *
 * The scale of a block stands apart, as f32. */
#include "ops/ops.h"

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

void fm_op_matmul_q4_legacy(const uint8_t *w, const float *scales, const float *x, float *y, size_t n_tokens,
                            size_t n_rows, size_t n_cols) {
  size_t n_blocks = n_cols / FM_LEGACY_BLOCK_VALUES;
  for (size_t t = 0; t < n_tokens; t++, x += n_cols, y += n_rows) {
    for (size_t r = 0; r < n_rows; r++) {
      float sum = 0.0f;
      for (size_t b = 0; b < n_blocks; b++) {
        size_t i = r * n_blocks + b;
        sum += scales[i] * dot_block(w + i * FM_LEGACY_BLOCK_BYTES + CODES, x + b * FM_LEGACY_BLOCK_VALUES);
      }
      y[r] = sum;
    }
  }
}
