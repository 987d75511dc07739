/* Codes of weights as integer products take them: signed bytes, and sums over all columns that
 * share both scales. */

import { WGSL_TYPES } from './types.js';

/** The highest bit of each byte. */
const HIGH = 'vec4u(0x80808080u)';

/**
 * The form in which integer products take a type: with signed codes, from which the centre is
 * subtracted.
 * @param {string} type  a coded one
 */
export function int8Form(type) {
  const { signed, centre, sumRuns = 1 } = WGSL_TYPES[type];
  return {
    /** Neighbouring runs whose integer products may be added up before they are scaled. */
    runs: sumRuns,
    /** The minimums are not all 0. */
    hasMin: !signed && centre === undefined,
    /** Signed codes of a piece, in WGSL. @param {string} codes  a vec4u */
    codes(codes) {
      if (centre === undefined) return codes;
      // These codes need all bits of a byte.
      if (centre === 128) return `${codes} ^ ${HIGH}`;
      // No byte borrows from the next one while its highest bit is set.
      return `((${codes} | ${HIGH}) - vec4u(${centre * 0x01010101}u)) ^ ${HIGH}`;
    },
  };
}
