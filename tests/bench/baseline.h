/* The loops over tokens, rows and groups that the opponents of the benchmark share. */
#ifndef FM_BENCH_BASELINE_H
#define FM_BENCH_BASELINE_H

#include <stddef.h>

#include "kernels/activations.h"

#define EXPORT __attribute__((visibility("default"), used))

/* value_of(b, a): the product of a row's group, blocks_per_group blocks from b on, with the
 * activations a of one token's 256 columns. */
#define BASELINE(type, blocks_per_group, value_of)                                                 \
  EXPORT void bl_matmul_##type(const fm_block_##type *w, const fm_act_i8 *act, float *y,           \
                               size_t n_tokens, size_t n_rows, size_t n_cols) {                    \
    size_t n_groups = n_cols / 256;                                                                \
    for (size_t t = 0; t < n_tokens; t++) {                                                        \
      for (size_t r = 0; r < n_rows; r++) {                                                        \
        const fm_block_##type *b = w + r * n_groups * (blocks_per_group);                          \
        const fm_act_i8 *a = act + t * n_groups;                                                   \
        float total = 0.0f;                                                                        \
        for (size_t i = 0; i < n_groups; i++, b += (blocks_per_group), a++)                        \
          total += value_of(b, a);                                                                 \
        y[t * n_rows + r] = total;                                                                 \
      }                                                                                            \
    }                                                                                              \
  }

#endif
