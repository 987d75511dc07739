/* Declarations that the fuzz targets share. A target reads arguments from the fuzzer's bytes, lays
 * its operands into the arena, and says by the contract in fused.h which statuses the arguments
 * deserve; fuzz_run() then calls the export and checks
 *
 *   - the status is FM_OK exactly where nothing is wrong, else one of those that are deserved; -
 *   not a byte of the arena changed, but those of outputs, and those only after FM_OK; - nothing
 *   was read but operands: the rest of the arena is poisoned for AddressSanitizer (to 8 bytes at an
 *   operand's start); - outputs do not depend on what they held before: a second call over other
 *   bytes gives the same bits.
 *
 * The exports take the arena for their heap: FM_FUZZ in src/checks.h. */
#ifndef FM_FUZZ_H
#define FM_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fused.h"

#define FUZZ_MAX_OPERANDS 16

typedef enum {
  FUZZ_IN,
  FUZZ_OUT
} fuzz_role;

typedef struct {
  uintptr_t at;
  size_t bytes;
  size_t written_from, written_bytes; /* of an output: what the export writes */
  uintptr_t alignment;
  fuzz_role role;
  bool absent;     /* NULL where that is allowed */
  uint32_t shares; /* inputs (1 << operand) that this output may start together with, as in y = x */
} fuzz_operand;

typedef struct {
  const uint8_t *data;
  size_t n_data;
  unsigned n_wrong; /* how many arguments may still be wrong */
  uint64_t random_state;
  uintptr_t cursor; /* where the arena is free */
  uint32_t faults;  /* 1 << fm_status */
  unsigned n_operands;
  fuzz_operand operands[FUZZ_MAX_OPERANDS];
} fuzz;

/* ---- from the fuzzer's bytes; 0 where they have ended ---- */
uint8_t fuzz_u8(fuzz *f);
uint32_t fuzz_u32(fuzz *f);
uint32_t fuzz_below(fuzz *f, uint32_t n); /* 0 .. n - 1 */
bool fuzz_rarely(fuzz *f);                /* one in 4, as long as arguments may be wrong */

/* 1 .. most; where arguments may be wrong also 0 and numbers whose products wrap around. */
uint32_t fuzz_dimension(fuzz *f, uint32_t most);
/* A type that there is, or any number. */
int32_t fuzz_type(fuzz *f);
/* As many columns as n_blocks of the type, or, rarely, others. */
uint32_t fuzz_columns(fuzz *f, int32_t type, uint32_t most_values);
/* 0 .. last, or any number. */
int32_t fuzz_enum(fuzz *f, int32_t last);
/* An fm_activation, with FM_ALONE or without, or rarely another number, which is a fault. */
int32_t fuzz_activation(fuzz *f);
/* Ordinary parameters (eps, scale, base), limits, NaN, Inf. */
float fuzz_parameter(fuzz *f);

/* ---- operands ---- */

/* a * b * c bytes; notes FM_ERR_SHAPE where a factor is 0 or the product is over the address
 * space. */
size_t fuzz_bytes(fuzz *f, uint64_t a, uint64_t b, uint64_t c);
/* Bytes of a weight [n_rows][n_cols]; notes FM_ERR_TYPE or FM_ERR_SHAPE. */
size_t fuzz_weight_bytes(fuzz *f, int32_t type, uint32_t n_rows, uint32_t n_cols);
/* The alignment of a weight's pointer; 1 where there is no such type. */
static inline uintptr_t fuzz_alignment(int32_t type) {
  uintptr_t alignment = fm_type_alignment(type);
  return alignment == 0 ? 1 : alignment;
}
static inline void fuzz_fault(fuzz *f, bool is_wrong, fm_status status) {
  if (is_wrong) f->faults |= 1u << status;
}

/* Places an operand: as a rule where the arena is free, else misaligned, outside, at an end, over
 * another one. */
void *fuzz_place(fuzz *f, fuzz_role role, size_t bytes, uintptr_t alignment);
/* The same, or NULL, which is allowed. */
void *fuzz_place_optional(fuzz *f, size_t bytes, uintptr_t alignment);
/* The last operand's number. */
static inline unsigned fuzz_last(const fuzz *f) { return f->n_operands - 1; }
/* Notes what is wrong with the last operand's pointer. Whether the memory of a struct can be read
 * depends on it. */
bool fuzz_is_readable(const fuzz *f, unsigned operand);

/* Fills all inputs: the fuzzer's bytes, random bytes, activations of every kind, one byte. */
void fuzz_fill(fuzz *f);
/* Stores a struct where an operand lies, after fuzz_fill; nothing where that is outside the
 * arena. */
void fuzz_store(const fuzz *f, unsigned operand, const void *bytes, size_t n_bytes);
/* Whether [at, at + n_bytes) is in the arena: may be looked at by the harness. */
bool fuzz_in_arena(uintptr_t at, size_t n_bytes);

/* Notes FM_ERR_ALIGN, FM_ERR_RANGE and FM_ERR_OVERLAP, calls, checks. @returns the status */
int32_t fuzz_run(fuzz *f, int32_t (*call)(void *arguments), void *arguments);

/* fm_dequantize_rows into memory of the harness. */
void fuzz_dequantize(int32_t type, const void *w, float *y, uint32_t n_rows, uint32_t n_cols);

/* Stops with a message, as a finding. */
void fuzz_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* ---- targets ---- */
typedef struct {
  const char *name;
  void (*run)(fuzz *f);
} fuzz_target;

extern const fuzz_target fuzz_products[], fuzz_fused[], fuzz_experts[], fuzz_rows[], fuzz_layer[],
    fuzz_attention[], fuzz_recurrent[], fuzz_delta[], fuzz_scan[], fuzz_module[];

#endif
