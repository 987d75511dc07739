/** Handles: loading, use, and every kind of wrong use. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ArgumentError,
  createKernels,
  GgufError,
  HandleError,
  openGguf,
  ShapeError,
  Tensor,
  Weight,
} from '../../js/index.js';
import { addressIn } from '../../js/wasm/handles.js';
import { memoryOf } from '../../js/wasm/kernels.js';
import { countedBytes, ggufBytes, sampleGguf } from '../helpers/gguf-bytes.js';
import { startServer } from '../helpers/range-server.js';
import { data, kernels, ramp, shape } from '../helpers/small-weight.js';

/**
 * A GGUF file of one Q4_K weight with 8,640 rows (2.5 MB: several chunks), in which the rows of
 * `data` repeat.
 */
function largeGguf() {
  const bytes = new Uint8Array(960 * data.length);
  for (let at = 0; at < bytes.length; at += data.length) bytes.set(data, at);
  return ggufBytes({ tensors: [{ name: 'w', typeId: 12, shape: [512, 8640], data: bytes }] }).bytes;
}

/** @param {'freed' | 'foreign' | 'disposed'} reason */
const handleError = (reason) => (/** @type {any} */ error) =>
  error instanceof HandleError && error.reason === reason;

test('a weight streamed from a file computes what the same bytes given at once compute', async (t) => {
  const fm = await kernels(t);
  const bytes = largeGguf();
  const x = ramp(512);
  const expected = fm.fusedMatmul(fm.weight({ ...shape, data }), x);
  for (const source of [bytes, new Blob([bytes])]) {
    const w = await fm.loadWeight(await openGguf(source), 'w');
    assert.ok(w instanceof Weight);
    assert.deepEqual(
      [w.type, w.nRows, w.nCols, w.byteLength, w.name],
      ['Q4_K', 8640, 512, 960 * data.length, 'w'],
    );
    const y = fm.fusedMatmul(w, x);
    for (let row = 0; row < y.length; row++) assert.equal(y[row], expected[row % 9]);
    w.free();
  }
});

test('progress rises to the total, one step a chunk', async (t) => {
  const fm = await kernels(t);
  const gguf = await openGguf(largeGguf());
  /** @type {{ loaded: number, total: number }[]} */
  const steps = [];
  const w = await fm.loadWeight(gguf, 'w', { onProgress: (step) => steps.push(step) });
  assert.ok(steps.length >= 3);
  for (const [i, { loaded, total }] of steps.entries()) {
    assert.equal(total, w.byteLength);
    assert.ok(loaded > (steps[i - 1]?.loaded ?? 0));
  }
  assert.equal(steps.at(-1)?.loaded, w.byteLength);
});

test('a load that ends early gives its memory back', async (t) => {
  const fm = await kernels(t);
  const bytes = largeGguf();
  const server = await startServer(bytes);
  t.after(() => server.close());
  const gguf = await openGguf(bytes);
  const remote = await openGguf(server.url);
  server.behaviour.breakAt = 2_100_000;
  const enough = new Error('enough');
  const abort = new AbortController();
  const before = { ...fm.memory(), bytes: 0, peak: 0 };
  const onProgress = () => {
    throw enough;
  };
  for (const [load, reason] of /** @type {[() => Promise<Weight>, any][]} */ ([
    [() => fm.loadWeight(gguf, 'w', { signal: AbortSignal.abort(enough) }), enough],
    [() => fm.loadWeight(gguf, 'w', { signal: abort.signal, onProgress: () => abort.abort(enough) }), enough],
    [() => fm.loadWeight(gguf, 'w', { onProgress }), enough],
    [() => fm.loadWeight(remote, 'w'), GgufError],
    [() => fm.loadWeight(gguf, 'v'), GgufError],
  ])) {
    await assert.rejects(load(), reason);
    assert.deepEqual({ ...fm.memory(), bytes: 0, peak: 0 }, before, String(load));
  }
  delete server.behaviour.breakAt;
  const w = await fm.loadWeight(remote, 'w');
  assert.equal(fm.memory().weights, w.byteLength);
});

