/* The fuzzer's entry, the arena, and the judgement of a call; see fuzz.h. */
#include "fuzz.h"

#include <math.h>
#include <sanitizer/asan_interface.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BYTES (256u << 10)
#define MARGIN 4096u /* of the arena, at either end, outside the heap */
#define CANARY 0xff  /* NaN as f16, bf16 and f32 */

static _Alignas(4096) uint8_t arena[ARENA_BYTES];
static uint8_t before[ARENA_BYTES], first[ARENA_BYTES];
static size_t n_used; /* of the arena: what lies behind is canaries, and poisoned during a call */
uint64_t fm_fuzz_heap_start, fm_fuzz_heap_end; /* for src/checks.h */

static const fuzz_target *target;

/* Asked by AddressSanitizer: a refused allocation is NULL, as everywhere, and no crash. What is
 * freed in an execution stays poisoned to its end in 8 MB; more would be fresh pages all the
 * time. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "allocator_may_return_null=1:quarantine_size_mb=8";
}

void fuzz_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "FINDING in %s: ", target->name);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  abort();
}

/* ---- from the fuzzer's bytes ---- */

uint8_t fuzz_u8(fuzz *f) {
  if (f->n_data == 0) return 0;
  f->n_data--;
  return *f->data++;
}

uint32_t fuzz_u32(fuzz *f) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) value = value << 8 | fuzz_u8(f);
  return value;
}

uint32_t fuzz_below(fuzz *f, uint32_t n) { return (n <= 256 ? fuzz_u8(f) : fuzz_u32(f)) % n; }

bool fuzz_rarely(fuzz *f) {
  if (f->n_wrong == 0 || fuzz_u8(f) < 192) return false;
  f->n_wrong--;
  return true;
}

uint32_t fuzz_dimension(fuzz *f, uint32_t most) {
  static const uint32_t wrong[] = {
      0,        UINT32_MAX, UINT32_MAX - 255, 1u << 31, (1u << 31) + 256, 1u << 30,
      1u << 24, 1u << 16,   (1u << 16) + 1,   65535,    1u << 20,         INT32_MAX};
  if (!fuzz_rarely(f)) return 1 + fuzz_below(f, most);
  uint32_t which = fuzz_below(f, 16);
  return which < sizeof wrong / sizeof wrong[0] ? wrong[which] : fuzz_u32(f);
}

int32_t fuzz_type(fuzz *f) {
#define ID(kind, TYPE, name, number, block_values) FM_TYPE_##TYPE,
  static const int32_t known[] = {FM_TYPES(ID)};
#undef ID
  if (fuzz_rarely(f)) return fuzz_u8(f) < 128 ? (int32_t)fuzz_u8(f) : (int32_t)fuzz_u32(f);
  return known[fuzz_below(f, sizeof known / sizeof known[0])];
}

uint32_t fuzz_columns(fuzz *f, int32_t type, uint32_t most_values) {
  uint32_t values = fm_type_block_values(type);
  if (values == 0) values = 32;
  uint32_t n_blocks = most_values / values;
  uint32_t n_cols = values * fuzz_dimension(f, n_blocks == 0 ? 1 : n_blocks);
  return fuzz_rarely(f) ? n_cols + fuzz_below(f, 3) - 1 : n_cols;
}

int32_t fuzz_enum(fuzz *f, int32_t last) {
  if (fuzz_rarely(f)) return (int32_t)fuzz_u32(f);
  return (int32_t)fuzz_below(f, (uint32_t)last + 1);
}

int32_t fuzz_activation(fuzz *f) {
  int32_t activation = fuzz_enum(f, FM_ACT_INT8);
  if (fuzz_below(f, 4) == 0) activation ^= FM_ALONE;
  int32_t mode = activation & ~FM_ALONE;
  fuzz_fault(f, mode < FM_ACT_F32 || mode > FM_ACT_INT8, FM_ERR_ACTIVATION);
  return activation;
}

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

