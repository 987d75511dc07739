#include "kernels/grid.h"

void fm_grid_codes__scalar(uint32_t entry, int n, const uint8_t *values, uint32_t signs,
                           int8_t *code) {
  const int bits = 16 / n;
  for (int j = 0; j < n; j++, entry >>= bits, signs >>= 1) {
    int magnitude = values[entry & ((1u << bits) - 1)];
    code[j] = (int8_t)(signs & 1 ? -magnitude : magnitude);
  }
}

void fm_ternary_codes__scalar(uint32_t entry, int delta_is_negative, int8_t *code) {
  const int delta = delta_is_negative ? -1 : 1;
  for (int j = 0; j < 8; j++, entry >>= 2) code[j] = (int8_t)(8 * ((int)(entry & 3) - 1) + delta);
}
