/* The table of fm_f16_by_table (v128.h). */
#include "kernels/v128.h"

#define SIGN(s) (UINT32_C(s) << 31)
#define NORMAL(s, e) {SIGN(s) | (UINT32_C(e) + 112) << 23, 0.0f}
#define NORMAL_5(s, e)                                                                             \
  NORMAL(s, e), NORMAL(s, e + 1), NORMAL(s, e + 2), NORMAL(s, e + 3), NORMAL(s, e + 4)
#define STEPS(s, smallest_normal)                                                                  \
  {SIGN(s) | UINT32_C(113) << 23, smallest_normal}, NORMAL_5(s, 1), NORMAL_5(s, 6),                \
      NORMAL_5(s, 11), NORMAL_5(s, 16), NORMAL_5(s, 21), NORMAL_5(s, 26),                          \
      {SIGN(s) | 0x7f800000u, 0.0f}

const fm_f16_step fm_f16_steps[64] = {STEPS(0, 0x1p-14f), STEPS(1, -0x1p-14f)};
