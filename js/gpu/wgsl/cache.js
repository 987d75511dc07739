/* The keys and values of a layer in one buffer, and the WGSL that reads and writes them.
 *
 *   F32    keys, then values: a word a value
 *   F16    keys, then values: a word for two neighbouring values
 *   Q8_0   codes of keys, codes of values: a word for four; scales of keys, scales of values: a word, which is an f32 of f16
 *          precision, for 32 values
 *
 * each row by row: position by position, all heads of a position together. */

import { up16 } from '../shader.js';

/** @typedef {import('../../wasm/kv-cache.js').KvType} KvType */

/**
 * The shape of a cache.
 * @typedef {object} CacheShape
 * @property {KvType} type
 * @property {number} nPositions
 * @property {number} nKvHeads
 * @property {number} headSize  a multiple of 4, for Q8_0 of 32
 */

/** Values that one word of codes or halves holds. @type {Record<KvType, number>} */
const WORD_VALUES = { F32: 1, F16: 2, Q8_0: 4 };

/** Values with one scale. */
const BLOCK = 32;

/** The bytes of a cache, and where its parts begin in words. @param {CacheShape} shape */
export function cacheLayout({ type, nPositions, nKvHeads, headSize }) {
  const nCols = up16(nKvHeads * headSize);
  const rowWords = nCols / WORD_VALUES[type];
  const values = nPositions * rowWords;
  const keyScales = 2 * values;
  const scaleWords = type === 'Q8_0' ? nCols / BLOCK : 0;
  const valueScales = keyScales + nPositions * scaleWords;
  const words = valueScales + nPositions * scaleWords;
  return { rowWords, scaleWords, values, keyScales, valueScales, bytes: 4 * words };
}

/**
 * Reads of a cache in the variable `cache: array<u32>`:
 *
 *   key4(position: u32, column: u32) -> vec4f     four neighbouring values from a column on, a multiple of 4
 *   value4(position: u32, column: u32) -> vec4f
 * @param {CacheShape} shape
 */
export function cacheReader(shape) {
  const { rowWords, scaleWords, values, keyScales, valueScales } = cacheLayout(shape);
  const one = (/** @type {string} */ name, /** @type {number} */ first, /** @type {number} */ firstScale) => {
    const at = `let a = ${first}u + position * ${rowWords}u + column / ${WORD_VALUES[shape.type]}u;`;
    const body = {
      F32: `${at} return bitcast<vec4f>(vec4u(cache[a], cache[a + 1u], cache[a + 2u], cache[a + 3u]));`,
      F16: `${at} return vec4f(unpack2x16float(cache[a]), unpack2x16float(cache[a + 1u]));`,
      Q8_0: `${at} let d = bitcast<f32>(cache[${firstScale}u + position * ${scaleWords}u + column / ${BLOCK}u]);
  return d * vec4f(vec4i(vec4u(cache[a]) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));`,
    }[shape.type];
    return `
fn ${name}(position: u32, column: u32) -> vec4f { ${body} }`;
  };
  return one('key4', 0, keyScales) + one('value4', values, valueScales);
}

/**
 * Writes of pairs to a cache of F32 or F16 in the variable `cache: array<u32>`:
 *
 *   write_key2(position: u32, column: u32, v: vec2f)     two neighbouring values from an even column on
 *   write_value2(position: u32, column: u32, v: vec2f)
 * @param {CacheShape} shape
 */
export function pairWriter(shape) {
  const { rowWords, values } = cacheLayout(shape);
  const one = (/** @type {string} */ name, /** @type {number} */ first) => {
    const a = `let a = ${first}u + position * ${rowWords}u + column / ${WORD_VALUES[shape.type]}u;`;
    const store =
      shape.type === 'F16'
        ? 'cache[a] = pack2x16float(v);'
        : 'cache[a] = bitcast<u32>(v.x); cache[a + 1u] = bitcast<u32>(v.y);';
    return `
fn ${name}(position: u32, column: u32, v: vec2f) { ${a} ${store} }`;
  };
  return one('write_key2', 0) + one('write_value2', values);
}
