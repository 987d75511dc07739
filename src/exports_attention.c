/* Exports: attention. Contracts: fused.h. */
#include "checks.h"
#include "fused.h"
#include "kernels/attention.h"
#include "ops/ops.h"

EXPORT int32_t fused_attention_score(const float *q, const float *k, float *scores, uint32_t n_q,
                                     uint32_t n_k, uint32_t head_size, float scale,
                                     int32_t causal) {
  span sq = {(uintptr_t)q, 0}, sk = {(uintptr_t)k, 0}, ss = {(uintptr_t)scores, 0};
  if (n_q == 0 || n_k == 0 || head_size == 0 || head_size > FM_HEAD_SIZE_MAX) return FM_ERR_SHAPE;
  if (!product(n_q, head_size, sizeof *q, &sq.bytes) ||
      !product(n_k, head_size, sizeof *k, &sk.bytes) ||
      !product(n_q, n_k, sizeof *scores, &ss.bytes)) {
    return FM_ERR_SHAPE;
  }
  if (!is_aligned(q, sizeof *q) || !is_aligned(k, sizeof *k) || !is_aligned(scores, sizeof *scores))
    return FM_ERR_ALIGN;
  if (!in_heap(sq) || !in_heap(sk) || !in_heap(ss)) return FM_ERR_RANGE;
  if (overlap(ss, sq) || overlap(ss, sk)) return FM_ERR_OVERLAP;
  fm_op_attention_score(q, k, scores, n_q, n_k, head_size, scale, causal != 0);
  return FM_OK;
}

/* The bytes of q (and out), and of the cache; false where they are more than an address can
 * name. */
static bool attention_bytes(const fm_attention *s, const fm_traits *traits, uint64_t *rows,
                            uint64_t *cache) {
  uint64_t head_bytes = (uint64_t)s->head_size / traits->block_values * traits->block_bytes;
  return s->n_positions <= INT32_MAX &&
         product(s->n_tokens, s->n_heads, s->head_size * sizeof(float), rows) &&
         product(s->n_positions, s->n_kv_heads, head_bytes, cache);
}

EXPORT int32_t fm_flash_attention(const fm_attention *shape, const float *q, const void *k,
                                  const void *v, float *out) {
  span ss = {(uintptr_t)shape, sizeof *shape}, sq = {(uintptr_t)q, 0}, sout = {(uintptr_t)out, 0};
  span sk = {(uintptr_t)k, 0}, sv = {(uintptr_t)v, 0};
  span ssinks = {0, 0};
  if (!is_aligned(shape, _Alignof(fm_attention))) return FM_ERR_ALIGN;
  if (!in_heap(ss)) return FM_ERR_RANGE;
  fm_attention s = *shape;
  if (s.kv_type != FM_KV_F32 && s.kv_type != FM_KV_F16 && s.kv_type != FM_KV_Q8_0)
    return FM_ERR_TYPE;
  const fm_traits *traits = fm_traits_of(s.kv_type);
  if (s.n_tokens == 0 || s.n_heads == 0 || s.n_kv_heads == 0 || s.n_positions == 0)
    return FM_ERR_SHAPE;
  if (s.head_size == 0 || s.head_size > FM_HEAD_SIZE_MAX || s.head_size % traits->block_values != 0)
    return FM_ERR_SHAPE;
  if (s.n_heads % s.n_kv_heads != 0 || !attention_bytes(&s, traits, &sq.bytes, &sk.bytes))
    return FM_ERR_SHAPE;
  if (s.sinks) ssinks = (span){(uintptr_t)s.sinks, (uint64_t)s.n_heads * sizeof *s.sinks};
  sout.bytes = sq.bytes;
  sv.bytes = sk.bytes;
  if (!is_aligned(q, sizeof *q) || !is_aligned(out, sizeof *out) ||
      !is_aligned(k, traits->alignment) || !is_aligned(v, traits->alignment) ||
      !is_aligned(s.sinks, sizeof *s.sinks)) {
    return FM_ERR_ALIGN;
  }
  if (!in_heap(sq) || !in_heap(sk) || !in_heap(sv) || !in_heap(sout)) return FM_ERR_RANGE;
  if (s.sinks && !in_heap(ssinks)) return FM_ERR_RANGE;
  if (overlap(sout, sq) || overlap(sout, sk) || overlap(sout, sv) || overlap(sout, ss) ||
      overlap(sout, ssinks)) {
    return FM_ERR_OVERLAP;
  }
  fm_op_flash_attention(&s, q, k, v, out);
  return FM_OK;
}
