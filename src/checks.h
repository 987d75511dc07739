/* Argument checks for the exports: spans of bytes, alignment, the heap, overlap. Only exports*.c
 * include this header. */
#ifndef FM_CHECKS_H
#define FM_CHECKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/traits.h"
#include "fused.h"

#ifdef __wasm__
#define EXPORT __attribute__((visibility("default"), used))
extern unsigned char __heap_base;
static inline uint64_t heap_start(void) { return (uintptr_t)&__heap_base; }
static inline uint64_t heap_end(void) { return (uint64_t)__builtin_wasm_memory_size(0) << 16; }
#elif defined(FM_FUZZ) /* tests/fuzz: a heap whose bounds the harness knows */
#define EXPORT
extern uint64_t fm_fuzz_heap_start, fm_fuzz_heap_end;
static inline uint64_t heap_start(void) { return fm_fuzz_heap_start; }
static inline uint64_t heap_end(void) { return fm_fuzz_heap_end; }
#else
#define EXPORT
static inline uint64_t heap_start(void) { return 1; }
static inline uint64_t heap_end(void) { return UINTPTR_MAX; }
#endif

/* The bytes that an argument spans. 64 bits suffice: see product(). */
typedef struct {
  uint64_t start, bytes;
} span;

static inline bool in_heap(span s) {
  return s.start >= heap_start() && s.start <= heap_end() && s.bytes <= heap_end() - s.start;
}

static inline bool overlap(span a, span b) {
  return a.start < b.start + b.bytes && b.start < a.start + a.bytes;
}

/* Whether no two of the outputs overlap, nor one of them and an input. */
static inline bool are_apart(const span *outputs, int n_outputs, const span *inputs, int n_inputs) {
  for (int i = 0; i < n_outputs; i++) {
    for (int k = 0; k < n_inputs; k++) {
      if (overlap(outputs[i], inputs[k])) return false;
    }
    for (int k = 0; k < i; k++) {
      if (overlap(outputs[i], outputs[k])) return false;
    }
  }
  return true;
}

/* Whether it is an fm_activation, with FM_ALONE or without. */
static inline bool is_activation(int32_t activation) {
  int32_t mode = activation & ~FM_ALONE;
  return mode >= FM_ACT_F32 && mode <= FM_ACT_INT8;
}

static inline bool is_aligned(const void *p, uintptr_t alignment) {
  return ((uintptr_t)p & (alignment - 1)) == 0;
}

/* *bytes = a * b * unit; false where that is more than an address can name. a, b < 2^32, unit <=
 * 2^9. With 64-bit addresses the limit is that of the largest unit, whatever the unit: compilers
 * make a 128-bit multiplication of a division. */
static inline bool product(uint64_t a, uint64_t b, uint64_t unit, uint64_t *bytes) {
  uint64_t count = a * b;
  if (count > (sizeof(size_t) > 4 ? SIZE_MAX >> 9 : SIZE_MAX / unit)) return false;
  *bytes = count * unit;
  return true;
}

/* The shape of W, and the bytes it spans. */
static inline int32_t check_weights(const fm_traits *traits, const void *w, uint32_t n_rows,
                                    uint32_t n_cols, span *out) {
  if (!traits) return FM_ERR_TYPE;
  if (n_rows == 0 || n_cols == 0 || n_cols % traits->block_values != 0) return FM_ERR_SHAPE;
  if (!product(n_rows, n_cols / traits->block_values, traits->block_bytes, &out->bytes))
    return FM_ERR_SHAPE;
  out->start = (uintptr_t)w;
  return FM_OK;
}

#endif
