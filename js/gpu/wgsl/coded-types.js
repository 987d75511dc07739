/* The quantised weight types in WGSL; the layouts of their blocks are drawn in src/formats/blocks.h. */

/** @typedef {import('./types.js').WgslType} WgslType */

/** The 6-bit scales and minimums of sub-blocks 2p and 2p + 1 of Q4_K and Q5_K: (scale, scale, min, min). */
const SCALES_K4 = `
fn scales_k4(a: u32, b: u32, c: u32, p: u32) -> vec4f {
  let ab = vec2u(a, b);
  let first = ab & vec2u(0x3f3f3f3fu);
  let later = vec2u(low4(c), high4(c)) | ((ab >> vec2u(2u)) & vec2u(0x30303030u));
  let s = select(first, later, p >= 2u) >> vec2u(16u * (p & 1u));
  return vec4f(vec4u(s.x, s.x >> 8u, s.y, s.y >> 8u) & vec4u(255u));
}`;

/** @type {Record<string, WgslType>} */
export const CODED_TYPES = {
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
    runs: 'vec4u(4u * t) + vec4u(0u, 1u, 2u, 3u)',
    body: ({ word, half }) => `
  let k = 4u * t;
  let codes = vec4u(${[0, 1, 2, 3].map((n) => word('qs', `k + ${n}u`)).join(', ')});
  return Piece(codes, vec4f(${half('d')}), vec4f(0.0));`,
  },
  Q4_K: {
    // d and dmin are one word.
    fields: [
      ['d', 4],
      ['scales', 12],
      ['qs', 128],
    ],
    blockValues: 256,
    lanes: 16,
    share: 4,
    coded: true,
    signed: false,
    runs: 'vec4u(16u * (t >> 2u) + 2u * (t & 3u)) + vec4u(0u, 1u, 8u, 9u)',
    body: ({ word }) => `
  let a = ${word('qs', '2u * t')};
  let b = ${word('qs', '2u * t + 1u')};
  let d = unpack2x16float(${word('d', '0u')});
  let s = scales_k4(${[0, 1, 2].map((n) => word('scales', `${n}u`)).join(', ')}, t >> 2u);
  return Piece(vec4u(low4(a), low4(b), high4(a), high4(b)), d.x * s.xxyy, d.y * s.zzww);`,
    extra: SCALES_K4,
  },
};
