/* Attention under the sanitizers: random shapes on heap blocks of exactly the bytes that the
 * contract names. */
#include <stdlib.h>

#include "fused.h"
#include "native_tests.h"

#define ROUNDS 60

static float *random_floats(size_t n, bool finite) {
  float *x = must_malloc(n * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = random_activation(finite);
  return x;
}

static void test_flash(int32_t kv_type, uint32_t round) {
  fm_attention s = {.kv_type = kv_type,
                    .causal = (int32_t)(random_u32() % 2),
                    .scale = random_activation(round % 2 == 0)};
  s.n_tokens = random_between(1, 5);
  s.n_kv_heads = random_between(1, 3);
  s.n_heads = s.n_kv_heads * random_between(1, 5);
  s.head_size = kv_type == FM_KV_Q8_0 ? 32 * random_between(1, 3) : random_between(1, 70);
  s.n_positions = random_between(1, 80);
  s.first_position = round % 5 == 0 ? UINT32_MAX : random_between(0, 80);
  s.window = random_between(0, 20);
  s.softcap = round % 3 == 0 ? 20.0f : 0.0f;
  size_t n_q = (size_t)s.n_tokens * s.n_heads * s.head_size;
  size_t n_kv = (size_t)s.n_positions * s.n_kv_heads * s.head_size;
  size_t kv_bytes = n_kv / fm_type_block_values(kv_type) * fm_type_block_bytes(kv_type);
  float *q = random_floats(n_q, round % 2 == 0), *out = must_malloc(n_q * sizeof *out);
  uint8_t *k = must_malloc(kv_bytes), *v = must_malloc(kv_bytes);
  fill_random(k, kv_bytes);
  fill_random(v, kv_bytes);
  check(fm_flash_attention(&s, q, k, v, out) == FM_OK, "kv type %d: fm_flash_attention", kv_type);
  float *sinks = random_floats(s.n_heads, round % 2 == 0);
  s.sinks = sinks;
  check(fm_flash_attention(&s, q, k, v, out) == FM_OK, "kv type %d: with sinks", kv_type);
  s.sinks = out;
  check(fm_flash_attention(&s, q, k, v, out) == FM_ERR_OVERLAP, "kv type %d: sinks = out", kv_type);
  s.sinks = NULL;
  free(sinks);
  check(fm_flash_attention(NULL, q, k, v, out) == FM_ERR_RANGE, "kv type %d: shape = NULL",
        kv_type);
  check(fm_flash_attention(&s, NULL, k, v, out) == FM_ERR_RANGE, "kv type %d: q = NULL", kv_type);
  check(fm_flash_attention(&s, q, NULL, v, out) == FM_ERR_RANGE, "kv type %d: k = NULL", kv_type);
  check(fm_flash_attention(&s, q, k, NULL, out) == FM_ERR_RANGE, "kv type %d: v = NULL", kv_type);
  check(fm_flash_attention(&s, q, k, v, NULL) == FM_ERR_RANGE, "kv type %d: out = NULL", kv_type);
  check(fm_flash_attention(&s, out, k, v, out) == FM_ERR_OVERLAP, "kv type %d: out = q", kv_type);
  s.head_size = 577;
  check(fm_flash_attention(&s, q, k, v, out) == FM_ERR_SHAPE, "kv type %d: head size 577", kv_type);
  free(v);
  free(k);
  free(out);
  free(q);
}

static void test_scores(uint32_t round) {
  uint32_t n_q = random_between(1, 9), n_k = random_between(1, 70),
           head_size = random_between(1, 40);
  float *q = random_floats((size_t)n_q * head_size, round % 2 == 0);
  float *k = random_floats((size_t)n_k * head_size, round % 2 == 0);
  float *scores = must_malloc((size_t)n_q * n_k * sizeof *scores);
  for (int32_t causal = 0; causal < 2; causal++) {
    check(fused_attention_score(q, k, scores, n_q, n_k, head_size, 0.5f, causal) == FM_OK,
          "fused_attention_score");
  }
  check(fused_attention_score(q, k, q, n_q, n_k, head_size, 0.5f, 0) == FM_ERR_OVERLAP,
        "scores = q");
  check(fused_attention_score(q, k, scores, 0, n_k, head_size, 0.5f, 0) == FM_ERR_SHAPE,
        "no queries");
  free(scores);
  free(k);
  free(q);
}

void test_attention(void) {
  for (uint32_t round = 0; round < ROUNDS; round++) {
    test_flash(FM_KV_F32, round);
    test_flash(FM_KV_F16, round);
    test_flash(FM_KV_Q8_0, round);
    test_scores(round);
  }
}
