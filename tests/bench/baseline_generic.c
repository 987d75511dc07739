/* The benchmark's opponents for the types that llama.cpp's wasm kernels have no SIMD for: its
 * generic dot products, written from their description.
 *
 * int8 activations per 256 columns. An entry of a codebook is 8 (IQ3: 4) bytes of a table that is
 * expanded beforehand. Code, activation and sign are multiplied one by one, in plain C, which the
 * compiler may vectorise. One row and one token at a time. */
#include <string.h>

#include "baseline.h"
#include "formats/blocks.h"
#include "formats/codebooks.h"
#include "formats/f16.h"
#include "formats/tables.h"
#include "formats/ue4m3.h"

static uint8_t iq2_xxs[256][8], iq2_xs[512][8], iq2_s[1024][8], iq3_xxs[256][4], iq3_s[512][4];
static int8_t iq1[2048][8];
static uint8_t even_signs[128];

static void expand2(const uint16_t *grid, size_t n, uint8_t (*out)[8]) {
  for (size_t i = 0; i < n; i++)
    for (int j = 0; j < 8; j++) out[i][j] = fm_iq2_values[grid[i] >> 2 * j & 3];
}
static void expand3(const uint16_t *grid, size_t n, const uint8_t values[8], uint8_t (*out)[4]) {
  for (size_t i = 0; i < n; i++)
    for (int j = 0; j < 4; j++) out[i][j] = values[grid[i] >> 4 * j & 7];
}

/* Fills the tables; called once, ahead of the products. */
EXPORT void bl_expand(void) {
  fm_expand_codebooks();
  expand2(fm_iq2_xxs_grid, 256, iq2_xxs);
  expand2(fm_iq2_xs_grid, 512, iq2_xs);
  expand2(fm_iq2_s_grid, 1024, iq2_s);
  expand3(fm_iq3_xxs_grid, 256, fm_iq3_xxs_values, iq3_xxs);
  expand3(fm_iq3_s_grid, 512, fm_iq3_s_values, iq3_s);
  for (size_t i = 0; i < 2048; i++)
    for (int j = 0; j < 8; j++) iq1[i][j] = (int8_t)((fm_iq1_s_grid[i] >> 2 * j & 3) - 1);
  for (uint32_t i = 0; i < 128; i++) even_signs[i] = fm_even_signs(i);
}

static const uint8_t bit_of[8] = {1, 2, 4, 8, 16, 32, 64, 128};

static inline int32_t dot8(const uint8_t *entry, uint8_t signs, const int8_t *q) {
  int32_t sum = 0;
  for (int j = 0; j < 8; j++) sum += entry[j] * q[j] * (signs & bit_of[j] ? -1 : 1);
  return sum;
}

static inline int32_t dot4_4(const uint8_t *first, const uint8_t *second, uint8_t signs,
                             const int8_t *q) {
  int32_t sum = 0;
  for (int j = 0; j < 4; j++) {
    sum += first[j] * q[j] * (signs & bit_of[j] ? -1 : 1);
    sum += second[j] * q[j + 4] * (signs & bit_of[j + 4] ? -1 : 1);
  }
  return sum;
}

static float iq2_xxs_block(const fm_block_iq2_xxs *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  int32_t total = 0;
  for (int sub = 0; sub < 8; sub++) {
    uint32_t words[2];
    memcpy(words, b->qs + 4 * sub, 8);
    int32_t sum = 0;
    for (int k = 0; k < 4; k++, q += 8)
      sum += dot8(iq2_xxs[words[0] >> 8 * k & 255], even_signs[words[1] >> 7 * k & 127], q);
    total += sum * (int32_t)(2 * (words[1] >> 28) + 1);
  }
  return 0.125f * fm_f16_to_f32(b->d) * a->d[0] * (float)total;
}

static float iq2_xs_block(const fm_block_iq2_xs *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  int32_t total = 0;
  for (int sub = 0; sub < 16; sub++) {
    int32_t sum = 0;
    for (int k = 0; k < 2; k++, q += 8) {
      uint16_t packed = b->qs[2 * sub + k];
      sum += dot8(iq2_xs[packed & 511], even_signs[packed >> 9], q);
    }
    total += sum * (2 * (b->scales[sub / 2] >> 4 * (sub % 2) & 15) + 1);
  }
  return 0.125f * fm_f16_to_f32(b->d) * a->d[0] * (float)total;
}

static float iq2_s_block(const fm_block_iq2_s *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  int32_t total = 0;
  for (int sub = 0; sub < 16; sub++) {
    int32_t sum = 0;
    for (int k = 2 * sub; k < 2 * sub + 2; k++, q += 8)
      sum += dot8(iq2_s[b->qs[k] | (b->qh[k / 4] << (8 - 2 * (k % 4)) & 0x300)], b->signs[k], q);
    total += sum * (2 * (b->scales[sub / 2] >> 4 * (sub % 2) & 15) + 1);
  }
  return 0.125f * fm_f16_to_f32(b->d) * a->d[0] * (float)total;
}

