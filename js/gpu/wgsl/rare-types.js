/* Weight types that few files have, in WGSL: those of one to three bits but the K types, and NVFP4.
 * The file is imported with the first weight of such a type. Layouts: src/formats/blocks.h.
 *
 * An entry of a codebook is 16 bits of memory (formats/codebooks.h), from which codes are computed:
 * a table of codes would take more of a cache. */

import { BITS_4 } from './block32-types.js';
import { MXFP4 } from './nibble-tables.js';
import { HALVES, superblock, twoBits } from './superblock-types.js';

/** @typedef {import('./types.js').WgslType} WgslType */
/** @typedef {import('./types.js').Fields} Fields */

/**
 * A type whose lane t has the 16 columns from 16t on.
 * @param {Omit<WgslType, 'lanes' | 'coded' | 'signed' | 'sumRuns' | 'runs'> & { signed?: boolean }} row
 * @returns {WgslType}
 */
const inOrder = (row) => ({
  lanes: row.blockValues / 16,
  coded: true,
  signed: false,
  sumRuns: 4,
  runs: 'vec4u(4u * t) + vec4u(0u, 1u, 2u, 3u)',
  ...row,
});

/** A type whose codes are magnitudes of a codebook with signs. @param {Parameters<typeof inOrder>[0]} row */
const withSigns = (row) => inOrder({ signed: true, ...row });

/** Sixteen bits, and four bits, of lane t. @param {Fields} fields @param {string} field */
const halfWord = ({ word }, field) => `(${word(field, 't >> 1u')} >> (16u * (t & 1u)))`;
/** @param {Fields} fields @param {string} field */
const nibble = ({ word }, field) => `(${word(field, 't >> 3u')} >> (4u * (t & 7u)))`;

/** two_bits(a): the four values of two bits in a byte, as bytes. */
const TWO_BITS = `
fn two_bits(a: u32) -> u32 { return (a | (a << 6u) | (a << 12u) | (a << 18u)) & 0x03030303u; }`;

/** ternary(a, b): the 16 digits of two entries of a codebook. */
const TERNARY = `
fn ternary(a: u32, b: u32) -> vec4u {
  return vec4u(two_bits(a & 255u), two_bits(a >> 8u), two_bits(b & 255u), two_bits(b >> 8u));
}`;

/** with_signs(codes, s): codes other than 0, negative where a bit of s is set. */
const SIGNS = `
fn with_signs(codes: vec4u, s: u32) -> vec4u {
  let minus = vec4u(bits4(s), bits4(s >> 4u), bits4(s >> 8u), bits4(s >> 12u));
  return (codes ^ (minus * vec4u(255u))) + minus;
}`;

/** even_signs(s): 16 signs of twice seven bits. The eighth makes the number of set bits even. */
const EVEN_SIGNS = `
fn even_signs(s: u32) -> u32 {
  let a = s & 127u;
  let b = (s >> 7u) & 127u;
  return a | ((countOneBits(a) & 1u) << 7u) | (b << 8u) | ((countOneBits(b) & 1u) << 15u);
}`;

/** Magnitudes of IQ2 are 8, 25 and 43. */
const IQ2 = `
fn iq2(a: u32, b: u32) -> vec4u {
  let c = ternary(a, b);
  return c * vec4u(17u) + vec4u(0x08080808u) + ((c >> vec4u(1u)) & vec4u(0x01010101u));
}`;

/** Magnitudes of IQ3_XXS are 4, 12 .. 52 and 62; those of IQ3_S are odd, 1 to 15. */
const IQ3 = `
fn four_bits(a: vec4u) -> vec4u {
  let b = (a | (a << vec4u(8u))) & vec4u(0x00ff00ffu);
  return (b | (b << vec4u(4u))) & vec4u(0x0f0f0f0fu);
}
fn iq3_xxs(a: vec4u) -> vec4u {
  let c = four_bits(a);
  let seven = c & (c >> vec4u(1u)) & (c >> vec4u(2u)) & vec4u(0x01010101u);
  return (c << vec4u(3u)) | vec4u(0x04040404u) | (seven << vec4u(1u));
}
fn iq3_s(a: vec4u) -> vec4u { return (four_bits(a) << vec4u(1u)) | vec4u(0x01010101u); }`;