test('the memory may grow, and the kernels be disposed, while a weight is loaded', async (t) => {
  const fm = await kernels(t);
  const gguf = await openGguf(largeGguf());
  const w = await fm.loadWeight(gguf, 'w', { onProgress: () => fm.tensor({ nRows: 1024, nCols: 1024 }) });
  assert.deepEqual(fm.dequantize(w, { start: 8631 }), fm.dequantize(fm.weight({ ...shape, data })));
  const gone = await createKernels();
  await assert.rejects(
    gone.loadWeight(gguf, 'w', { onProgress: () => gone.dispose() }),
    handleError('disposed'),
  );
  await assert.rejects(gone.loadWeight(gguf, 'w'), handleError('disposed'));
});

test('tensors that are no weights, and arguments that are no files', async (t) => {
  const fm = await kernels(t);
  const gguf = await openGguf(sampleGguf().bytes);
  await assert.rejects(fm.loadWeight(gguf, 'other.weight'), {
    name: 'ArgumentError',
    message: /I8 has no kernels/,
  });
  await assert.rejects(fm.loadWeight(/** @type {any} */ ({}), 'w'), ArgumentError);
  const norm = await fm.loadWeight(gguf, 'norm.weight');
  assert.deepEqual([norm.nRows, norm.nCols], [1, 5]);
  assert.deepEqual(fm.dequantize(norm), Float32Array.of(1, 2, 3, 4, 5));
});

test('weights from any kind of buffer', async (t) => {
  const fm = await kernels(t);
  const x = ramp(512);
  const y = fm.fusedMatmul(fm.weight({ ...shape, data }), x);
  const shared = new SharedArrayBuffer(data.length);
  new Uint8Array(shared).set(data);
  const odd = new Uint8Array(data.length + 1);
  odd.set(data, 1);
  for (const same of [
    data.buffer,
    shared,
    odd.subarray(1),
    new DataView(data.buffer),
    new Uint32Array(data.buffer),
  ]) {
    assert.deepEqual(fm.fusedMatmul(fm.weight({ ...shape, data: same }), x), y);
  }
  assert.deepEqual(fm.fusedMatmul(fm.weight({ ...shape, type: 12, data }), x), y);
  const values = ramp(12);
  assert.deepEqual(fm.dequantize(fm.weight({ type: 'F32', nRows: 3, nCols: 4, data: values })), values);
  for (const wrong of [undefined, null, 'x', [1, 2]]) {
    assert.throws(() => fm.weight({ ...shape, data: /** @type {any} */ (wrong) }), ArgumentError);
  }
});

test('shapes that do not fit show both numbers', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  const x = ramp(512);
  const before = fm.memory();
  /** @type {[() => unknown, number, number | string][]} */
  const wrong = [
    [() => fm.weight({ ...shape, nCols: 500, data }), 500, 256],
    [() => fm.weight({ ...shape, data: data.subarray(144) }), 2592 - 144, 2592],
    [() => fm.weight({ ...shape, data: data.subarray(144) }), 17, 18],
    [() => fm.weight({ ...shape, nRows: 0, data }), 0, 1],
    [() => fm.weight({ ...shape, nRows: 2.5, data }), 2.5, 'integer'],
    [() => fm.weight({ ...shape, nRows: -9, data }), -9, 1],
    [() => fm.tensor({ nRows: 2, nCols: 2, data: ramp(3) }), 3, 4],
    [() => fm.tensor({ nRows: 2, nCols: Number.NaN }), 1, 'NaN'],
    [() => fm.fusedMatmul(w, ramp(300)), 300, 512],
    [() => fm.fusedMatmul(w, ramp(0)), 0, 512],
    [() => fm.fusedMatmul(w, ramp(513)), 513, 512],
    [() => fm.fusedMatmul(w, x, { out: new Float32Array(8) }), 8, 9],
    [() => fm.fusedMatmul(w, ramp(1024), { out: new Float32Array(9) }), 9, 18],
    [() => fm.fusedMatmul(w, fm.tensor({ nRows: 512, nCols: 1 })), 1, 512],
    [() => fm.dequantize(w, { start: 3, end: 10 }), 10, 9],
    [() => fm.dequantize(w, { start: -1 }), -1, 9],
    [() => fm.dequantize(w, { start: 4, end: 4 }), 4, 9],
    [() => fm.dequantize(w, { start: 0, end: 1, out: new Float32Array(511) }), 511, 512],
    [() => fm.tensor({ nRows: 1, nCols: 4 }).set(ramp(3), 2), 3, 4],
  ];
  for (const [call, ...numbers] of wrong) {
    assert.throws(call, (/** @type {any} */ error) => {
      assert.ok(error instanceof ShapeError && error instanceof RangeError, `${call}: ${error}`);
      for (const number of numbers)
        assert.match(error.message, new RegExp(`(^|[^\\d])${number}($|[^\\d])`), String(call));
      return true;
    });
  }
  assert.equal(fm.memory().weights, before.weights);
  assert.equal(fm.fusedMatmul(w, x).length, 9);
});

