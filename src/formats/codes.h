/* A decoded block, which every scalar decoder produces and every scalar kernel consumes.
 *
 *   value[i] = scale[i / 16] * code[i] - min[i / 16]
 *
 * evaluated in f32 in that order, which is bit for bit what ggml computes for every type of the
 * table. */
#ifndef FM_FORMATS_CODES_H
#define FM_FORMATS_CODES_H

#include <stdint.h>

#define FM_MAX_BLOCK_VALUES 256
#define FM_CODES_SUB                                                                               \
  16 /* values that share a scale here; a type with larger sub-blocks repeats it */

typedef struct {
  int8_t code[FM_MAX_BLOCK_VALUES];
  float scale[FM_MAX_BLOCK_VALUES / FM_CODES_SUB];
  float min[FM_MAX_BLOCK_VALUES / FM_CODES_SUB];
} fm_codes;

/* Sets one scale and min for n_values values from `first` on; both are multiples of
 * FM_CODES_SUB. */
static inline void fm_codes_set_scale(fm_codes *out, int first, int n_values, float scale,
                                      float min) {
  for (int sub = first / FM_CODES_SUB; sub < (first + n_values) / FM_CODES_SUB; sub++) {
    out->scale[sub] = scale;
    out->min[sub] = min;
  }
}

#endif