const ALL_IQ2 = [BITS_4, TWO_BITS, TERNARY, SIGNS, IQ2];
const ALL_IQ3 = [BITS_4, SIGNS, IQ3];

/**
 * d * (2 * s + 1) as `scale`.
 * @param {string} d
 * @param {string} s  the bits of the scale
 */
const oddScale = (d, s) => `
  let scale = ${d} * (2.0 * f32(${s}) + 1.0);`;

/** Codes of IQ1 are 8 * ternary + delta + 9, with deltas of 1 and -1. @param {Fields} fields */
const iq1 = ({ entry, centre }) => `
  let codes = (ternary(${entry('e0')}, ${entry('e1')}) << vec4u(3u)) | (up * vec4u(0x01010101u));
  return Piece(codes, vec4f(scale), vec4f(${centre} * scale));`;

/** @param {string} codes */
const signed = (codes) => `
  return Piece(with_signs(${codes}, signs), vec4f(scale), vec4f(0.0));`;

/** The scale and signs of a sub-block of 32 are a word. @param {string} ofSub @param {string} d */
const scaleAndSigns = (ofSub, d) => `
  let s = ${ofSub};
  let signs = even_signs(s >> (14u * (t & 1u)));${oddScale(d, 's >> 28u')}`;

/** @type {Record<string, WgslType>} */
export const RARE_TYPES = {
  Q1_0: inOrder({
    fields: [
      ['d', 2],
      ['qs', 16],
    ],
    blockValues: 128,
    share: 2,
    centre: 1,
    body: (fields) => `
  let d = ${fields.half('d')};
  let b = ${halfWord(fields, 'qs')};
  let codes = vec4u(bits4(b), bits4(b >> 4u), bits4(b >> 8u), bits4(b >> 12u)) << vec4u(1u);
  return Piece(codes, vec4f(d), vec4f(${fields.centre} * d));`,
    extra: [BITS_4],
  }),
  Q2_0: inOrder({
    fields: [
      ['d', 2],
      ['qs', 16],
    ],
    blockValues: 64,
    share: 2,
    centre: 1,
    body: ({ half, word, centre }) => `
  let d = ${half('d')};
  let a = ${word('qs', 't')};
  return Piece(ternary(a & 0xffffu, a >> 16u), vec4f(d), vec4f(${centre} * d));`,
    extra: [TWO_BITS, TERNARY],
  }),
  NVFP4: inOrder({
    fields: [
      ['scales', 4],
      ['qs', 32],
    ],
    blockValues: 64,
    share: 1,
    centre: 12,
    hasFactor: true,
    body: ({ word, byte, factor, centre }) => `
  let p = mxfp4(${word('qs', '2u * t')});
  let q = mxfp4(${word('qs', '2u * t + 1u')});
  // A number of 4 bits of exponent and 3 of mantissa is an f16 number but for its bias. 0x7f is 0.
  let e = ${byte('scales', 't')};
  let d = select(128.0 * unpack2x16float((e & 127u) << 7u).x, 0.0, e == 127u);
  let scale = d * ${factor};
  return Piece(vec4u(p.x, q.x, p.y, q.y), vec4f(scale), vec4f(${centre} * scale));`,
    extra: [MXFP4],
  }),
  IQ2_XXS: withSigns({
    fields: [
      ['d', 2],
      ['qs', 64],
    ],
    blockValues: 256,
    share: 2,
    codebook: 'IQ2_XXS',
    body: ({ word, half, entry }) => `
  let k = t & 14u;
  let e = ${word('qs', 'k')} >> (16u * (t & 1u));${scaleAndSigns(word('qs', 'k + 1u'), `0.125 * ${half('d')}`)}${signed(
    `iq2(${entry('e & 255u')}, ${entry('(e >> 8u) & 255u')})`,
  )}`,
    extra: [...ALL_IQ2, EVEN_SIGNS],
  }),
  IQ2_XS: withSigns({
    fields: [
      ['d', 2],
      ['qs', 64],
      ['scales', 8],
    ],
    blockValues: 256,
    share: 1,
    codebook: 'IQ2_XS',
    body: (fields) => `
  let q = ${fields.word('qs', 't')};
  let signs = even_signs(((q >> 9u) & 127u) | ((q >> 25u) << 7u));${oddScale(
    `0.125 * ${fields.half('d')}`,
    `${nibble(fields, 'scales')} & 15u`,
  )}${signed(`iq2(${fields.entry('q & 511u')}, ${fields.entry('(q >> 16u) & 511u')})`)}`,
    extra: [...ALL_IQ2, EVEN_SIGNS],
  }),
  IQ2_S: withSigns({
    fields: [
      ['d', 2],
      ['qs', 32],
      ['signs', 32],
      ['qh', 8],
      ['scales', 8],
    ],
    blockValues: 256,
    share: 1,
    codebook: 'IQ2_S',
    body: (fields) => `
  let q = ${halfWord(fields, 'qs')};
  let h = ${nibble(fields, 'qh')};
  let e0 = (q & 255u) | ((h & 3u) << 8u);
  let e1 = ((q >> 8u) & 255u) | ((h & 12u) << 6u);
  let signs = ${halfWord(fields, 'signs')};${oddScale(
    `0.125 * ${fields.half('d')}`,
    `${nibble(fields, 'scales')} & 15u`,
  )}${signed(`iq2(${fields.entry('e0')}, ${fields.entry('e1')})`)}`,
    extra: ALL_IQ2,
  }),
  IQ3_XXS: withSigns({
    fields: [
      ['d', 2],
      ['qs', 64],
      ['scales_signs', 32],
    ],
    blockValues: 256,
    share: 2,
    codebook: 'IQ3_XXS',
    body: ({ word, half, entry }) => `
  let q = ${word('qs', 't')};${scaleAndSigns(word('scales_signs', 't >> 1u'), `0.25 * ${half('d')}`)}
  let e = (vec4u(q) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u);${signed(
    `iq3_xxs(vec4u(${['x', 'y', 'z', 'w'].map((k) => entry(`e.${k}`)).join(', ')}))`,
  )}`,
    extra: [...ALL_IQ3, EVEN_SIGNS],
  }),
  IQ3_S: withSigns({
    fields: [
      ['d', 2],
      ['qs', 64],
      ['qh', 8],
      ['signs', 32],
      ['scales', 4],
    ],
    blockValues: 256,
    share: 2,
    codebook: 'IQ3_S',
    body: (fields) => `
  let q = ${fields.word('qs', 't')};
  let h = ${nibble(fields, 'qh')};
  let e = ((vec4u(q) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u)) | ((vec4u(h) << vec4u(8u, 7u, 6u, 5u)) & vec4u(256u));
  let signs = ${halfWord(fields, 'signs')};${oddScale(
    fields.half('d'),
    `(${fields.word('scales', '0u')} >> (4u * (t >> 1u))) & 15u`,
  )}${signed(`iq3_s(vec4u(${['x', 'y', 'z', 'w'].map((k) => fields.entry(`e.${k}`)).join(', ')}))`)}`,
    extra: ALL_IQ3,
  }),
  IQ1_S: inOrder({
    fields: [
      ['d', 2],
      ['qs', 32],
      ['qh', 16],
    ],
    blockValues: 256,
    share: 2,
    centre: 9,
    codebook: 'IQ1_S',
    body: (fields) => `
  let q = ${halfWord(fields, 'qs')};
  let h = ${fields.word('qh', 't >> 2u')} >> (8u * (t & 2u));
  let g = h >> (6u * (t & 1u));
  let e0 = (q & 255u) | ((g & 7u) << 8u);
  let e1 = ((q >> 8u) & 255u) | ((g & 56u) << 5u);
  let up = vec4u((~h >> 14u) & 2u);${oddScale(`0.125 * ${fields.half('d')}`, '(h >> 12u) & 7u')}${iq1(fields)}`,
    extra: [TWO_BITS, TERNARY],
  }),
  IQ1_M: inOrder({
    fields: [
      ['qs', 32],
      ['qh', 16],
      ['scales', 8],
    ],
    blockValues: 256,
    share: 1,
    centre: 9,
    codebook: 'IQ1_S',
    body: (fields) => `
  let q = ${halfWord(fields, 'qs')};
  let h = ${fields.word('qh', 't >> 2u')} >> (8u * (t & 3u));
  let e0 = (q & 255u) | ((h & 7u) << 8u);
  let e1 = ((q >> 8u) & 255u) | ((h & 112u) << 4u);
  let up = (~vec4u(h, h, h >> 4u, h >> 4u) >> vec4u(2u)) & vec4u(2u);
  // Four integers of 16 bits have four bits of d each, and four scales of three bits.
  let s = vec2u(${fields.word('scales', '0u')}, ${fields.word('scales', '1u')});
  let d = ((s.x >> 12u) & 0xfu) | ((s.x >> 24u) & 0xf0u) | ((s.y >> 4u) & 0xf00u) | ((s.y >> 16u) & 0xf000u);
  let three = (select(s.x, s.y, t >= 8u) >> (4u * (t & 4u) + 3u * (t & 3u))) & 7u;${oddScale(
    '0.125 * unpack2x16float(d).x',
    'three',
  )}${iq1(fields)}`,
    extra: [TWO_BITS, TERNARY],
  }),
  /* There are 13 words of codes. Digit n of word w is
   *   run 8n + w              for w < 8
   *   run 40 + 4n + (w - 8)   for w < 12
   *   run 60 + n              for w = 12, which is qh and has four digits; the others have five
   * Lanes 0 to 11 and 15 decode digits 0 to 3 of a word, lanes 12 to 14 digit 4 of four words. */
  TQ1_0: superblock({
    fields: [
      ['qs', 52],
      ['d', 2],
    ],
    share: 2,
    centre: 1,
    runs: `select(
    vec4u(32u + 4u * (t & 3u) + 8u * (t & 2u)) + vec4u(0u, 1u, 2u, 3u),
    select(vec4u(32u + t) + vec4u(0u, 4u, 8u, 12u), vec4u(t) + vec4u(0u, 8u, 16u, 24u), t < 8u),
    t < 12u)`,
    body: ({ word, half, centre }) => `
  var w = vec4u(${word('qs', 'min(t, 12u)')});
  var power = vec4u(1u, 3u, 9u, 27u);
  if (t >= 12u && t < 15u) {
    let k = 4u * (t - 12u);
    w = vec4u(${[0, 1, 2, 3].map((n) => word('qs', `k + ${n}u`)).join(', ')});
    power = vec4u(81u);
  }
  // Digit n of a byte is 3 * (byte * 3^n mod 256) / 256, rounded down. Every other byte has room
  // for it in 16 bits.
  let mask = vec4u(0x00ff00ffu);
  let even = ((((w & mask) * power) & mask) * 3u) >> vec4u(8u);
  let odd = ((((w >> vec4u(8u)) & mask) * power) & mask) * 3u;
  let d = ${half('d')};
  return Piece((even & vec4u(0x00030003u)) | (odd & vec4u(0x03000300u)), vec4f(d), vec4f(${centre} * d));`,
  }),
  TQ2_0: superblock({
    fields: [
      ['qs', 64],
      ['d', 2],
    ],
    share: 4,
    centre: 1,
    runs: HALVES,
    body: (fields) => `${twoBits(fields)}
  let d = ${fields.half('d')};
  return Piece(two, vec4f(d), vec4f(${fields.centre} * d));`,
  }),
};