test('arguments of the wrong kind', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  const x = ramp(512);
  /** @type {any} */
  const loose = fm;
  for (const call of [
    () => loose.weight({ ...shape, type: 'Q9_Z', data }),
    () => loose.fusedMatmul({}, x),
    () => loose.fusedMatmul(undefined, x),
    () => loose.fusedMatmul(w, [1, 2]),
    () => loose.fusedMatmul(w, new Float64Array(512)),
    () => loose.fusedMatmul(w, x, { out: [] }),
    () => loose.fusedMatmul(w, x, { activation: 'int4' }),
    () => loose.fusedMatmul(w, x, { activation: null }),
    () => loose.dequantize(x),
    () => loose.dequantize(w, { out: new Float64Array(9 * 512) }),
    () => loose.dequantize(w, { out: w }),
    () => loose.tensor({ nRows: 1, nCols: 2, data: [1, 2] }),
    () => loose.tensor({ nRows: 1, nCols: 2 }).set([1, 2]),
    () => loose.select({ isa: 'avx2' }),
    () => loose.servedBy('Q4_K', 'int4'),
  ]) {
    assert.throws(
      call,
      (error) => error instanceof ArgumentError && error instanceof TypeError,
      String(call),
    );
  }
  assert.equal(fm.fusedMatmul(w, x).length, 9);
});

test('use after free, double free, and free by `using`', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  const tensor = fm.tensor({ nRows: 1, nCols: 512 });
  assert.equal(w.freed || tensor.freed, false);
  const ptr = addressIn(w, memoryOf(fm));
  assert.ok(ptr > 0 && ptr % 64 === 0);
  w.free();
  tensor.free();
  assert.equal(w.freed && tensor.freed, true);
  const live = fm.weight({ ...shape, data });
  for (const call of [
    () => w.free(),
    () => tensor.free(),
    () => w.rows(0, 1),
    () => fm.fusedMatmul(w, ramp(512)),
    () => fm.fusedMatmul(live, tensor),
    () => fm.fusedMatmul(live, ramp(512 * 1), { out: tensorOf(9) }),
    () => fm.dequantize(w),
    () => tensor.toArray(),
    () => tensor.set(ramp(1)),
  ]) {
    assert.throws(call, handleError('freed'), String(call));
  }
  w[Symbol.dispose]();
  live[Symbol.dispose]();
  assert.equal(live.freed, true);
  assert.equal(fm.memory().handles, 0);

  /** @param {number} nCols */
  function tensorOf(nCols) {
    const freed = fm.tensor({ nRows: 1, nCols });
    freed.free();
    return freed;
  }
});

test('handles of other kernels are refused', async (t) => {
  const [fm, other] = [await kernels(t), await kernels(t)];
  const [mine, theirs] = [fm, other].map((owner) => owner.weight({ ...shape, data }));
  const x = ramp(512);
  const out = other.tensor({ nRows: 1, nCols: 9 });
  const before = fm.memory();
  for (const call of [
    () => fm.fusedMatmul(theirs, x),
    () => fm.fusedMatmul(mine, other.tensor({ nRows: 1, nCols: 512, data: x })),
    () => fm.fusedMatmul(mine, x, { out }),
    () => fm.dequantize(theirs),
    () => fm.dequantize(mine, { out: other.tensor({ nRows: 9, nCols: 512 }) }),
  ]) {
    assert.throws(call, handleError('foreign'), String(call));
  }
  assert.deepEqual({ ...fm.memory(), bytes: 0 }, { ...before, bytes: 0 });
  assert.deepEqual(out.toArray(), new Float32Array(9));
});

