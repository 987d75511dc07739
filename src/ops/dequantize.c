#include "fused.h"
#include "ops/ops.h"
#include "threads/threads.h"

/* value = scale * code - min, block by block; see formats/codes.h. */
static void dequantize_decoded(const fm_traits *traits, fm_decode_fn *decode, const uint8_t *w,
                               float *y, size_t n_values) {
  for (size_t c = 0; c < n_values; c += traits->block_values, w += traits->block_bytes) {
    fm_codes b;
    decode(w, &b);
    for (size_t i = 0; i < traits->block_values; i++) {
      size_t sub = i / FM_CODES_SUB;
      y[c + i] = b.scale[sub] * (float)b.code[i] - b.min[sub];
    }
  }
}

void fm_dequantize(const fm_traits *traits, const fm_kernels *kernels, int32_t isa,
                   const uint8_t *w, float *y, size_t n_values) {
  bool simd = isa >= FM_ISA_SIMD128;
  if (!kernels->decode) {
    kernels->dequantize[simd](w, y, n_values);
  } else if (simd) {
    fm_shared_kernels_of(isa)->dequantize(kernels->simd128, w, y, n_values);
  } else {
    dequantize_decoded(traits, kernels->decode, w, y, n_values);
  }
}

/* The values of an item, whole blocks of any type. */
#define ITEM_VALUES 1024

typedef struct {
  const fm_traits *traits;
  const fm_kernels *kernels;
  int32_t isa;
  const uint8_t *w;
  float *y;
  size_t n_values;
} dequantize_job;

static void dequantize_items(const void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const dequantize_job *j = context;
  size_t first = begin * ITEM_VALUES,
         last = end * ITEM_VALUES < j->n_values ? end * ITEM_VALUES : j->n_values;
  const uint8_t *w = j->w + first / j->traits->block_values * j->traits->block_bytes;
  fm_dequantize(j->traits, j->kernels, j->isa, w, j->y + first, last - first);
}

void fm_op_dequantize(int32_t type, const uint8_t *w, float *y, size_t n_values) {
  const dequantize_job j = {
      fm_traits_of(type), fm_kernels_of(type), fm_current.isa, w, y, n_values};
  fm_parallel(dequantize_items, &j, (n_values + ITEM_VALUES - 1) / ITEM_VALUES,
              ITEM_VALUES * FM_WORK_CONVERT);
}
