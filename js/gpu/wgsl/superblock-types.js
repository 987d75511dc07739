/* The weight types with super-blocks of 256 values in WGSL; the layouts are drawn in
 * src/formats/blocks.h. */

import { IQ4 } from './nibble-tables.js';

/** @typedef {import('./types.js').WgslType} WgslType */
/** @typedef {import('./types.js').Fields} Fields */

/**
 * @param {Omit<WgslType, 'blockValues' | 'lanes' | 'coded' | 'signed'> & { signed?: boolean }} row
 * @returns {WgslType}
 */
export const superblock = (row) => ({ blockValues: 256, lanes: 16, coded: true, signed: false, ...row });

/**
 * Lane 8h + l has columns 128h + 32k + 4l on, k = 0..3: a word of 2-bit codes of Q2_K, Q3_K and
 * TQ2_0, of halves of 128.
 */
export const HALVES = 'vec4u(32u * (t >> 3u) + (t & 7u)) + vec4u(0u, 8u, 16u, 24u)';
/**
 * Lane 4p + j has columns 64p + 8j and 64p + 32 + 8j on, eight each: two words of nibbles of Q4_K
 * and Q5_K.
 */
const QUARTERS = 'vec4u(16u * (t >> 2u) + 2u * (t & 3u)) + vec4u(0u, 1u, 8u, 9u)';

/** The lane of HALVES, and its 2-bit codes. @param {Fields} fields */
export const twoBits = ({ word }) => `
  let h = t >> 3u;
  let l = t & 7u;
  let q = ${word('qs', '8u * h + l')};
  let two = vec4u(q, q >> 2u, q >> 4u, q >> 6u) & vec4u(0x03030303u);`;

/** Codes of four bits. */
const FOUR = 'vec4u(low4(a), low4(b), high4(a), high4(b))';

/**
 * The 6-bit scales and minimums of sub-blocks 2p and 2p + 1 of Q4_K and Q5_K: (scale, scale, min,
 * min).
 */
const SCALES_K4 = `
fn scales_k4(a: u32, b: u32, c: u32, p: u32) -> vec4f {
  let ab = vec2u(a, b);
  let first = ab & vec2u(0x3f3f3f3fu);
  let later = vec2u(low4(c), high4(c)) | ((ab >> vec2u(2u)) & vec2u(0x30303030u));
  let s = select(first, later, p >= 2u) >> vec2u(16u * (p & 1u));
  return vec4f(vec4u(s.x, s.x >> 8u, s.y, s.y >> 8u) & vec4u(255u));
}`;

/**
 * The lane of QUARTERS, its words of nibbles, and its scales. d and dmin are one word.
 * @param {Fields} fields
 */
const quarters = ({ word }) => `
  let p = t >> 2u;
  let a = ${word('qs', '2u * t')};
  let b = ${word('qs', '2u * t + 1u')};
  let d = unpack2x16float(${word('d', '0u')});
  let s = scales_k4(${[0, 1, 2].map((n) => word('scales', `${n}u`)).join(', ')}, p);`;