test('tensors: zeros or data, set, copies', async (t) => {
  const fm = await kernels(t);
  const dirty = fm.tensor({ nRows: 4, nCols: 64, data: ramp(256) });
  dirty.free();
  const tensor = fm.tensor({ nRows: 4, nCols: 64 });
  assert.ok(tensor instanceof Tensor);
  assert.deepEqual([tensor.nRows, tensor.nCols, tensor.length, tensor.byteLength], [4, 64, 256, 1024]);
  assert.deepEqual(tensor.toArray(), new Float32Array(256));
  tensor.set(ramp(3), 253);
  assert.deepEqual(tensor.toArray().slice(252), Float32Array.of(0, ...ramp(3)));
  tensor.toArray().fill(1);
  assert.equal(tensor.toArray()[0], 0);
});

test('x and out, each a Float32Array or a Tensor, give the same numbers', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  const x = ramp(3 * 512);
  const y = fm.fusedMatmul(w, x);
  assert.equal(y.length, 27);
  const inMemory = fm.tensor({ nRows: 3, nCols: 512, data: x });
  const array = new Float32Array(27);
  const tensor = fm.tensor({ nRows: 3, nCols: 9 });
  assert.equal(fm.fusedMatmul(w, x, { out: array }), array);
  assert.deepEqual(array, y);
  array.fill(0);
  assert.equal(fm.fusedMatmul(w, inMemory, { out: array }), array);
  assert.deepEqual(array, y);
  assert.equal(fm.fusedMatmul(w, x, { out: tensor }), tensor);
  assert.deepEqual(tensor.toArray(), y);
  const made = fm.fusedMatmul(w, inMemory);
  assert.deepEqual([made.nRows, made.nCols], [3, 9]);
  assert.deepEqual(made.toArray(), y);
  const { handles } = fm.memory();
  assert.throws(() => fm.fusedMatmul(w, inMemory, { out: inMemory }), ShapeError);
  const square = fm.weight({ type: 'F32', nRows: 4, nCols: 4, data: ramp(16) });
  const z = fm.tensor({ nRows: 1, nCols: 4, data: ramp(4) });
  assert.throws(() => fm.fusedMatmul(square, z, { out: z }), { message: /overlaps/ });
  assert.deepEqual(z.toArray(), ramp(4));
  assert.equal(fm.memory().handles, handles + 2);
});

test('dequantize: all rows, some rows, into arrays, tensors and F32 weights, in several steps', async (t) => {
  const fm = await kernels(t);
  const w = fm.weight({ ...shape, data });
  const all = fm.dequantize(w);
  assert.equal(all.length, 9 * 512);
  assert.deepEqual(fm.dequantize(w, { start: 2, end: 5 }), all.slice(2 * 512, 5 * 512));
  assert.deepEqual(fm.dequantize(w, { end: 1 }), all.slice(0, 512));
  const out = new Float32Array(512);
  assert.equal(fm.dequantize(w, { start: 8, out }), out);
  assert.deepEqual(out, all.slice(8 * 512));
  const tensor = fm.tensor({ nRows: 9, nCols: 512 });
  assert.deepEqual(fm.dequantize(w, { out: tensor }).toArray(), all);
  const dense = fm.weight({ type: 'F32', nRows: 9, nCols: 512 });
  assert.deepEqual(fm.dequantize(fm.dequantize(w, { out: dense })), all);
  const large = await fm.loadWeight(await openGguf(largeGguf()), 'w');
  const values = fm.dequantize(large);
  for (let row = 0; row < 8640; row += 9 * 60) {
    assert.deepEqual(values.slice(row * 512, (row + 9) * 512), all);
  }
});

test('a tensor read as bytes makes the same weight as one that is streamed', async (t) => {
  const fm = await kernels(t);
  const { bytes } = ggufBytes({ tensors: [{ name: 'x', typeId: 0, shape: [6], data: countedBytes(24) }] });
  const gguf = await openGguf(bytes);
  const copy = fm.weight({ type: 'F32', nRows: 1, nCols: 6, data: await gguf.read('x') });
  assert.deepEqual(fm.dequantize(copy), fm.dequantize(await fm.loadWeight(gguf, 'x')));
});
