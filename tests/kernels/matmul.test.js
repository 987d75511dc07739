/**
 * Basic tests of the fused Q4_K product through the public API, in every instruction set of this
 * engine, with both relaxed dots and all activation modes; then the same properties for random
 * shapes and types.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createKernels, ShapeError } from '../../js/index.js';
import { floatsOf } from '../helpers/activations.js';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES, normError, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Kernels } from '../../js/index.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const Q4_K = /** @type {ReferenceType} */ (referenceByName.get('Q4_K'));

/**
 * Defines a test for each instruction set, dot and activation mode.
 * @param {string} name
 * @param {(fm: Kernels, activation: 'f32' | 'int16' | 'int8', served: number) => void} body
 */
function everywhere(name, body) {
  for (const { isa, dot, label, skip } of libraryVariants) {
    test(`${name}: ${label}`, { skip }, async (t) => {
      const fm = await createKernels({ isa, dot });
      try {
        assert.equal(fm.isa, isa);
        assert.equal(fm.info.dot, dot);
        for (const activation of ACTIVATION_NAMES) {
          await t.test(activation, () => {
            const served = ACTIVATION_NAMES.indexOf(fm.servedBy('Q4_K', activation).activation);
            body(fm, activation, served);
          });
        }
      } finally {
        fm.dispose();
      }
    });
  }
}

/** @param {number} nRows @param {number} nCols @param {number} seed */
function naturalWeight(nRows, nCols, seed) {
  const data = makeWeights(Q4_K, 'natural', nRows, nCols, new Prng(seed));
  return { data, reference: new ReferenceWeight(Q4_K, data, nRows, nCols) };
}

/** @param {number} length @param {number} seed */
const gaussian = (length, seed) => {
  const prng = new Prng(seed);
  return floatsOf(length, () => prng.gaussian());
};

/** Norm-wise bound, by the activation mode that serves. */
const PROMISED = [1e-4, 1e-4, 1e-2];

everywhere('fused_dequant_matmul_q4k_basic', (fm, activation) => {
  const [nTokens, nRows, nCols] = [2, 3, 256];
  const block = makeWeights(Q4_K, 'natural', 1, nCols, new Prng(1));
  const data = new Uint8Array(nRows * block.length);
  for (let r = 0; r < nRows; r++) data.set(block, r * block.length);
  const w = fm.weight({ type: 'Q4_K', nRows, nCols, data });
  const y = fm.fusedMatmul(w, gaussian(nTokens * nCols, 2), { activation });
  assert.equal(y.length, nTokens * nRows);
  assert.ok(y.every(Number.isFinite), `${y}`);
  assert.ok(y.some((value) => value !== 0));
  for (let t = 0; t < nTokens; t++) {
    for (let r = 1; r < nRows; r++)
      assert.equal(y[t * nRows + r], y[t * nRows], 'equal rows for equal blocks');
  }
  assert.notEqual(y[0], y[nRows], 'different tokens');
  w.free();
});

everywhere('fused_dequant_matmul_q4k_correctness', (fm, activation, served) => {
  /* 16 inputs with one call each, since the norm of a single pair of outputs can be small by
   * chance. */
  const [nInputs, nRows, nCols] = [16, 2, 512];
  const { data, reference } = naturalWeight(nRows, nCols, 3);
  const x = gaussian(nInputs * nCols, 4);
  const w = fm.weight({ type: 'Q4_K', nRows, nCols, data });
  const rows = fm.dequantize(w);
  /** @type {number[]} */
  const fused = [];
  /** @type {number[]} */
  const standalone = [];
  for (let t = 0; t < nInputs; t++) {
    const input = x.subarray(t * nCols, (t + 1) * nCols);
    fused.push(...fm.fusedMatmul(w, input, { activation }));
    for (let r = 0; r < nRows; r++) {
      standalone.push(input.reduce((sum, value, c) => sum + value * rows[r * nCols + c], 0));
    }
  }
  const error = normError(fused, standalone);
  assert.ok(error < PROMISED[served], `relative error ${error} to standalone dequantise and multiply`);
  const product = new ReferenceProduct(reference, x, nInputs);
  product.check(Float32Array.from(fused), { activation: served, what: 'float64 reference' });
  w.free();
});

everywhere('fused_dequant_matmul_q4k_batch', (fm, activation, served) => {
  const [nTokens, nRows, nCols] = [4, 5, 768];
  const { data, reference } = naturalWeight(nRows, nCols, 5);
  const x = gaussian(nTokens * nCols, 6);
  const w = fm.weight({ type: 'Q4_K', nRows, nCols, data });
  const product = new ReferenceProduct(reference, x, nTokens);

  const y = fm.fusedMatmul(w, x, { activation });
  product.check(y, { activation: served, what: 'batch of 4' });
  const out = new Float32Array(nTokens * nRows).fill(Number.NaN);
  assert.equal(fm.fusedMatmul(w, x, { activation, out }), out);
  assert.deepEqual(out, y);
  const single = new Float32Array(nTokens * nRows);
  for (let t = 0; t < nTokens; t++) {
    const token = x.subarray(t * nCols, (t + 1) * nCols);
    single.set(/** @type {Float32Array} */ (fm.fusedMatmul(w, token, { activation })), t * nRows);
  }
  product.check(single, { activation: served, what: 'one token at a time' });

  const tensor = fm.tensor({ nRows: nTokens, nCols, data: x });
  const inMemory = fm.fusedMatmul(w, tensor, { activation });
  assert.deepEqual(inMemory.toArray(), y, 'the same bits from a tensor in wasm memory');
  for (const handle of [tensor, inMemory, w]) handle.free();
});

