/** Weight.rows: shared memory, every type, bounds, lifetime, in this thread and in a worker. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, createWorkerKernels, HandleError, ShapeError, types } from '../../js/layer-index.js';
import { makeWeights } from '../helpers/blocks.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';

/** @import { ReferenceType } from '../helpers/reference.js' */

/** @param {string} type @param {number} nRows */
function made(type, nRows, nCols = 512) {
  const reference = /** @type {ReferenceType} */ (referenceByName.get(type));
  return { type, nRows, nCols, data: makeWeights(reference, 'natural', nRows, nCols, new Prng(3)) };
}

const x = Float32Array.from({ length: 2 * 512 }, (_, i) => Math.sin(i));

for (const { name } of types.filter(({ served }) => served)) {
  test(`weight rows: ${name}`, async (t) => {
    const fm = await createKernels({ threads: 1 });
    t.after(() => fm.dispose());
    const given = made(name, 13);
    const w = fm.weight(given);
    const { handles, weights } = fm.memory();
    const rowBytes = given.data.length / 13;
    for (const [start, n] of [
      [0, 13],
      [0, 1],
      [12, 1],
      [3, 9],
    ]) {
      const part = w.rows(start, n);
      const data = given.data.slice(start * rowBytes, (start + n) * rowBytes);
      const copy = fm.weight({ ...given, nRows: n, data });
      assert.deepEqual([part.nRows, part.nCols, part.type, part.byteLength], [n, 512, name, data.length]);
      assert.deepEqual(fm.fusedMatmul(part, x), fm.fusedMatmul(copy, x));
      assert.deepEqual(fm.dequantize(part), fm.dequantize(copy));
      assert.deepEqual(fm.embed(part, [n - 1, 0]), fm.embed(copy, [n - 1, 0]));
      copy.free();
    }
    const inner = w.rows(2, 8).rows(3, 4);
    assert.deepEqual(fm.dequantize(inner), fm.dequantize(w, { start: 5, end: 9 }), 'rows of rows');
    assert.deepEqual([fm.memory().handles, fm.memory().weights], [handles, weights], 'nothing is taken');
  });
}

test('weight rows: bounds, lifetime, and rows that are written', async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const w = fm.weight({ ...made('Q4_K', 5), name: 'fused' });
  const part = w.rows(1, 2);
  for (const [start, n] of [
    [0, 6],
    [5, 1],
    [-1, 2],
    [0, 0],
    [0.5, 1],
    [1, 1.5],
    [Number.NaN, 1],
    [0, Number.POSITIVE_INFINITY],
    [2 ** 53, 1],
  ])
    assert.throws(() => w.rows(start, n), ShapeError, `${start}, ${n}`);
  assert.throws(
    () => w.rows(3, 4),
    (error) =>
      error instanceof ShapeError &&
      error.got === 7 &&
      error.expected === 5 &&
      /"fused".* 4 row\(s\) from row 3 on end at 7 of 5/.test(error.message),
  );
  assert.throws(() => part.rows(1, 2), /end at 3 of 2/);
  assert.throws(
    () => part.free(),
    (error) => error instanceof HandleError && error.reason === 'view',
  );
  part[Symbol.dispose]();
  assert.equal(part.freed || w.freed, false);
  const dense = fm.weight({ type: 'F32', nRows: 3, nCols: 512 });
  fm.dequantize(w, { start: 2, end: 4, out: dense.rows(1, 2) });
  assert.deepEqual(fm.dequantize(dense, { start: 1 }), fm.dequantize(w, { start: 2, end: 4 }));
  assert.ok(fm.dequantize(dense, { end: 1 }).every((value) => value === 0));
  w.free();
  assert.equal(part.freed, true);
  for (const use of [() => part.rows(0, 1), () => fm.fusedMatmul(part, x), () => w.rows(0, 1)])
    assert.throws(use, (error) => error instanceof HandleError && error.reason === 'freed');
  const other = await createKernels({ threads: 1 });
  t.after(() => other.dispose());
  const foreign = dense.rows(0, 1);
  assert.throws(
    () => other.fusedMatmul(foreign, x.subarray(0, 512)),
    (error) => error instanceof HandleError && error.reason === 'foreign',
  );
});

test('weight rows: in a worker, by calls and in a sequence', async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const there = await createWorkerKernels({ threads: 1 });
  t.after(() => there.dispose());
  const given = made('Q8_0', 9);
  const [w, far] = [fm.weight(given), await there.weight(given)];
  const expected = fm.fusedMatmul(w.rows(4, 3), x);
  const part = await far.rows(4, 3);
  assert.deepEqual([part.nRows, part.nCols, part.type], [3, 512, 'Q8_0']);
  assert.deepEqual(await there.fusedMatmul(part, x), expected);
  const before = await there.memory();
  const inSequence = await there.sequence((ops) => {
    const rows = ops.weight(given).rows(4, 3);
    return ops.fusedMatmul(rows, ops.tensor({ nRows: 2, nCols: 512, data: x })).toArray();
  });
  assert.deepEqual(inSequence, expected);
  assert.deepEqual(await there.sequence(() => far.rows(8, 1)).then((one) => one.nRows), 1);
  const { handles, weights } = await there.memory();
  assert.deepEqual([handles, weights], [before.handles, before.weights], 'what a sequence made is freed');
  await assert.rejects(far.rows(4, 9), ShapeError);
  part.free();
  assert.deepEqual(await there.fusedMatmul(far, x), fm.fusedMatmul(w, x), 'the weight stays');
});
