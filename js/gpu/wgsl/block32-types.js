/* The weight types with blocks of 32 values in WGSL. Layouts: src/formats/blocks.h. */

import { IQ4, MXFP4 } from './nibble-tables.js';

/** @typedef {import('./types.js').WgslType} WgslType */
/** @typedef {import('./types.js').Fields} Fields */

/**
 * A type whose byte l of `qs` holds values l (low nibble) and 16 + l (high nibble).
 * @param {WgslType['fields']} fields
 * @param {(fields: Fields) => string} rest  statements after those that load the words a and b
 * @param {Pick<WgslType, 'centre' | 'extra'>} [more]
 * @returns {WgslType}
 */
const nibbles = (fields, rest, more) => ({
  fields,
  blockValues: 32,
  lanes: 2,
  share: 2,
  coded: true,
  signed: false,
  sumRuns: 4,
  runs: 'vec4u(2u * t) + vec4u(0u, 1u, 4u, 5u)',
  ...more,
  body: (access) => `
  let a = ${access.word('qs', '2u * t')};
  let b = ${access.word('qs', '2u * t + 1u')};${rest(access)}`,
});

/** Codes of four bits. */
const FOUR = 'vec4u(low4(a), low4(b), high4(a), high4(b))';
/** Codes of five bits; h has bit 4 of those of lane t. */
const FIVE = `${FOUR} | (vec4u(bits4(h), bits4(h >> 4u), bits4(h >> 16u), bits4(h >> 20u)) << vec4u(4u))`;
/** Bit j of the lowest four becomes bit 0 of byte j. */
export const BITS_4 = `
fn bits4(bits: u32) -> u32 { return ((bits & 15u) * 0x00204081u) & 0x01010101u; }`;

/** value = d * (code - centre). @param {string} codes */
const centred =
  (codes) =>
  (/** @type {Fields} */ { half, centre }) =>
    `
  let d = ${half('d')};
  return Piece(${codes}, vec4f(d), vec4f(${centre} * d));`;

/** value = d * code + m; d and m are one word. @param {string} codes */
const shifted =
  (codes) =>
  (/** @type {Fields} */ { word }) =>
    `
  let d = unpack2x16float(${word('d', '0u')});
  return Piece(${codes}, vec4f(d.x), vec4f(-d.y));`;

/** Bits 4 of the codes of lane t. @param {Fields} fields */
const upperBits = ({ word }) => `
  let h = ${word('qh', '0u')} >> (8u * t);`;

/** Codes of a table of 16 values. @param {string} look */
const looked = (look) => `
  let p = ${look}(a);
  let q = ${look}(b);
  let codes = vec4u(p.x, q.x, p.y, q.y);`;

/** @type {Record<string, WgslType>} */
export const BLOCK32_TYPES = {
  Q4_0: nibbles(
    [
      ['d', 2],
      ['qs', 16],
    ],
    centred(FOUR),
    { centre: 8 },
  ),
  Q4_1: nibbles(
    [
      ['d', 4],
      ['qs', 16],
    ],
    shifted(FOUR),
  ),
  Q5_0: nibbles(
    [
      ['d', 2],
      ['qh', 4],
      ['qs', 16],
    ],
    (fields) => upperBits(fields) + centred(FIVE)(fields),
    { centre: 16, extra: BITS_4 },
  ),
  Q5_1: nibbles(
    [
      ['d', 4],
      ['qh', 4],
      ['qs', 16],
    ],
    (fields) => upperBits(fields) + shifted(FIVE)(fields),
    { extra: BITS_4 },
  ),
  Q8_0: {
    fields: [
      ['d', 2],
      ['qs', 32],
    ],
    blockValues: 32,
    lanes: 2,
    share: 2,
    coded: true,
    signed: true,
    sumRuns: 4,
    runs: 'vec4u(4u * t) + vec4u(0u, 1u, 2u, 3u)',
    body: ({ word, half }) => `
  let k = 4u * t;
  let codes = vec4u(${[0, 1, 2, 3].map((n) => word('qs', `k + ${n}u`)).join(', ')});
  return Piece(codes, vec4f(${half('d')}), vec4f(0.0));`,
  },
  IQ4_NL: nibbles(
    [
      ['d', 2],
      ['qs', 16],
    ],
    (fields) => looked('iq4') + centred('codes')(fields),
    { centre: 128, extra: IQ4 },
  ),
  MXFP4: nibbles(
    [
      ['e', 1],
      ['qs', 16],
    ],
    ({ byte, centre }) => `${looked('mxfp4')}
  let e = ${byte('e', '0u')};
  // 2^(e - 128), which is below the normal numbers for 0 and 1.
  let d = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << (e & 1u), e < 2u));
  return Piece(codes, vec4f(d), vec4f(${centre} * d));`,
    { centre: 12, extra: MXFP4 },
  ),
};
