/* Declarations that the native tests share. */
#ifndef FM_NATIVE_TESTS_H
#define FM_NATIVE_TESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Counts; prints the first failures. */
void check(bool ok, const char *format, ...);

uint32_t random_u32(void);
uint32_t random_between(uint32_t low, uint32_t high);
void fill_random(uint8_t *bytes, size_t n_bytes);

/* Activations of every kind: ordinary, zero, subnormal, the largest, and (where allowed) Inf and
 * NaN. */
float random_activation(bool finite);

void *must_malloc(size_t bytes);

void test_fused(void);
void test_attention(void);
void test_delta(void);
void test_layer(void);
void test_scan(void);

#endif