float fuzz_parameter(fuzz *f) {
  static const float some[] = {
      0.125f, 1.0f,   0.0f,  -0.0f,  1e-5f,           10000.0f,         30.0f,
      -1.0f,  1e-40f, 3e38f, -3e38f, (float)INFINITY, -(float)INFINITY, (float)NAN,
      1e-45f};
  uint32_t which = fuzz_below(f, 16);
  return which < sizeof some / sizeof some[0] ? some[which] : float_of(fuzz_u32(f));
}

/* ---- operands ---- */

static uint32_t random_u32(fuzz *f) { /* xorshift64* by Sebastiano Vigna, public domain */
  f->random_state ^= f->random_state >> 12;
  f->random_state ^= f->random_state << 25;
  f->random_state ^= f->random_state >> 27;
  return (uint32_t)((f->random_state * 0x2545f4914f6cdd1du) >> 32);
}

size_t fuzz_bytes(fuzz *f, uint64_t a, uint64_t b, uint64_t c) {
  uint64_t product;
  bool is_over =
      __builtin_mul_overflow(a, b, &product) || __builtin_mul_overflow(product, c, &product);
  is_over = is_over || product > SIZE_MAX >>
                           9; /* no heap is as large: exports may say so, or that it is outside */
  fuzz_fault(f, is_over || product == 0, FM_ERR_SHAPE);
  return is_over ? 0 : (size_t)product;
}

size_t fuzz_weight_bytes(fuzz *f, int32_t type, uint32_t n_rows, uint32_t n_cols) {
  uint32_t values = fm_type_block_values(type);
  fuzz_fault(f, values == 0, FM_ERR_TYPE);
  fuzz_fault(f, n_rows == 0 || n_cols == 0, FM_ERR_SHAPE);
  if (values == 0) return 0;
  fuzz_fault(f, n_cols % values != 0, FM_ERR_SHAPE);
  return fuzz_bytes(f, n_rows, n_cols / values, fm_type_block_bytes(type));
}

bool fuzz_in_arena(uintptr_t at, size_t n_bytes) {
  uintptr_t start = (uintptr_t)arena;
  return at >= start && at <= start + ARENA_BYTES && n_bytes <= start + ARENA_BYTES - at;
}

static bool in_heap(uintptr_t at, size_t n_bytes) {
  return at >= fm_fuzz_heap_start && at <= fm_fuzz_heap_end && n_bytes <= fm_fuzz_heap_end - at;
}

static uintptr_t wrong_place(fuzz *f, size_t bytes, uintptr_t alignment) {
  uintptr_t end = (uintptr_t)fm_fuzz_heap_end, start = (uintptr_t)fm_fuzz_heap_start;
  const fuzz_operand *other = f->n_operands > 0 ? &f->operands[fuzz_below(f, f->n_operands)] : NULL;
  switch (fuzz_below(f, 14)) {
  case 0:
    return 0;
  case 1:
    return start;
  case 2:
    return start - alignment * (1 + fuzz_below(f, 16));
  case 3:
    return (end - bytes) & ~(alignment - 1); /* the last place where it fits */
  case 4:
    return ((end - bytes) & ~(alignment - 1)) + alignment;
  case 5:
    return end;
  case 6:
    return end - alignment;
  case 7:
    return UINTPTR_MAX & ~(alignment - 1);
  case 8:
    return UINTPTR_MAX - fuzz_below(f, 256);
  case 9:
    return f->cursor + 1 + fuzz_below(f, 8); /* perhaps misaligned */
  case 10:
    return fuzz_u32(f);
  case 11:
    return other ? other->at : 0;
  case 12:
    return other ? other->at + other->bytes - alignment : 0;
  default:
    return other ? other->at - bytes + alignment : 0;
  }
}

