/**
 * The quantisers for blocks of 32 that all GGUF producers share, from their published definition:
 * f32 arithmetic throughout, f16 scales rounded to nearest even. The K types have no such
 * definition, as producers search for scales in different ways.
 */
import { numberToF16 } from './floats.js';

const f = Math.fround;
const BLOCK = 32;

/**
 * @param {Float32Array} x
 * @returns {number} the value of largest magnitude, the first of equals, with its sign
 */
function signedMax(x) {
  let max = 0;
  for (const value of x) if (Math.abs(value) > Math.abs(max)) max = value;
  return max;
}

/** @param {number} d */
const inverse = (d) => (d === 0 ? 0 : f(1 / d));
/** @param {number} value @param {number} most */
const code = (value, most) => Math.min(most, Math.trunc(value));

/**
 * Codes for a symmetric type: d = max / -half, code = x / d + half.
 * @param {Float32Array} x @param {number} half
 */
function symmetric(x, half) {
  const d = f(signedMax(x) / -half);
  const id = inverse(d);
  const codes = [...x].map((value) => code(f(f(value * id) + half + 0.5), 2 * half - 1));
  return { scales: [d], codes };
}

/**
 * Codes for a type with a minimum: d = (max - min) / most, code = (x - min) / d.
 * @param {Float32Array} x @param {number} most
 */
function withMin(x, most) {
  const min = Math.min(...x);
  const d = f(f(Math.max(...x) - min) / most);
  const id = inverse(d);
  const codes = [...x].map((value) => code(f(f(f(value - min) * id) + 0.5), most));
  return { scales: [d, min], codes };
}

/**
 * Packs f16 scales, the fifth bits if there are any, and the nibbles.
 * @param {{ scales: number[], codes: number[] }} block @param {boolean} fifth @returns {Uint8Array}
 */
function packNibbles({ scales, codes }, fifth) {
  const high = fifth ? 4 : 0;
  const bytes = new Uint8Array(2 * scales.length + high + BLOCK / 2);
  const view = new DataView(bytes.buffer);
  scales.forEach((scale, i) => {
    view.setUint16(2 * i, numberToF16(scale), true);
  });
  const at = 2 * scales.length;
  codes.forEach((value, i) => {
    if (fifth && value & 16) bytes[at + (i >> 3)] |= 1 << (i & 7);
    bytes[at + high + (i % 16)] |= (value & 15) << (i < 16 ? 0 : 4);
  });
  return bytes;
}

/** @type {Record<string, (x: Float32Array) => Uint8Array>} one block of 32 values to bytes */
const blockQuantizers = {
  Q4_0: (x) => packNibbles(symmetric(x, 8), false),
  Q4_1: (x) => packNibbles(withMin(x, 15), false),
  Q5_0: (x) => packNibbles(symmetric(x, 16), true),
  Q5_1: (x) => packNibbles(withMin(x, 31), true),
  Q8_0: (x) => {
    const d = f(Math.abs(signedMax(x)) / 127);
    const id = inverse(d);
    const bytes = new Uint8Array(2 + BLOCK);
    new DataView(bytes.buffer).setUint16(0, numberToF16(d), true);
    x.forEach((value, i) => {
      const scaled = f(value * id);
      bytes[2 + i] = Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5);
    });
    return bytes;
  },
};

export const sharedQuantizers = Object.keys(blockQuantizers);

/**
 * @param {string} typeName  one of sharedQuantizers @param {Float32Array} x @returns {Uint8Array}
 */
export function quantize(typeName, x) {
  const blocks = [];
  for (let at = 0; at < x.length; at += BLOCK)
    blocks.push(blockQuantizers[typeName](x.subarray(at, at + BLOCK)));
  return new Uint8Array(Buffer.concat(blocks));
}
