#include "formats/traits.h"

#include <stddef.h>

#include "formats/blocks.h"
#include "fused.h"

static const fm_traits rows[] = {
    {FM_TYPE_F32, 1, 4, 4},
    {FM_TYPE_F16, 1, 2, 2},
    {FM_TYPE_Q4_0, 32, sizeof(fm_block_q4_0), 2},
    {FM_TYPE_Q4_1, 32, sizeof(fm_block_q4_1), 2},
    {FM_TYPE_Q5_0, 32, sizeof(fm_block_q5_0), 2},
    {FM_TYPE_Q5_1, 32, sizeof(fm_block_q5_1), 2},
    {FM_TYPE_Q8_0, 32, sizeof(fm_block_q8_0), 2},
    {FM_TYPE_Q2_K, 256, sizeof(fm_block_q2_k), 2},
    {FM_TYPE_Q3_K, 256, sizeof(fm_block_q3_k), 2},
    {FM_TYPE_Q4_K, 256, sizeof(fm_block_q4_k), 2},
    {FM_TYPE_Q5_K, 256, sizeof(fm_block_q5_k), 2},
    {FM_TYPE_Q6_K, 256, sizeof(fm_block_q6_k), 2},
    {FM_TYPE_Q8_K, 256, sizeof(fm_block_q8_k), 4},
    {FM_TYPE_IQ4_NL, 32, sizeof(fm_block_iq4_nl), 2},
    {FM_TYPE_IQ4_XS, 256, sizeof(fm_block_iq4_xs), 2},
    {FM_TYPE_BF16, 1, 2, 2},
    {FM_TYPE_TQ1_0, 256, sizeof(fm_block_tq1_0), 2},
    {FM_TYPE_TQ2_0, 256, sizeof(fm_block_tq2_0), 2},
    {FM_TYPE_MXFP4, 32, sizeof(fm_block_mxfp4), 1},
};

const fm_traits *fm_traits_of(int32_t type) {
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (rows[i].type == type) return &rows[i];
  }
  return NULL;
}
