/**
 * The JavaScript API of a layer's operations: float64 versions in JavaScript, and every kind of
 * input and output.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, Tensor } from '../../js/layer-index.js';
import { floatsOf } from './activations.js';
import { makeWeights } from './blocks.js';
import { Prng } from './prng.js';
import { referenceByName } from './reference.js';
import { libraryVariants } from './variants.js';

/** @import { Kernels } from '../../js/layer-index.js' */
/** @import { ReferenceType } from './reference.js' */

/** @typedef {Float32Array | Tensor} Floats */

/** Values of one seed, the most that was asked for. @type {Map<number, Float32Array>} */
const drawn = new Map();

/** @param {number} length @param {number} seed */
export const gaussian = (length, seed) => {
  let known = drawn.get(seed);
  if (!known || known.length < length) {
    const prng = new Prng(seed);
    known = floatsOf(length, () => prng.gaussian());
    drawn.set(seed, known);
  }
  return known.slice(0, length);
};

/**
 * @param {Kernels} fm @param {string} type @param {number} nRows @param {number} nCols
 * @param {number} seed
 */
export function weight(fm, type, nRows, nCols, seed) {
  const reference = /** @type {ReferenceType} */ (referenceByName.get(type));
  return fm.weight({
    type,
    nRows,
    nCols,
    data: makeWeights(reference, 'natural', nRows, nCols, new Prng(seed)),
  });
}

/** @param {Floats} x */
export const toArray = (x) => (x instanceof Tensor ? x.toArray() : x);

/**
 * Compares with float64 up to rounding. This shows which argument is which; the bounds of the
 * kernels are tested elsewhere.
 * @param {Floats} got @param {ArrayLike<number>} expected @param {string} what
 */
export function close(got, expected, what) {
  const y = toArray(got);
  assert.equal(y.length, expected.length, what);
  const scale = Math.max(...Array.from(expected, Math.abs));
  y.forEach((value, i) => {
    assert.ok(
      Math.abs(value - expected[i]) <= 1e-5 * scale,
      `${what}: [${i}] is ${value}, expected ${expected[i]}`,
    );
  });
}

/** @param {Float32Array} x @param {number} nCols @param {(row: number[]) => number[]} map */
export const byRow = (x, nCols, map) =>
  Array.from({ length: x.length / nCols }, (_, r) => map([...x.subarray(r * nCols, (r + 1) * nCols)])).flat();
/** @param {number[]} list */
export const sum = (list) => list.reduce((total, value) => total + value, 0);
/** @param {number[]} row */
export const softmax = (row) => {
  const max = Math.max(...row);
  const e = row.map((value) => (max === Number.NEGATIVE_INFINITY ? 0 : Math.exp(value - max)));
  return e.map((value) => value / (sum(e) || 1));
};

/** @param {string} name @param {(fm: Kernels) => void} body */
export function everywhere(name, body) {
  for (const { isa, dot, label, skip } of libraryVariants) {
    test(`layer api, ${name}: ${label}`, { skip }, async () => {
      const fm = await createKernels({ isa, dot });
      try {
        body(fm);
      } finally {
        fm.dispose();
      }
    });
  }
}

/**
 * Calls with arrays and with tensors, with new results, given results and, if allowed, the input
 * itself as result.
 * @param {Kernels} fm @param {Float32Array} x @param {number} nCols  columns of x as a tensor
 * @param {(x: any, options: { out?: any }) => Floats} call @param {ArrayLike<number>} expected
 * @param {number} outCols @param {{ what: string, inPlace?: boolean }} options
 */
export function bothKinds(fm, x, nCols, call, expected, outCols, { what, inPlace = true }) {
  const before = x.slice();
  const y = call(x, {});
  assert.ok(y instanceof Float32Array, what);
  close(y, expected, what);
  assert.deepEqual(x, before, `${what}: the input changed`);
  const tensor = fm.tensor({ nRows: x.length / nCols, nCols, data: x });
  const yt = call(tensor, {});
  assert.ok(yt instanceof Tensor && yt !== tensor, what);
  assert.deepEqual([yt.nRows, yt.nCols], [expected.length / outCols, outCols], `${what}: shape`);
  assert.deepEqual(yt.toArray(), y, `${what}: tensor`);
  assert.deepEqual(tensor.toArray(), before, `${what}: the tensor changed`);
  const given = new Float32Array(y.length);
  assert.equal(call(tensor, { out: given }), given);
  assert.deepEqual(given, y, `${what}: tensor to array`);
  yt.set(new Float32Array(y.length));
  assert.equal(call(x, { out: yt }), yt);
  assert.deepEqual(yt.toArray(), y, `${what}: array to tensor`);
  if (inPlace) {
    const copy = x.slice();
    assert.equal(call(copy, { out: copy }), copy);
    assert.deepEqual(copy, y, `${what}: array in place`);
    assert.equal(call(tensor, { out: tensor }), tensor);
    assert.deepEqual(tensor.toArray(), y, `${what}: tensor in place`);
  }
  tensor.free();
  yt.free();
}
