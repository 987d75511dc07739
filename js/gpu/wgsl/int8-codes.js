/* Codes of weights as integer products take them: signed bytes, and sums over all columns that
 * share both scales. */

import { WGSL_TYPES } from './types.js';

/**
 * Facts about a type beyond the table of types.
 *
 *   runs    neighbouring runs of a lane that share a scale and, in all lanes that share it, a
 *           stretch of 32 columns; default 1
 *   centre  values are scale * (code - centre), so that the minimum is so many scales
 * @type {Record<string, { runs?: number, centre?: number }>}
 */
const FACTS = {
  Q4_0: { runs: 4, centre: 8 },
  Q4_1: { runs: 4 },
  Q5_0: { runs: 4, centre: 16 },
  Q5_1: { runs: 4 },
  Q8_0: { runs: 4 },
  IQ4_NL: { runs: 4, centre: 128 },
  MXFP4: { runs: 4, centre: 12 },
  Q3_K: { centre: 4 },
  Q4_K: { runs: 2 },
  Q5_K: { runs: 2 },
  Q6_K: { centre: 32 },
  Q8_K: { runs: 4 },
  IQ4_XS: { runs: 4, centre: 128 },
  TQ1_0: { centre: 1 },
  TQ2_0: { centre: 1 },
};

/** The highest bit of each byte. */
const HIGH = 'vec4u(0x80808080u)';

/**
 * The form in which integer products take a type. Its codes are signed bytes once the centre is
 * subtracted; codes with a centre of 128 need that, since they use all bits of a byte.
 * @param {string} type  a coded one
 */
export function int8Form(type) {
  const { runs = 1, centre } = FACTS[type] ?? {};
  return {
    /** Neighbouring runs whose integer products may be added up before they are scaled. */
    runs,
    /** The minimums are not all 0. */
    hasMin: !WGSL_TYPES[type].signed && centre === undefined,
    /** Signed codes of a piece, in WGSL. @param {string} codes  a vec4u */
    codes(codes) {
      if (centre === undefined) return codes;
      if (centre === 128) return `${codes} ^ ${HIGH}`;
      // No byte borrows from the next one while its highest bit is set.
      return `((${codes} | ${HIGH}) - vec4u(${centre * 0x01010101}u)) ^ ${HIGH}`;
    },
  };
}
