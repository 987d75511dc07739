/* Attention: a cache in one pass, and the scores alone. */
#include "fuzz.h"

typedef struct {
  const fm_attention *shape;
  const float *q;
  const void *k, *v;
  float *out, scale;
  uint32_t n_q, n_k, head_size;
  int32_t causal;
} arguments;

static int32_t call_flash(void *p) {
  arguments *a = p;
  return fm_flash_attention(a->shape, a->q, a->k, a->v, a->out);
}

static void run_flash(fuzz *f) {
  static const int32_t kinds[] = {FM_KV_F32, FM_KV_F16, FM_KV_Q8_0};
  fm_attention s = {.kv_type = fuzz_rarely(f) ? fuzz_type(f) : kinds[fuzz_below(f, 3)]};
  fuzz_fault(f, s.kv_type != FM_KV_F32 && s.kv_type != FM_KV_F16 && s.kv_type != FM_KV_Q8_0,
             FM_ERR_TYPE);
  s.n_tokens = fuzz_dimension(f, 4);
  s.n_kv_heads = fuzz_dimension(f, 3);
  uint32_t group = fuzz_dimension(f, 5);
  s.n_heads = fuzz_rarely(f) ? fuzz_dimension(f, 8) : s.n_kv_heads * group;
  s.head_size = fuzz_columns(f, s.kv_type, fuzz_u8(f) >= 240 ? 580 : 64);
  s.n_positions = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 70 : 20);
  s.first_position = fuzz_u8(f) >= 224 ? fuzz_u32(f) : fuzz_below(f, 80);
  s.causal = (int32_t)fuzz_u8(f) - 128;
  s.window = fuzz_u8(f) >= 224 ? fuzz_u32(f) : fuzz_below(f, 20);
  s.scale = fuzz_parameter(f);
  s.softcap = fuzz_parameter(f);
  fuzz_fault(f, s.head_size > 576 || s.n_positions > INT32_MAX, FM_ERR_SHAPE);
  fuzz_fault(f, s.n_kv_heads == 0 || s.n_heads % (s.n_kv_heads + !s.n_kv_heads) != 0, FM_ERR_SHAPE);
  arguments a = {0};
  size_t q_bytes = fuzz_bytes(f, (uint64_t)s.n_tokens * s.n_heads, s.head_size, sizeof *a.q);
  uint32_t values = fm_type_block_values(s.kv_type);
  fuzz_fault(f, values == 0 || s.head_size % (values + !values) != 0, FM_ERR_SHAPE);
  size_t head_bytes = values == 0 ? 0 : s.head_size / values * fm_type_block_bytes(s.kv_type);
  size_t kv_bytes = fuzz_bytes(f, (uint64_t)s.n_positions * s.n_kv_heads, head_bytes, 1);
  a.shape = fuzz_place(f, FUZZ_IN, sizeof s, _Alignof(fm_attention));
  unsigned at_shape = fuzz_last(f);
  a.q = fuzz_place(f, FUZZ_IN, q_bytes, 4);
  a.k = fuzz_place(f, FUZZ_IN, kv_bytes, fuzz_alignment(s.kv_type));
  a.v = fuzz_place(f, FUZZ_IN, kv_bytes, fuzz_alignment(s.kv_type));
  a.out = fuzz_place(f, FUZZ_OUT, q_bytes, 4);
  s.sinks = fuzz_place_optional(f, fuzz_bytes(f, s.n_heads, 1, sizeof *s.sinks), sizeof *s.sinks);
  fuzz_fill(f);
  fuzz_store(f, at_shape, &s, sizeof s);
  fuzz_run(f, call_flash, &a);
}

static int32_t call_score(void *p) {
  arguments *a = p;
  return fused_attention_score(a->q, a->k, a->out, a->n_q, a->n_k, a->head_size, a->scale,
                               a->causal);
}

static void run_score(fuzz *f) {
  arguments a = {.scale = fuzz_parameter(f), .causal = (int32_t)fuzz_u8(f) - 128};
  a.n_q = fuzz_dimension(f, 9);
  a.n_k = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 90 : 20);
  a.head_size = fuzz_dimension(f, fuzz_u8(f) >= 224 ? 580 : 70);
  fuzz_fault(f, a.head_size > 576, FM_ERR_SHAPE);
  a.q = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_q, a.head_size, sizeof *a.q), 4);
  a.k = fuzz_place(f, FUZZ_IN, fuzz_bytes(f, a.n_k, a.head_size, sizeof(float)), 4);
  a.out = fuzz_place(f, FUZZ_OUT, fuzz_bytes(f, a.n_q, a.n_k, sizeof *a.out), 4);
  fuzz_fill(f);
  if (fuzz_run(f, call_score, &a) != FM_OK) return;
  for (size_t i = 0; i < (size_t)a.n_q * a.n_k; i++) {
    if (a.out[i] < 0 || a.out[i] > 1) fuzz_fail("score %zu is %g", i, (double)a.out[i]);
  }
}

const fuzz_target fuzz_attention[] = {
    {"fm_flash_attention", run_flash}, {"fused_attention_score", run_score}, {NULL, NULL}};
