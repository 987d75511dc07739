/**
 * Queries, keys and values in float64, and how far f32 may be from them. A rotation of (a, b) errs
 * by |c| err(a) + |s| err(b) and 3 u (|a c| + |b s|): the table, the products, their sum. F16 of a
 * cache may be either neighbour: 2^-10 of the value, or 2^-24. A code of Q8_0 is within half a
 * step, and its scale within half a step of f16.
 */
import assert from 'node:assert/strict';
import { cacheLayout } from '../../js/gpu/wgsl/cache.js';
import { f16ToNumber } from './floats.js';

/** @import { CacheShape } from '../../js/gpu/wgsl/cache.js' */
/** @import { Rope } from '../../js/llama/plan.js' */

/**
 * A value, and how much a result may be off.
 * @typedef {{ value: number, error: number }} Bounded
 */
/** @typedef {[q: Bounded[], k: Bounded[], v: Bounded[]]} Parts */

const u = 2 ** -24;
export const [K, V] = [1, 2];

/**
 * @param {Bounded} a
 * @param {number} c
 * @param {Bounded} b
 * @param {number} s
 * @returns {Bounded} a c + b s
 */
const turnedSum = (a, c, b, s) => ({
  value: a.value * c + b.value * s,
  error:
    Math.abs(c) * a.error +
    Math.abs(s) * b.error +
    3 * u * (Math.abs(a.value * c) + Math.abs(b.value * s) + a.error + b.error),
});

/**
 * @param {Bounded[]} row  whole heads
 * @param {number} headSize
 * @param {Rope | undefined} rope
 * @param {number} position
 */
export function turn(row, headSize, rope, position) {
  if (!rope) return row;
  const out = [...row];
  const half = rope.nDims / 2;
  for (let head = 0; head < row.length; head += headSize) {
    for (let i = 0; i < half; i++) {
      const angle = (position * Math.exp((-Math.log(rope.base) * i) / half)) / rope.linearScale;
      const [a, b] =
        rope.pairing === 'adjacent' ? [head + 2 * i, head + 2 * i + 1] : [head + i, head + i + half];
      out[a] = turnedSum(row[a], Math.cos(angle), row[b], -Math.sin(angle));
      out[b] = turnedSum(row[a], Math.sin(angle), row[b], Math.cos(angle));
    }
  }
  return out;
}

/**
 * @param {Bounded[]} row
 * @param {number} n  values of a row of the norm
 * @param {ArrayLike<number>} gain
 * @param {number} eps
 */
export function rms(row, n, gain, eps) {
  return row.map(({ value, error }, i) => {
    const one = row.slice(i - (i % n), i - (i % n) + n);
    const squares = one.reduce((sum, v) => sum + v.value ** 2, 0);
    const off = one.reduce((sum, v) => sum + 2 * Math.abs(v.value) * v.error + v.error ** 2, 0);
    const f = 1 / Math.sqrt(squares / n + eps);
    const relative = off / squares / 2 + ((n + 3) / 2 + 10) * u;
    const g = gain[i % gain.length];
    return { value: value * f * g, error: Math.abs(f * g) * (error + (Math.abs(value) + error) * relative) };
  });
}

/**
 * Reads rows of a cache.
 * @param {Uint32Array} words
 * @param {CacheShape} shape
 * @param {number} part
 * @param {number} position
 */
export function cacheRow(words, shape, part, position) {
  const layout = cacheLayout(shape);
  const n = shape.nKvHeads * shape.headSize;
  const at = (part === V ? layout.values : 0) + position * layout.rowWords;
  const row = words.slice(at, at + layout.rowWords);
  if (shape.type === 'F32') return [...new Float32Array(row.buffer)].slice(0, n);
  if (shape.type === 'F16') return [...new Uint16Array(row.buffer)].slice(0, n).map(f16ToNumber);
  const scaleAt = (part === V ? layout.valueScales : layout.keyScales) + position * layout.scaleWords;
  const scales = new Float32Array(words.slice(scaleAt, scaleAt + layout.scaleWords).buffer);
  return [...new Int8Array(row.buffer)].slice(0, n).map((code, i) => code * scales[i >> 5]);
}

/**
 * What a cache makes of a row.
 * @param {Bounded[]} row
 * @param {CacheShape} shape
 * @returns {Bounded[]}
 */
export function stored(row, { type }) {
  if (type === 'F32') return row;
  return row.map(({ value, error }, i) => {
    const size = Math.abs(value) + error;
    if (type === 'F16') return { value, error: error + Math.max(size * 2 ** -10, 2 ** -24) };
    const block = row.slice(i - (i % 32), i - (i % 32) + 32);
    const most = Math.max(...block.map((v) => Math.abs(v.value) + v.error));
    return { value, error: error + (most / 254) * (1 + 1e-5) + Math.max(most * 2 ** -11, 127 * 2 ** -25) };
  });
}

/** @param {ArrayLike<number>} got @param {Bounded[]} expected @param {string} what */
export function within(got, expected, what) {
  assert.equal(got.length, expected.length);
  expected.forEach(({ value, error }, i) => {
    const off = Math.abs(got[i] - value);
    assert.ok(
      off <= error,
      `${what}[${i}] is ${got[i]}, float64 gives ${value}: error ${off}, bound ${error}`,
    );
  });
}
