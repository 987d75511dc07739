#include "formats/traits.h"

#include <stddef.h>

#include "formats/blocks.h"
#include "fused.h"

#define ROW(kind, TYPE, name, number, block_values)                                                \
  {FM_TYPE_##TYPE, block_values, sizeof(fm_block_##name), _Alignof(fm_block_##name)},
static const fm_traits rows[] = {FM_TYPES(ROW)};

const fm_traits *fm_traits_of(int32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].type == type) return &rows[i];
  }
  return NULL;
}
