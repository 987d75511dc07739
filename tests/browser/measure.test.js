/** The page's own check: it must accept what is right and refuse what is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytes, dimensions, duration, scientific } from '../../web/format.js';
import { Comparison, normBound, randomActivations } from '../../web/reference.js';
import { firstTensor } from '../../web/views/tensors-view.js';

const nRows = 6;
const nCols = 512;
const nTokens = 3;
const modes = /** @type {(keyof typeof normBound)[]} */ (Object.keys(normBound));

/** @param {keyof typeof normBound} mode @param {(y: Float64Array) => void} [spoil] */
function compare(mode, spoil = () => {}) {
  const x = randomActivations(nTokens * nCols, 1);
  const w = randomActivations(nRows * nCols, 2);
  const y = new Float64Array(nTokens * nRows);
  for (let t = 0; t < nTokens; t++) {
    for (let r = 0; r < nRows; r++) {
      for (let c = 0; c < nCols; c++) y[t * nRows + r] += x[t * nCols + c] * w[r * nCols + c];
    }
  }
  spoil(y);
  const comparison = new Comparison(x, nCols, mode);
  for (let r = 0; r < nRows; r++) {
    comparison.addRow(w.subarray(r * nCols, (r + 1) * nCols), (t) => y[t * nRows + r]);
  }
  return comparison.summary();
}

for (const mode of modes) {
  test(`the check of ${mode} results accepts the exact product and refuses a wrong one`, () => {
    const right = compare(mode);
    assert.equal(right.pass, true);
    assert.deepEqual([right.error, right.worst, right.outputs], [0, 0, nTokens * nRows]);
    const wrong = {
      'one output is not a number': (/** @type {Float64Array} */ y) => y.fill(NaN, 4, 5),
      'one output is infinite': (/** @type {Float64Array} */ y) => y.fill(Infinity, 4, 5),
      'one output is missing': (/** @type {Float64Array} */ y) => y.fill(0, 4, 5),
      'a token has the outputs of another': (/** @type {Float64Array} */ y) =>
        y.set(y.slice(0, 2 * nRows).copyWithin(0, nRows)),
      'everything is larger by 3 %': (/** @type {Float64Array} */ y) => y.set(y.map((value) => value * 1.03)),
    };
    for (const [what, spoil] of Object.entries(wrong)) assert.equal(compare(mode, spoil).pass, false, what);
  });
}

test('activations repeat with their seed and are normal-distributed', () => {
  const x = randomActivations(20_000, 7);
  assert.deepEqual(x, randomActivations(20_000, 7));
  assert.notDeepEqual(x, randomActivations(20_000, 8));
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const variance = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  assert.ok(Math.abs(mean) < 0.03, `mean ${mean}`);
  assert.ok(Math.abs(variance - 1) < 0.05, `variance ${variance}`);
});

test('numbers are written with three digits and their unit', () => {
  const plain = (/** @type {string} */ text) => text.replaceAll('\u00a0', ' ');
  assert.equal(plain(duration(0.000_4)), '400 ns');
  assert.equal(plain(duration(0.012_345)), '12.3 µs');
  assert.equal(plain(duration(12_345)), '12.3 s');
  assert.equal(plain(bytes(999)), '999 B');
  assert.equal(plain(bytes(1_573_824)), '1.57 MB');
  assert.equal(plain(scientific(2.504e-5)), '2.5 × 10⁻⁵');
  assert.equal(plain(dimensions([4096, 14336])), '14,336 × 4,096');
});

test('the first matrix is of the type that most of the file is of, and not too large', () => {
  const tensor = (
    /** @type {string} */ name,
    /** @type {string} */ type,
    /** @type {number} */ byteLength,
    obstacle = '',
  ) => ({
    name,
    type,
    shape: [256, 1],
    nRows: 1,
    nCols: 256,
    byteLength,
    obstacle,
  });
  const [embedding, small, large, huge, plain, vector] = [
    tensor('embedding', 'Q6_K', 300),
    tensor('small', 'Q4_K', 200),
    tensor('large', 'Q4_K', 250),
    tensor('huge', 'Q4_K', 1e9),
    tensor('plain', 'F32', 5000),
    tensor('vector', 'F32', 100, 'vector, not a matrix'),
  ];
  assert.equal(firstTensor([plain, embedding, small, large, huge, vector]), large);
  assert.equal(firstTensor([plain, vector]), plain);
  assert.equal(firstTensor([huge]), undefined);
  assert.equal(firstTensor([]), undefined);
});
