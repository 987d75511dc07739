/* Tables of 16 values in WGSL, for the eight 4-bit codes of a word at once.
 *
 * A table in memory costs a load for each code, and a chain of selects some twelve instructions.
 * Instead each bit of a value is a Boolean function of the bits a, b, c, d of its code (a is the
 * lowest), and a word has eight codes side by side: shifted by 0 to 3 it has a, b, c and d of all
 * of them in the lowest bits of its nibbles. The functions are the shortest that a search over AND,
 * OR, XOR and NOT found. */

/**
 * A function of a word with eight codes: the values of the low nibbles as bytes, then those of the
 * high nibbles.
 * @param {string} name
 * @param {readonly string[]} bits  five Boolean functions, the lowest bit first
 * @param {string} [more]  is added to the bytes
 */
const table = (name, bits, more = '') => `
fn ${name}(a: u32) -> vec2u {
  let b = a >> 1u;
  let c = a >> 2u;
  let d = a >> 3u;
  let low = ${[0, 1, 2, 3].map((k) => `(((${bits[k]}) & 0x11111111u) << ${k}u)`).join(' | ')};
  let top = (${bits[4]}) & 0x11111111u;
  return vec2u(low4(low) | ((top & 0x01010101u) << 4u), high4(low) | (top & 0x10101010u))${more};
}`;

/**
 * Values of IQ4_NL and IQ4_XS, plus 128. A value is 16 * code - 127 plus a small difference. The
 * functions give that difference plus 12, which is 0 to 26.
 */
export const IQ4 = table(
  'iq4',
  [
    'c ^ ((a | c) & ~(b ^ (d & ~(c & ~b))))',
    '(a ^ (c & ~(b & ~a))) & ~d',
    '~(a ^ ((c ^ (b & ~d)) & ~(a ^ (b & c))))',
    '~(b ^ ((a | (b ^ c)) & ~(c ^ d)))',
    '(a | b | c) & ~d',
  ],
  '\n    + (vec2u(a << 4u, a) & vec2u(0xf0f0f0f0u)) - vec2u(0x0b0b0b0bu)',
);

/** Values of MXFP4 plus 12. They are twice those of e2m1: -12 to 12. */
export const MXFP4 = table('mxfp4', [
  'a & ~c',
  'b ^ ((a | b) & (c | (a & d)))',
  '~((d & (a | b)) ^ (c & ~(b & ~(a ^ d))))',
  '~(c & ~((a ^ d) & ~(a ^ b)))',
  'c & ~d',
]);