static float iq3_xxs_block(const fm_block_iq3_xxs *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  const uint8_t *qs = b->qs;
  int32_t total = 0;
  for (int sub = 0; sub < 8; sub++) {
    uint32_t rest;
    memcpy(&rest, b->scales_signs + 4 * sub, 4);
    int32_t sum = 0;
    for (int k = 0; k < 4; k++, q += 8, qs += 2)
      sum += dot4_4(iq3_xxs[qs[0]], iq3_xxs[qs[1]], even_signs[rest >> 7 * k & 127], q);
    total += sum * (int32_t)(2 * (rest >> 28) + 1);
  }
  return 0.25f * fm_f16_to_f32(b->d) * a->d[0] * (float)total;
}

static float iq3_s_block(const fm_block_iq3_s *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  const uint8_t *qs = b->qs, *signs = b->signs;
  int32_t total = 0;
  for (int sub = 0; sub < 8; sub++) {
    int32_t sum = 0;
    for (int k = 0; k < 4; k++, q += 8, qs += 2, signs++) {
      sum += dot4_4(iq3_s[qs[0] | (b->qh[sub] << (8 - 2 * k) & 256)],
                    iq3_s[qs[1] | (b->qh[sub] << (7 - 2 * k) & 256)], *signs, q);
    }
    total += sum * (2 * (b->scales[sub / 2] >> 4 * (sub % 2) & 15) + 1);
  }
  return fm_f16_to_f32(b->d) * a->d[0] * (float)total;
}

static float iq1_s_block(const fm_block_iq1_s *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  int32_t total = 0, deltas = 0;
  for (int sub = 0; sub < 8; sub++) {
    int32_t sum = 0, scale = 2 * (b->qh[sub] >> 12 & 7) + 1;
    for (int k = 0; k < 4; k++, q += 8) {
      const int8_t *entry = iq1[b->qs[4 * sub + k] | (b->qh[sub] >> 3 * k & 7) << 8];
      for (int j = 0; j < 8; j++) sum += q[j] * entry[j];
    }
    total += scale * sum;
    deltas += scale * (b->qh[sub] & 0x8000 ? -1 : 1) * a->sum32[sub];
  }
  return fm_f16_to_f32(b->d) * a->d[0] * ((float)total + 0.125f * (float)deltas);
}

static float iq1_m_block(const fm_block_iq1_m *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  uint16_t packed[4];
  memcpy(packed, b->scales, 8);
  int32_t total = 0, deltas = 0;
  for (int sub = 0; sub < 16; sub++) {
    int32_t sum = 0, delta_sum = 0;
    for (int k = 2 * sub; k < 2 * sub + 2; k++, q += 8) {
      int high = b->qh[k / 2] >> 4 * (k % 2), of_q = 0;
      const int8_t *entry = iq1[b->qs[k] | (high & 7) << 8];
      for (int j = 0; j < 8; j++) {
        sum += q[j] * entry[j];
        of_q += q[j];
      }
      delta_sum += of_q * (high & 8 ? -1 : 1);
    }
    int scale = 2 * (packed[sub / 4] >> 3 * (sub % 4) & 7) + 1;
    total += scale * sum;
    deltas += scale * delta_sum;
  }
  uint16_t d = (uint16_t)(packed[0] >> 12 | (packed[1] >> 8 & 0xf0) | (packed[2] >> 4 & 0xf00) |
                          (packed[3] & 0xf000));
  return fm_f16_to_f32(d) * a->d[0] * ((float)total + 0.125f * (float)deltas);
}

static float q1_0_group(const fm_block_q1_0 *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  float total = 0.0f;
  for (int i = 0; i < 2; i++, b++) {
    int32_t sum = 0;
    for (int j = 0; j < 128; j++, q++) sum += (b->qs[j / 8] >> j % 8 & 1 ? 1 : -1) * *q;
    total += fm_f16_to_f32(b->d) * (float)sum;
  }
  return a->d[0] * total;
}

static float q2_0_group(const fm_block_q2_0 *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  float total = 0.0f;
  for (int i = 0; i < 4; i++, b++) {
    int32_t sum = 0;
    for (int j = 0; j < 64; j++, q++) sum += ((b->qs[j / 4] >> 2 * (j % 4) & 3) - 1) * *q;
    total += fm_f16_to_f32(b->d) * (float)sum;
  }
  return a->d[0] * total;
}

static float nvfp4_group(const fm_block_nvfp4 *b, const fm_act_i8 *a) {
  const int8_t *q = a->q;
  float total = 0.0f;
  for (int i = 0; i < 4; i++, b++) {
    for (int sub = 0; sub < 4; sub++, q += 16) {
      const uint8_t *qs = b->qs + 8 * sub;
      int32_t low = 0, high = 0;
      for (int j = 0; j < 8; j++) {
        low += q[j] * fm_mxfp4_values[qs[j] & 15];
        high += q[j + 8] * fm_mxfp4_values[qs[j] >> 4];
      }
      total += fm_ue4m3_half_to_f32(b->d[sub]) * (float)(low + high);
    }
  }
  return a->d[0] * total;
}

BASELINE(iq1_s, 1, iq1_s_block)
BASELINE(iq1_m, 1, iq1_m_block)
BASELINE(iq2_xxs, 1, iq2_xxs_block)
BASELINE(iq2_xs, 1, iq2_xs_block)
BASELINE(iq2_s, 1, iq2_s_block)
BASELINE(iq3_xxs, 1, iq3_xxs_block)
BASELINE(iq3_s, 1, iq3_s_block)
BASELINE(q1_0, 2, q1_0_group)
BASELINE(q2_0, 4, q2_0_group)
BASELINE(nvfp4, 4, nvfp4_group)
