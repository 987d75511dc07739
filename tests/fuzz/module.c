/* The exports without operands: facts of types, memory, dispatch. */
#include <string.h>

#include "fuzz.h"

#define MAX_TYPE 256
#define N_SLOTS 8

/* fm_type_block_values, fm_type_block_bytes, fm_type_alignment, fm_served_by */
static void run_types(fuzz *f) {
  do {
    int32_t type = fuzz_u8(f) < 200 ? (int32_t)fuzz_u8(f) : (int32_t)fuzz_u32(f);
    int32_t activation = fuzz_u8(f) < 200 ? (int32_t)fuzz_below(f, 4) : (int32_t)fuzz_u32(f);
    uint32_t values = fm_type_block_values(type), bytes = fm_type_block_bytes(type),
             alignment = fm_type_alignment(type);
    int32_t served = fm_served_by(type, activation);
    bool is_known = values != 0;
    if ((bytes != 0) != is_known || (alignment != 0) != is_known)
      fuzz_fail("type %d is half known", type);
    if (is_known && (type < 0 || type >= MAX_TYPE || bytes % alignment != 0))
      fuzz_fail("type %d", type);
    bool is_mode = activation >= FM_ACT_F32 && activation <= FM_ACT_INT8;
    if ((served >= 0) != (is_known && is_mode))
      fuzz_fail("type %d, activation %d: served %d", type, activation, served);
  } while (f->n_data > 0);
}

/* fm_isa, fm_select, fm_version */
static void run_select(fuzz *f) {
  do {
    int32_t isa = fuzz_u8(f) < 200 ? (int32_t)fuzz_below(f, 4) : (int32_t)fuzz_u32(f);
    int32_t dot = fuzz_u8(f) < 200 ? (int32_t)fuzz_below(f, 3) : (int32_t)fuzz_u32(f);
    bool is_held = isa == FM_ISA_SCALAR && (dot == FM_DOT_I16 || dot == FM_DOT_I32);
    if (fm_select(isa, dot) != (is_held ? FM_OK : FM_ERR_ISA))
      fuzz_fail("fm_select(%d, %d)", isa, dot);
    if (fm_isa() != FM_ISA_SCALAR) fuzz_fail("instruction set %d", fm_isa());
    if (fm_version() >> 24 != 0) fuzz_fail("version %x", fm_version());
  } while (f->n_data > 0);
}

/* fm_alloc, fm_free: what is held keeps its bytes; sizes that cannot be had give NULL. */
static void run_alloc(fuzz *f) {
  struct {
    uint8_t *p;
    size_t bytes;
    uint8_t mark;
  } slots[N_SLOTS] = {0};
  for (unsigned step = 0; step < 64 && (step == 0 || f->n_data > 0); step++) {
    unsigned slot = fuzz_below(f, N_SLOTS);
    uint8_t *p = slots[slot].p;
    if (p) {
      if (p[0] != slots[slot].mark || memcmp(p, p + 1, slots[slot].bytes - 1) != 0)
        fuzz_fail("an allocation of %zu bytes changed", slots[slot].bytes);
      fm_free(p);
      slots[slot].p = NULL;
      continue;
    }
    bool is_impossible = fuzz_rarely(f);
    size_t bytes =
        is_impossible ? SIZE_MAX - fuzz_u32(f) % 0x20000 : fuzz_u32(f) >> (16 + fuzz_below(f, 16));
    p = fm_alloc(bytes);
    if ((is_impossible || bytes == 0) && p) fuzz_fail("fm_alloc(%zu) gave memory", bytes);
    if (bytes == 0 || is_impossible) continue;
    if (!p || (uintptr_t)p % 64 != 0) fuzz_fail("fm_alloc(%zu) = %p", bytes, (void *)p);
    slots[slot].mark = (uint8_t)step;
    slots[slot].bytes = bytes;
    slots[slot].p = memset(p, slots[slot].mark, bytes);
  }
  for (unsigned slot = 0; slot < N_SLOTS; slot++) fm_free(slots[slot].p);
  fm_free(NULL);
}

const fuzz_target fuzz_module[] = {
    {"fm_served_by", run_types}, {"fm_select", run_select}, {"fm_alloc", run_alloc}, {NULL, NULL}};
