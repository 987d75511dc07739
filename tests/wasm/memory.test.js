/** The linear memory: growth, accounting, reuse, and errors when it is full. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, HandleError, MemoryError } from '../../js/index.js';
import { data, kernels, ramp, shape } from '../helpers/small-weight.js';

test('results, weights and tensors survive the growth of the memory', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  const x = ramp(512);
  const tensor = fm.tensor({ nRows: 1, nCols: 512, data: x });
  const y = fm.fusedMatmul(w, x);
  const kept = y.slice();
  const inMemory = fm.fusedMatmul(w, tensor);
  const { bytes } = fm.memory();
  const large = fm.weight({ type: 'F32', nRows: 1, nCols: 8 * 2 ** 20 });
  assert.ok(fm.memory().bytes > bytes, 'the memory has grown');
  assert.deepEqual(y, kept);
  assert.equal(y.buffer.byteLength, y.byteLength);
  assert.deepEqual(inMemory.toArray(), kept);
  assert.deepEqual(tensor.toArray(), x);
  assert.deepEqual(fm.fusedMatmul(w, x), kept);
  assert.deepEqual(fm.fusedMatmul(w, tensor).toArray(), kept);
  large.free();
});

test('a call that must grow the memory itself gets its input there whole', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ type: 'F32', nRows: 3, nCols: 4, data: ramp(12) });
  const small = fm.fusedMatmul(w, ramp(4));
  const { bytes } = fm.memory();
  const nTokens = 2 ** 19;
  const x = new Float32Array(nTokens * 4);
  for (let i = 0; i < nTokens; i++) x.set(ramp(4), i * 4);
  const y = fm.fusedMatmul(w, x);
  assert.ok(fm.memory().bytes > bytes);
  for (const row of [0, 1, nTokens - 1]) assert.deepEqual(y.slice(row * 3, row * 3 + 3), small);
});

test('1000 times load, use and free: no growth, nothing left', async (t) => {
  const fm = await kernels(t);
  const x = ramp(512);
  const cycle = () => {
    const w = fm.weight({ ...shape, data });
    const tensor = fm.tensor({ nRows: 2, nCols: 512 });
    fm.fusedMatmul(w, x);
    fm.dequantize(w);
    fm.fusedMatmul(w, tensor).free();
    tensor.free();
    w.free();
  };
  cycle();
  const before = fm.memory();
  for (let i = 0; i < 1000; i++) cycle();
  assert.deepEqual(fm.memory(), before);
  assert.equal(before.handles, 0);
});

test('frees in any order give the memory back', async (t) => {
  const fm = await kernels(t);
  const before = () => Array.from({ length: 40 }, (_, i) => fm.tensor({ nRows: i + 1, nCols: 257 }));
  for (const tensor of before()) tensor.free();
  const { bytes } = fm.memory();
  for (let round = 0; round < 50; round++) {
    const tensors = before();
    tensors.sort((a, b) => ((a.nRows * 17 + round) % 40) - ((b.nRows * 17 + round) % 40));
    for (const tensor of tensors) tensor.free();
  }
  assert.equal(fm.memory().bytes, bytes);
});

test('the accounts add up', async (t) => {
  const fm = await kernels(t);
  const empty = fm.memory();
  assert.deepEqual(
    { ...empty, bytes: 0 },
    { bytes: 0, weights: 0, tensors: 0, scratch: 0, inUse: 0, peak: 0, handles: 0 },
  );
  const w = fm.weight({ ...shape, data });
  const tensor = fm.tensor({ nRows: 2, nCols: 512 });
  fm.fusedMatmul(w, ramp(512));
  const full = fm.memory();
  assert.equal(full.weights, data.length);
  assert.equal(full.tensors, 4096);
  assert.ok(full.scratch >= 4 * (512 + 9));
  assert.equal(full.inUse, full.weights + full.tensors + full.scratch);
  assert.deepEqual([full.peak, full.handles], [full.inUse, 2]);
  w.free();
  tensor.free();
  const after = fm.memory();
  assert.deepEqual(after, { ...full, weights: 0, tensors: 0, inUse: full.scratch, handles: 0 });
});

test('staging buffers are reused', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  fm.fusedMatmul(w, ramp(512 * 20));
  const { scratch, bytes } = fm.memory();
  for (let i = 1; i <= 20; i++) fm.fusedMatmul(w, ramp(512 * i));
  assert.deepEqual([fm.memory().scratch, fm.memory().bytes], [scratch, bytes]);
});

test('what does not fit is a MemoryError with the numbers, and the kernels go on', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  const before = fm.memory();
  for (const nRows of [2 ** 20, 2 ** 22 - 1, 2 ** 31]) {
    assert.throws(
      () => fm.tensor({ nRows, nCols: 2 ** 12 }),
      (/** @type {any} */ error) => {
        assert.ok(error instanceof MemoryError, String(error));
        assert.deepEqual([error.asked, error.inUse, error.limit], [nRows * 2 ** 14, data.length, 2 ** 32]);
        for (const number of [error.asked, error.inUse]) assert.ok(error.message.includes(String(number)));
        return true;
      },
    );
  }
  assert.throws(() => fm.weight({ type: 'F32', nRows: 2 ** 32 - 1, nCols: 2 ** 32 - 1 }), MemoryError);
  assert.deepEqual({ ...fm.memory(), bytes: 0 }, { ...before, bytes: 0 });
  assert.equal(fm.fusedMatmul(w, ramp(512)).length, 9);
});

test('after dispose everything says so, and disposing again does nothing', async () => {
  const fm = await createKernels();
  const other = await createKernels();
  const w = fm.weight({ ...shape, data });
  const tensor = fm.tensor({ nRows: 1, nCols: 512 });
  fm.dispose();
  fm.dispose();
  fm[Symbol.dispose]();
  assert.equal(fm.disposed, true);
  assert.equal(w.freed && tensor.freed, true);
  for (const use of [
    () => fm.memory(),
    () => fm.weight({ ...shape, data }),
    () => fm.tensor({ nRows: 1, nCols: 1 }),
    () => fm.fusedMatmul(w, ramp(512)),
    () => fm.dequantize(w),
    () => fm.select({ isa: 'scalar' }),
    () => fm.servedBy('Q4_K'),
    () => w.free(),
    () => w.rows(0, 1),
    () => tensor.toArray(),
    () => tensor.set(ramp(1)),
  ]) {
    assert.throws(
      use,
      (/** @type {any} */ error) => error instanceof HandleError && error.reason === 'disposed',
      String(use),
    );
  }
  w[Symbol.dispose]();
  const mine = other.weight({ ...shape, data });
  assert.equal(other.fusedMatmul(mine, ramp(512)).length, 9);
  other.dispose();
});
