/* Codes of weights as integer products take them: signed bytes, and sums over all columns that
 * share both scales. */

import { WGSL_TYPES } from './types.js';

/**
 * Neighbouring runs of a lane that share a scale and, in all lanes that share it, a stretch of 32
 * columns; other types have 1.
 * @type {Record<string, number>}
 */
const RUNS = {
  Q4_0: 4,
  Q4_1: 4,
  Q5_0: 4,
  Q5_1: 4,
  Q8_0: 4,
  IQ4_NL: 4,
  MXFP4: 4,
  Q4_K: 2,
  Q5_K: 2,
  Q8_K: 4,
  IQ4_XS: 4,
};

/** The highest bit of each byte. */
const HIGH = 'vec4u(0x80808080u)';

/**
 * The form in which integer products take a type: with signed codes, from which the centre is
 * subtracted.
 * @param {string} type  a coded one
 */
export function int8Form(type) {
  const { signed, centre } = WGSL_TYPES[type];
  return {
    /** Neighbouring runs whose integer products may be added up before they are scaled. */
    runs: RUNS[type] ?? 1,
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
