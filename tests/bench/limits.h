/* A limit: how many of one instruction an engine gets out of a core when nothing but registers is
 * involved.
 *
 * N_CHAINS independent sums hide the latency and leave four of 16 registers to the operands; each
 * result is the next operand of its chain, so that no compiler can move an instruction out of the
 * loop. All values come from memory and go back there. */
#ifndef FM_BENCH_LIMITS_H
#define FM_BENCH_LIMITS_H

#include "kernels/v128.h"

#define N_CHAINS 12
#define EXPORT __attribute__((visibility("default"), used))

/* In every lane of the operands: 0.5 and 1 as f32, so that s * w + c stays finite; any integers
 * do. */
static uint32_t limit_data[2 + N_CHAINS][4] = {{0x3f000000, 0x3f000000, 0x3f000000, 0x3f000000},
                                               {0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000}};

/* name(loops): loops * N_CHAINS times the expression of the sum s and the held operands w and c. */
#define LIMIT(name, expression)                                                                    \
  EXPORT void name(uint32_t loops) {                                                               \
    uint8_t *data = (uint8_t *)limit_data;                                                         \
    __asm__("" : "+r"(data)::"memory");                                                            \
    v128_t w = wasm_v128_load(data), c = wasm_v128_load(data + 16), sum[N_CHAINS];                 \
    (void)c;                                                                                       \
    FM_UNROLL                                                                                      \
    for (size_t i = 0; i < N_CHAINS; i++) sum[i] = wasm_v128_load(data + 32 + 16 * i);             \
    FM_NO_UNROLL                                                                                   \
    for (; loops > 0; loops--) {                                                                   \
      FM_UNROLL                                                                                    \
      for (size_t i = 0; i < N_CHAINS; i++) {                                                      \
        v128_t s = sum[i];                                                                         \
        sum[i] = (expression);                                                                     \
      }                                                                                            \
    }                                                                                              \
    FM_UNROLL                                                                                      \
    for (size_t i = 0; i < N_CHAINS; i++) wasm_v128_store(data + 32 + 16 * i, sum[i]);             \
  }

#endif