void *fuzz_place(fuzz *f, fuzz_role role, size_t bytes, uintptr_t alignment) {
  if (f->n_operands == FUZZ_MAX_OPERANDS) fuzz_fail("the target has too many operands");
  uintptr_t at;
  if (fuzz_rarely(f)) {
    at = wrong_place(f, bytes, alignment);
  } else {
    /* 64 bytes apart, at no better alignment than it needs; or right behind the one before */
    uintptr_t gap = fuzz_below(f, 4);
    at = gap == 0 ? (f->cursor + alignment - 1) & ~(alignment - 1)
                  : ((f->cursor + 127) & ~(uintptr_t)63) + gap * alignment;
    if (in_heap(at, bytes)) f->cursor = at + bytes;
  }
  f->operands[f->n_operands++] = (fuzz_operand){
      .at = at, .bytes = bytes, .written_bytes = bytes, .alignment = alignment, .role = role};
  return (void *)at;
}

void *fuzz_place_optional(fuzz *f, size_t bytes, uintptr_t alignment) {
  bool absent = fuzz_below(f, 3) == 0;
  void *p = fuzz_place(f, FUZZ_IN, bytes, alignment);
  fuzz_operand *operand = &f->operands[fuzz_last(f)];
  if (absent) operand->at = 0;
  operand->absent = operand->at == 0;
  return absent ? NULL : p;
}

bool fuzz_is_readable(const fuzz *f, unsigned operand) {
  const fuzz_operand *o = &f->operands[operand];
  return (o->at & (o->alignment - 1)) == 0 && in_heap(o->at, o->bytes);
}

static float random_activation(fuzz *f) {
  float unit = (float)random_u32(f) / 4294967296.0f - 0.5f;
  switch (random_u32(f) % 16) {
  case 0:
    return 0.0f;
  case 1:
    return -0.0f;
  case 2:
    return unit * 1e-38f * 1e-4f;
  case 3:
    return unit * 3.4e38f;
  case 4:
    return unit < 0 ? -(float)INFINITY : (float)INFINITY;
  case 5:
    return (float)NAN;
  default:
    return unit * 16;
  }
}

static void fill(fuzz *f, uint8_t *bytes, size_t n_bytes) {
  uint8_t how = fuzz_u8(f), byte = fuzz_u8(f);
  switch (how % 6) {
  case 0: /* the fuzzer's bytes, over and over */
    for (size_t i = 0; i < n_bytes; i++) bytes[i] = f->n_data > 0 ? f->data[i % f->n_data] : byte;
    break;
  case 1:
    memset(bytes, byte, n_bytes);
    break;
  case 2:
    for (size_t i = 0; i < n_bytes; i += sizeof(uint32_t)) {
      uint32_t random = random_u32(f);
      memcpy(bytes + i, &random, n_bytes - i < sizeof random ? n_bytes - i : sizeof random);
    }
    break;
  default: /* f32 of every kind, or (as natural weights) ordinary ones */
    for (size_t i = 0; i + sizeof(float) <= n_bytes; i += sizeof(float)) {
      float value =
          how % 6 == 3 ? random_activation(f) : (float)random_u32(f) / 4294967296.0f - 0.5f;
      memcpy(bytes + i, &value, sizeof value);
    }
  }
}

void fuzz_fill(fuzz *f) {
  n_used = 2 * MARGIN;
  for (unsigned i = 0; i < f->n_operands; i++) {
    const fuzz_operand *o = &f->operands[i];
    if (fuzz_in_arena(o->at, o->bytes)) {
      size_t end = o->at + o->bytes - (uintptr_t)arena;
      if (end > n_used) n_used = end;
    }
    if (o->role == FUZZ_IN && o->at != 0 && fuzz_in_arena(o->at, o->bytes))
      fill(f, (uint8_t *)o->at, o->bytes);
  }
}

void fuzz_store(const fuzz *f, unsigned operand, const void *bytes, size_t n_bytes) {
  uintptr_t at = f->operands[operand].at;
  if (fuzz_in_arena(at, n_bytes)) memcpy((void *)at, bytes, n_bytes);
}

