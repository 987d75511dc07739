#include "formats/traits.h"

#include <stddef.h>

#include "formats/blocks.h"
#include "fused.h"

static const fm_traits rows[] = {
    {FM_TYPE_F32, 1, 4, 4},
    {FM_TYPE_F16, 1, 2, 2},
    {FM_TYPE_Q4_K, 256, sizeof(fm_block_q4_k), 2},
};

const fm_traits *fm_traits_of(int32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].type == type) return &rows[i];
  }
  return NULL;
}