/** @type {Record<string, WgslType>} */
export const SUPERBLOCK_TYPES = {
  Q2_K: superblock({
    // d and dmin are one word.
    fields: [
      ['scales', 16],
      ['qs', 64],
      ['d', 4],
    ],
    share: 4,
    runs: HALVES,
    body: (fields) => `${twoBits(fields)}
  let d = unpack2x16float(${fields.word('d', '0u')});
  // Run k has sub-block 8h + 2k + (l >> 2).
  let s = vec2u(${fields.word('scales', '2u * h')}, ${fields.word('scales', '2u * h + 1u')}) >> vec2u(8u * (l >> 2u));
  let both = vec4u(s.x, s.x >> 16u, s.y, s.y >> 16u);
  return Piece(two, d.x * vec4f(both & vec4u(15u)), d.y * vec4f((both >> vec4u(4u)) & vec4u(15u)));`,
  }),
  Q3_K: superblock({
    fields: [
      ['hmask', 32],
      ['qs', 64],
      ['scales', 12],
      ['d', 2],
    ],
    share: 4,
    centre: 4,
    runs: HALVES,
    body: (fields) => `${twoBits(fields)}
  let m = ${fields.word('hmask', 'l')} >> (4u * h);
  let codes = two | ((vec4u(m, m >> 1u, m >> 2u, m >> 3u) & vec4u(0x01010101u)) << vec4u(2u));
  // Run k has sub-block s = 8h + 2k + (l >> 2): nibble h of byte s % 8, and bits 2 * (s / 4) on of
  // byte s % 4 of the last word.
  let e = vec4u(8u * (l >> 2u));
  let lo = vec2u(${fields.word('scales', '0u')}, ${fields.word('scales', '1u')}) >> vec2u(4u * h);
  let hi = ${fields.word('scales', '2u')} >> (4u * h);
  let low = (vec4u(lo.x, lo.x >> 16u, lo.y, lo.y >> 16u) >> e) & vec4u(15u);
  let high = (vec4u(hi, hi >> 16u, hi >> 2u, hi >> 18u) >> e) & vec4u(3u);
  let scale = ${fields.half('d')} * (vec4f(low | (high << vec4u(4u))) - 32.0);
  return Piece(codes, scale, ${fields.centre} * scale);`,
  }),
  Q4_K: superblock({
    fields: [
      ['d', 4],
      ['scales', 12],
      ['qs', 128],
    ],
    share: 4,
    sumRuns: 2,
    runs: QUARTERS,
    body: (fields) => `${quarters(fields)}
  return Piece(${FOUR}, d.x * s.xxyy, d.y * s.zzww);`,
    extra: SCALES_K4,
  }),
  Q5_K: superblock({
    fields: [
      ['d', 4],
      ['scales', 12],
      ['qh', 32],
      ['qs', 128],
    ],
    share: 4,
    sumRuns: 2,
    runs: QUARTERS,
    body: (fields) => `${quarters(fields)}
  let j = 2u * (t & 3u);
  let h = vec2u(${fields.word('qh', 'j')}, ${fields.word('qh', 'j + 1u')}) >> vec2u(2u * p);
  let up = (vec4u(h, h >> vec2u(1u)) & vec4u(0x01010101u)) << vec4u(4u);
  return Piece(${FOUR} | up, d.x * s.xxyy, d.y * s.zzww);`,
    extra: SCALES_K4,
  }),
  Q6_K: superblock({
    fields: [
      ['ql', 128],
      ['qh', 64],
      ['scales', 16],
      ['d', 2],
    ],
    share: 4,
    centre: 32,
    runs: HALVES,
    body: ({ word, half, centre }) => `
  let h = t >> 3u;
  let l = t & 7u;
  let a = ${word('ql', '16u * h + l')};
  let b = ${word('ql', '16u * h + 8u + l')};
  let q = ${word('qh', '8u * h + l')};
  let up = vec4u(q << 4u, q << 2u, q, q >> 2u) & vec4u(0x30303030u);
  // Run k has sub-block 8h + 2k + (l >> 2).
  let s = vec2u(${word('scales', '2u * h')}, ${word('scales', '2u * h + 1u')}) >> vec2u(8u * (l >> 2u));
  let signed = vec4i(vec4u(s.x << 24u, s.x << 8u, s.y << 24u, s.y << 8u)) >> vec4u(24u);
  let scale = ${half('d')} * vec4f(signed);
  return Piece(${FOUR} | up, scale, ${centre} * scale);`,
  }),
  Q8_K: superblock({
    fields: [
      ['d', 4],
      ['qs', 256],
      ['bsums', 32],
    ],
    share: 2,
    signed: true,
    sumRuns: 4,
    runs: 'vec4u(4u * t) + vec4u(0u, 1u, 2u, 3u)',
    body: ({ word }) => `
  let k = 4u * t;
  let codes = vec4u(${[0, 1, 2, 3].map((n) => word('qs', `k + ${n}u`)).join(', ')});
  return Piece(codes, vec4f(bitcast<f32>(${word('d', '0u')})), vec4f(0.0));`,
  }),
  IQ4_XS: superblock({
    // d and scales_h are one word.
    fields: [
      ['d', 4],
      ['scales_l', 4],
      ['qs', 128],
    ],
    share: 2,
    centre: 128,
    sumRuns: 4,
    runs: 'vec4u(8u * (t >> 1u) + 2u * (t & 1u)) + vec4u(0u, 1u, 4u, 5u)',
    body: ({ word, centre }) => `
  let s = t >> 1u;
  let p = iq4(${word('qs', '2u * t')});
  let q = iq4(${word('qs', '2u * t + 1u')});
  let h = ${word('d', '0u')};
  let six = ((${word('scales_l', '0u')} >> (4u * s)) & 15u) | (((h >> (16u + 2u * s)) & 3u) << 4u);
  let scale = unpack2x16float(h).x * (f32(six) - 32.0);
  return Piece(vec4u(p.x, q.x, p.y, q.y), vec4f(scale), vec4f(${centre} * scale));`,
    extra: IQ4,
  }),
};