/* ---- the judgement ---- */

static bool overlap(const fuzz_operand *a, const fuzz_operand *b) {
  return a->at < b->at + b->bytes && b->at < a->at + a->bytes;
}

/* Whether an output is at the very place of an input that it may share. */
static bool is_shared(const fuzz *f, const fuzz_operand *out, unsigned in) {
  return (out->shares & 1u << in) != 0 && out->at == f->operands[in].at;
}

static void judge_pointers(fuzz *f) {
  bool has_shapes = (f->faults & (1u << FM_ERR_SHAPE | 1u << FM_ERR_TYPE)) == 0;
  for (unsigned i = 0; i < f->n_operands; i++) {
    const fuzz_operand *o = &f->operands[i];
    if (o->absent) continue;
    fuzz_fault(f, (o->at & (o->alignment - 1)) != 0, FM_ERR_ALIGN);
    fuzz_fault(f, !has_shapes || !in_heap(o->at, o->bytes), FM_ERR_RANGE);
  }
  /* Where one of the others holds, the ends of operands may be anywhere. */
  bool is_sound = (f->faults & (1u << FM_ERR_ALIGN | 1u << FM_ERR_RANGE)) == 0;
  for (unsigned i = 0; i < f->n_operands; i++) {
    const fuzz_operand *out = &f->operands[i];
    for (unsigned k = 0; out->role == FUZZ_OUT && k < f->n_operands; k++) {
      if (k == i || f->operands[k].absent || is_shared(f, out, k)) continue;
      fuzz_fault(f, !is_sound || overlap(out, &f->operands[k]), FM_ERR_OVERLAP);
    }
  }
}

static uint8_t *written(const fuzz_operand *o) { return (uint8_t *)o->at + o->written_from; }

/* Only operands can be read; with a shared place twice. */
static void poison(const fuzz *f) {
  __asan_poison_memory_region(arena, ARENA_BYTES);
  for (unsigned i = 0; i < f->n_operands; i++) {
    const fuzz_operand *o = &f->operands[i];
    if (!o->absent && fuzz_in_arena(o->at, o->bytes))
      __asan_unpoison_memory_region((void *)o->at, o->bytes);
  }
}

static void check_untouched(const fuzz *f, int32_t status) {
  for (unsigned i = 0; status == FM_OK && i < f->n_operands; i++) {
    const fuzz_operand *o = &f->operands[i];
    if (o->role == FUZZ_OUT) memcpy(before + (written(o) - arena), written(o), o->written_bytes);
  }
  if (memcmp(before, arena, n_used) == 0) return;
  size_t i = 0;
  while (before[i] == arena[i]) i++;
  for (unsigned k = 0; k < f->n_operands; k++) {
    const fuzz_operand *o = &f->operands[k];
    fprintf(stderr, "operand %u (%s): %td, %zu bytes\n", k, o->role == FUZZ_OUT ? "out" : "in",
            (ptrdiff_t)(o->at - (uintptr_t)arena), o->bytes);
  }
  fuzz_fail("status %d, byte %zu of the arena changed from %02x to %02x", status, i, before[i],
            arena[i]);
}

/* Outputs that were all zeros before instead of canaries must come out the same; not where an
 * output is an input too. */
static void check_again(fuzz *f, int32_t (*call)(void *), void *arguments) {
  for (unsigned i = 0; i < f->n_operands; i++) {
    const fuzz_operand *o = &f->operands[i];
    for (unsigned k = 0; o->role == FUZZ_OUT && k < f->n_operands; k++) {
      if (k != i && is_shared(f, o, k)) return;
    }
  }
  memcpy(first, arena, n_used);
  for (unsigned i = 0; i < f->n_operands; i++) {
    const fuzz_operand *o = &f->operands[i];
    if (o->role == FUZZ_OUT) memset(written(o), 0, o->written_bytes);
  }
  int32_t status = call(arguments);
  if (status != FM_OK) fuzz_fail("the same call again gave status %d", status);
  if (memcmp(first, arena, n_used) != 0) fuzz_fail("the same call again gave other bits");
}

