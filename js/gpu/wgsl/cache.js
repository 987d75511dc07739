/* The keys and values of a layer in one buffer, and the WGSL that reads and writes them.
 *
 *   F32    keys, then values: a word a value
 *   F16    keys, then values: a word for two neighbouring values
 *   Q8_0   codes of keys, codes of values: a word for four; scales of keys, scales of values: a
 *          word, which is an f32 of f16 precision, for 32 values
 *
 * each row by row: a row has all heads of one position, and rowOf() says which row. */

import { up16 } from '../shader.js';

/** @typedef {import('../../wasm/kv-cache.js').KvType} KvType */

/**
 * The shape of a cache.
 * @typedef {object} CacheShape
 * @property {KvType} type
 * @property {number} nPositions
 * @property {number} [nRows]  positions that are stored, the latest ones; all by default
 * @property {number} nKvHeads
 * @property {number} headSize  a multiple of 4, for Q8_0 of 32
 */

/** Values that one word of codes or halves holds. @type {Record<KvType, number>} */
const WORD_VALUES = { F32: 1, F16: 2, Q8_0: 4 };

/** Values with one scale. */
const BLOCK = 32;

/** The bytes of a cache, and where its parts begin in words. @param {CacheShape} shape */
export function cacheLayout({ type, nPositions, nRows = nPositions, nKvHeads, headSize }) {
  const nCols = up16(nKvHeads * headSize);
  const rowWords = nCols / WORD_VALUES[type];
  const values = nRows * rowWords;
  const keyScales = 2 * values;
  const scaleWords = type === 'Q8_0' ? nCols / BLOCK : 0;
  const valueScales = keyScales + nRows * scaleWords;
  const words = valueScales + nRows * scaleWords;
  return { rowWords, scaleWords, values, keyScales, valueScales, bytes: 4 * words };
}

/**
 * The row of a position, in WGSL. Where not all are stored, later ones take the rows of the oldest.
 * @param {CacheShape} shape
 */
export const rowOf = ({ nPositions, nRows = nPositions }) =>
  nRows < nPositions ? `(position % ${nRows}u)` : 'position';

/**
 * The first or second four values of a piece: of the load `w` at `a`, or for F32 the next one.
 * Codes are scaled by `d`.
 * @type {Record<KvType, (second: boolean) => string>}
 */
const FOUR = {
  F32: (second) => `bitcast<vec4f>(${second ? 'cache[a + 1u]' : 'w'})`,
  F16: (second) => {
    const [x, y] = second ? 'zw' : 'xy';
    return `vec4f(unpack2x16float(w.${x}), unpack2x16float(w.${y}))`;
  },
  Q8_0: (second) =>
    `d * vec4f(vec4i(vec4u(w.${second ? 'y' : 'x'}) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u))`,
};

/**
 * Reads of a cache. A read gives `width` neighbouring values, 8 where headSize is a multiple of 8
 * and otherwise 4, with the widest loads that fit. The variable `cache` is `array<TYPE>` of the
 * `type` that is returned, and the functions are
 *
 *   key(position: u32, column: u32) -> PIECE     from a column on that is a multiple of `width`
 *   value(position: u32, column: u32) -> PIECE
 *
 * where PIECE is vec4f, or mat2x4f for 8 values; `parts` gives the vec4f of a variable of that
 * type.
 * @param {CacheShape} shape
 */
export function cacheReader(shape) {
  const { rowWords, scaleWords, values, keyScales, valueScales } = cacheLayout(shape);
  const row = rowOf(shape);
  const wide = shape.headSize % 8 === 0;
  // Words of a load: those of a piece, 4 at most.
  const load = shape.type === 'F32' || (shape.type === 'F16' && wide) ? 4 : 2;
  const fours = (wide ? [false, true] : [false]).map(FOUR[shape.type]);
  const one = (/** @type {string} */ name, /** @type {number} */ first, /** @type {number} */ firstScale) => `
fn ${name}(position: u32, column: u32) -> ${wide ? 'mat2x4f' : 'vec4f'} {
  let a = ${first / load}u + ${row} * ${rowWords / load}u + column / ${load * WORD_VALUES[shape.type]}u;
  let w = cache[a];${
    shape.type === 'Q8_0'
      ? `
  let b = ${firstScale}u + ${row} * ${scaleWords}u + column / ${BLOCK}u;
  let d = bitcast<f32>(cache[b >> 1u][b & 1u]);`
      : ''
  }
  return ${wide ? `mat2x4f(${fours.join(', ')})` : fours[0]};
}`;
  return {
    type: `vec${load}u`,
    width: wide ? 8 : 4,
    parts: (/** @type {string} */ of) => (wide ? [`${of}[0]`, `${of}[1]`] : [of]),
    code: one('key', 0, keyScales) + one('value', values, valueScales),
  };
}

/**
 * pack_halves(v: vec2f) -> u32: two f16 numbers, rounded to nearest, ties to even, on every device;
 * pack2x16float may round either way. Numbers that are too large become infinity.
 */
export const PACK_HALVES = `
fn pack_halves(v: vec2f) -> u32 {
  let bits = bitcast<vec2u>(v);
  let magnitude = bits & vec2u(0x7fffffffu);
  let exponent = magnitude >> vec2u(23u);
  let mantissa = (magnitude & vec2u(0x7fffffu)) | vec2u(0x800000u);
  // Subnormal halves lose more bits; from 25 on none is left.
  let lost = vec2u(clamp(126 - vec2i(exponent), vec2i(13), vec2i(25)));
  let odd = (mantissa >> lost) & vec2u(1u);
  let kept = (mantissa + (vec2u(1u) << (lost - 1u)) - 1u + odd) >> lost;
  let packed = min(kept + ((max(exponent, vec2u(113u)) - 113u) << vec2u(10u)), vec2u(0x7c00u));
  let result = select(packed, vec2u(0x7e00u), magnitude > vec2u(0x7f800000u)) | ((bits >> vec2u(16u)) & vec2u(0x8000u));
  return result.x | (result.y << 16u);
}`;

/**
 * Writes of pairs to a cache of F32 or F16 in the variable `cache: array<u32>`:
 *
 *   write_key2(position: u32, column: u32, v: vec2f)
 *   write_value2(position: u32, column: u32, v: vec2f)
 *
 * each of two neighbouring values from an even column on.
 * @param {CacheShape} shape
 */
export function pairWriter(shape) {
  const { rowWords, values } = cacheLayout(shape);
  const halves = shape.type === 'F16';
  const one = (/** @type {string} */ name, /** @type {number} */ first) => {
    const a = `let a = ${first}u + ${rowOf(shape)} * ${rowWords}u + column / ${WORD_VALUES[shape.type]}u;`;
    const store = halves
      ? 'cache[a] = pack_halves(v);'
      : 'cache[a] = bitcast<u32>(v.x); cache[a + 1u] = bitcast<u32>(v.y);';
    return `
fn ${name}(position: u32, column: u32, v: vec2f) { ${a} ${store} }`;
  };
  return (halves ? PACK_HALVES : '') + one('write_key2', 0) + one('write_value2', values);
}