everywhere('fused_dequant_matmul_q4k_validation', (fm, activation) => {
  const { data } = naturalWeight(2, 512, 7);
  /** @param {() => unknown} call @param {number[]} numbers  numbers that the message must show */
  const rejects = (call, ...numbers) => {
    assert.throws(call, (/** @type {any} */ error) => {
      assert.ok(error instanceof ShapeError && error instanceof RangeError, `${error}`);
      assert.equal(error.code, 'FM_SHAPE');
      for (const number of numbers) assert.match(error.message, new RegExp(`\\b${number}\\b`));
      return true;
    });
  };
  const shape = { type: 'Q4_K', nRows: 2, nCols: 512 };
  rejects(() => fm.weight({ ...shape, nCols: 500, data }), 500, 256);
  rejects(() => fm.weight({ ...shape, nCols: 128, data }), 128, 256);
  rejects(() => fm.weight({ ...shape, nRows: 3, data }), data.length, (data.length / 2) * 3);
  rejects(() => fm.weight({ ...shape, data: data.subarray(0, 144 * 3) }), 3, 4);
  rejects(() => fm.weight({ ...shape, data: data.subarray(1) }), data.length - 1, data.length);

  const w = fm.weight({ ...shape, data });
  const x = gaussian(2 * 512, 8);
  rejects(() => fm.fusedMatmul(w, x.subarray(0, 511), { activation }), 511, 512);
  rejects(() => fm.fusedMatmul(w, x.subarray(0, 513), { activation }), 513, 512);
  rejects(() => fm.fusedMatmul(w, new Float32Array(0), { activation }), 0, 512);
  const out = new Float32Array(5).fill(42);
  rejects(() => fm.fusedMatmul(w, x, { activation, out }), 5, 4);
  assert.ok(
    out.every((value) => value === 42),
    'out untouched',
  );
  assert.equal(fm.fusedMatmul(w, x, { activation }).length, 4, 'usable after errors');
  w.free();
});

const shapes = fc.record({
  seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  nTokens: fc.integer({ min: 1, max: 12 }),
  nRows: fc.integer({ min: 1, max: 12 }),
  nBlocks: fc.integer({ min: 1, max: 5 }),
  kind: fc.constantFrom('natural', 'mixed', 'poison', 'largest', 'negative'),
  activation: fc.constantFrom(...ACTIVATION_NAMES),
  typeIndex: fc.nat(),
});

for (const { isa, dot, label, skip } of libraryVariants) {
  test(`property: any shape, type and block is within its bound: ${label}`, { skip }, async () => {
    const fm = await createKernels({ isa, dot });
    fc.assert(
      fc.property(shapes, ({ seed, nTokens, nRows, nBlocks, kind, activation, typeIndex }) => {
        const { name } = fm.types[typeIndex % fm.types.length];
        const type = referenceByName.get(name);
        assert.ok(type, `reference.js has no ${name}`);
        const prng = new Prng(seed);
        const nCols = nBlocks * type.blockValues;
        const data = makeWeights(type, kind, nRows, nCols, prng);
        const x = Float32Array.from(
          { length: nTokens * nCols },
          () => prng.gaussian() * 10 ** prng.int(-2, 2),
        );
        const w = fm.weight({ type: name, nRows, nCols, data });
        try {
          const y = fm.fusedMatmul(w, x, { activation });
          const served = ACTIVATION_NAMES.indexOf(fm.servedBy(name, activation).activation);
          const product = new ReferenceProduct(new ReferenceWeight(type, data, nRows, nCols), x, nTokens);
          product.check(y, { activation: served, what: name });
        } finally {
          w.free();
        }
      }),
      { numRuns: 150, seed: 20251021 },
    );
    fm.dispose();
  });

  test(`property: the product is linear where arithmetic is exact: ${label}`, { skip }, async () => {
    const fm = await createKernels({ isa, dot });
    const { data } = naturalWeight(3, 256, 11);
    const w = fm.weight({ type: 'Q4_K', nRows: 3, nCols: 256, data });
    fc.assert(
      fc.property(
        fc.integer(),
        fc.integer({ min: -20, max: 20 }),
        fc.constantFrom(...ACTIVATION_NAMES),
        (seed, power, activation) => {
          const x = gaussian(2 * 256, seed);
          const y = fm.fusedMatmul(w, x, { activation });
          const scaled = fm.fusedMatmul(
            w,
            x.map((value) => value * 2 ** power),
            { activation },
          );
          assert.deepEqual(
            scaled,
            y.map((value) => value * 2 ** power),
            'a power of two only moves the exponent',
          );
          const negated = fm.fusedMatmul(
            w,
            x.map((value) => -value),
            { activation },
          );
          assert.deepEqual(
            negated.map((value) => -value + 0),
            y.map((value) => value + 0),
            'f(-x) = -f(x)',
          );
        },
      ),
      { numRuns: 50, seed: 20251021 },
    );
    fm.dispose();
  });
}
