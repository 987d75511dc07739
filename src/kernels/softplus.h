/* ln(1 + e^x) in f32, for any x without overflow:
 *
 *   ln(1 + e^x) = max(x, 0) + ln(1 + e),  e = e^-|x| in [0, 1]
 *   ln(1 + e) = 2 artanh(s) = 2 s (1 + z / 3 + z^2 / 5 + ..),  s = e / (2 + e),  z = s^2 <= 1/9
 *
 * The first term that is left out, z^8 / 17, is below 2^-29. Error of the result: 4 ulp of the
 * logarithm (1 for e, 2.5 for s and the series) and half an ulp of the sum. NaN stays. */
#ifndef FM_KERNELS_SOFTPLUS_H
#define FM_KERNELS_SOFTPLUS_H

#include "kernels/exp.h"

static inline float fm_softplus(float x) {
  float e = fm_expf(x > 0.0f ? -x : x), s = e / (2.0f + e), z = s * s, series = 1.0f / 15.0f;
  for (float odd = 13.0f; odd > 0.0f; odd -= 2.0f) series = 1.0f / odd + z * series;
  return (x > 0.0f ? x : 0.0f) + 2.0f * s * series;
}

#endif