int32_t fuzz_run(fuzz *f, int32_t (*call)(void *), void *arguments) {
  judge_pointers(f);
  for (unsigned i = 0; i < f->n_operands; i++) {
    const fuzz_operand *o = &f->operands[i];
    bool is_free = o->role == FUZZ_OUT && f->faults == 0;
    for (unsigned k = 0; k < f->n_operands; k++)
      is_free = is_free && !(k != i && is_shared(f, o, k));
    if (is_free) memset(written(o), CANARY, o->written_bytes);
  }
  memcpy(before, arena, n_used);
  poison(f);
  int32_t status = call(arguments);
  __asan_unpoison_memory_region(arena, ARENA_BYTES);
  if (status == FM_OK ? f->faults != 0
                      : status < 0 || status > FM_ERR_ISA || !(f->faults >> status & 1)) {
    fuzz_fail("status %d, deserved: %s%x", status, f->faults ? "a bit of " : "", f->faults);
  }
  check_untouched(f, status);
  if (status == FM_OK && random_u32(f) % 4 == 0) check_again(f, call, arguments);
  return status;
}

void fuzz_dequantize(int32_t type, const void *w, float *y, uint32_t n_rows, uint32_t n_cols) {
  uint64_t start = fm_fuzz_heap_start, end = fm_fuzz_heap_end;
  fm_fuzz_heap_start = 1;
  fm_fuzz_heap_end = UINTPTR_MAX;
  int32_t status = fm_dequantize_rows(type, w, y, n_rows, n_cols);
  if (status != FM_OK) fuzz_fail("fm_dequantize_rows gave status %d", status);
  fm_fuzz_heap_start = start;
  fm_fuzz_heap_end = end;
}

/* ---- the fuzzer's side ---- */

static const fuzz_target *const groups[] = {
    fuzz_products,  fuzz_fused,     fuzz_experts, fuzz_rows, fuzz_layer,
    fuzz_attention, fuzz_recurrent, fuzz_delta,   fuzz_scan, fuzz_module};
#define N_GROUPS (sizeof groups / sizeof groups[0])

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  const char *option = "--target=", *wanted = "";
  for (int i = 1; i < *argc; i++) {
    if (strncmp((*argv)[i], option, strlen(option)) == 0) wanted = (*argv)[i] + strlen(option);
    if (strcmp((*argv)[i], "--list") == 0) {
      for (size_t g = 0; g < N_GROUPS; g++) {
        for (const fuzz_target *t = groups[g]; t->name; t++) puts(t->name);
      }
      exit(0);
    }
  }
  for (size_t g = 0; g < N_GROUPS; g++) {
    for (const fuzz_target *t = groups[g]; t->name; t++) {
      if (strcmp(t->name, wanted) == 0) target = t;
    }
  }
  if (!target) {
    fprintf(stderr, "no target \"%s\": --list shows them\n", wanted);
    exit(2);
  }
  memset(arena, CANARY, ARENA_BYTES);
  fm_fuzz_heap_start = (uintptr_t)arena + MARGIN;
  fm_fuzz_heap_end = (uintptr_t)arena + ARENA_BYTES - MARGIN;
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_data) {
  fuzz f = {.data = data, .n_data = n_data, .cursor = (uintptr_t)fm_fuzz_heap_start};
  static const unsigned n_wrong[] = {0, 1, 0, 3};
  f.n_wrong = n_wrong[fuzz_u8(&f) % 4];
  f.random_state = (uint64_t)fuzz_u32(&f) << 32 | 0x9e3779b9;
  target->run(&f);
  memset(arena, CANARY, n_used);
  return 0;
}
