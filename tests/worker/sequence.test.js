/**
 * Sequences: one message, the same bits as call by call, an abort between two operations, nothing
 * left behind.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createKernels, HandleError, openGguf, ShapeError } from '../../js/layer-index.js';
import { modelPath, pause, rejection, workerKernels } from '../helpers/workers.js';

/** @param {number} length @param {number} [step] */
const ramp = (length, step = 7) => Float32Array.from({ length }, (_, i) => (((i * step) % 31) - 15) / 8);
const headSize = 64;
const tokens = [1, 441, 591, 261, 590];

/**
 * A decoder layer as a page would write it. `k` are kernels, or the operations of a sequence.
 * @param {any} k
 * @param {any} h  its weights and caches
 */
function layer(k, h) {
  const x = k.embed(h.table, tokens, { out: k.tensor({ nRows: tokens.length, nCols: h.table.nCols }) });
  const [q, key, value] = k.fusedRmsNormMatmul([h.wq, h.wk, h.wv], x, h.attnNorm);
  k.rope(q, { headSize, out: q });
  k.rope(key, { headSize, out: key });
  h.keys.write(key, 0);
  h.values.write(value, 0);
  const attended = k.flashAttention(q, h.keys, h.values);
  k.add(x, k.fusedMatmul(h.wo, attended), { out: x });
  k.fusedFfn({ gate: h.gate, up: h.up, down: h.down, norm: h.ffnNorm }, x, { residual: true, out: x });
  return x;
}

/** @param {any} k */
async function model(k) {
  const gguf = await openGguf(modelPath);
  const names = [
    'attn_q',
    'attn_k',
    'attn_v',
    'attn_output',
    'ffn_gate',
    'ffn_up',
    'ffn_down',
    'attn_norm',
    'ffn_norm',
  ];
  const [wq, wk, wv, wo, gate, up, down, ...norms] = await k.loadWeights(
    gguf,
    names.map((name) => `blk.0.${name}.weight`),
  );
  const [attnNorm, ffnNorm] = await Promise.all(norms.map((/** @type {any} */ w) => k.dequantize(w)));
  const [table] = await k.loadWeights(gguf, ['token_embd.weight']);
  const shape = { nPositions: 16, nKvHeads: 2, headSize };
  const [keys, values] = [await k.kvCache(shape), await k.kvCache(shape)];
  return { table, wq, wk, wv, wo, gate, up, down, attnNorm, ffnNorm, keys, values };
}

test('a decoder layer as one message: the bits of the same code called here', async (t) => {
  const here = await createKernels();
  const there = await workerKernels(t);
  const expected = layer(here, await model(here)).toArray();
  const h = await model(there);
  const before = await there.memory();
  const { y, twice } = /** @type {any} */ (
    await there.sequence((ops) => {
      const x = layer(ops, h);
      return { y: x.toArray(), twice: ops.add(x, x) };
    })
  );
  assert.deepEqual(y, expected);
  assert.deepEqual(
    await twice.toArray(),
    expected.map((/** @type {number} */ v) => v + v),
  );
  assert.equal((await there.memory()).handles, before.handles + 1, 'only what was asked for stays');
  twice.free();
  const after = await there.memory();
  assert.deepEqual([after.weights, after.tensors], [before.weights, before.tensors]);
});

test('what comes back: trees, handles by identity, arrays given as out', async (t) => {
  const fm = await workerKernels(t);
  const x = await fm.tensor({ nRows: 1, nCols: 4, data: ramp(4) });
  const out = new Float32Array(4);
  const back = await fm.sequence((ops) => {
    const sum = ops.add(x, x);
    ops.add(sum, sum, { out });
    // The previous step has written this, and this step reads it.
    const again = ops.add(out, out);
    const list = [sum.toArray(), { deep: again, n: 3, x }, ops.servedBy('Q4_K'), out];
    return { list, nothing: undefined };
  });
  const [sum, { deep, n, x: same }, served, arr] = /** @type {any[]} */ (back.list);
  const times = (/** @type {number} */ k) => ramp(4).map((v) => v * k);
  assert.deepEqual([sum, out, deep], [times(2), times(4), times(8)]);
  assert.ok(same === x && arr === out && n === 3 && served.isa);
  assert.equal(await fm.sequence(() => {}), undefined);
  assert.equal(
    await fm.sequence((ops) => {
      ops.add(x, x, { out: x });
    }),
    undefined,
  );
  assert.deepEqual(await x.toArray(), times(2));
  // In a sequence, handles are used, freed and read in the order of its steps.
  const y = await fm.tensor({ nRows: 1, nCols: 4 });
  const read = await fm.sequence((ops) => {
    y.set(ramp(4));
    const first = y.toArray();
    ops.add(y, y, { out: y });
    const second = y.toArray();
    y.free();
    return [first, second];
  });
  assert.deepEqual(read, [times(1), times(2)]);
  assert.ok(y.freed);
  assert.equal((await fm.memory()).handles, 1);
});

test('an error says which step, ends the sequence and leaves nothing', async (t) => {
  const fm = await workerKernels(t);
  const x = await fm.tensor({ nRows: 1, nCols: 4 });
  const doomed = await fm.tensor({ nRows: 1, nCols: 4 });
  const before = await fm.memory();
  const error = await rejection(
    fm.sequence((ops) => {
      const a = ops.tensor({ nRows: 1, nCols: 8 });
      ops.add(a, a);
      ops.add(x, a);
      x.set(ramp(4));
      doomed.free();
      return a;
    }),
  );
  assert.ok(error instanceof ShapeError, String(error));
  const { step, operation } = /** @type {any} */ (error);
  assert.deepEqual([step, operation, error.got, error.expected], [2, 'add', 8, 4]);
  assert.deepEqual(await x.toArray(), new Float32Array(4), 'later steps are not done');
  assert.equal((await fm.memory()).handles, before.handles - 1, 'but what it frees is freed');
});

test('what a sequence refuses', async (t) => {
  const [fm, other] = [await workerKernels(t), await workerKernels(t)];
  const x = await fm.tensor({ nRows: 1, nCols: 4 });
  /** @type {any} */
  let kept;
  await fm.sequence((ops) => {
    kept = ops.add(x, x);
  });
  /** @type {[(ops: any) => any, any][]} */
  const refused = [
    [(ops) => ops.add(kept, x), ArgumentError],
    [() => kept, ArgumentError],
    [() => fm.add(x, x), ArgumentError],
    [async (ops) => ops.add(x, x), ArgumentError],
    [(ops) => ops.add(x, x, { signal: AbortSignal.abort() }), ArgumentError],
    [(ops) => ops.add(x, Promise.resolve(x)), ArgumentError],
    [
      () => {
        throw new HandleError('own', 'freed');
      },
      HandleError,
    ],
  ];
  for (const [record, kind] of refused) {
    const outcome = rejection(Promise.resolve(fm.sequence(record)));
    assert.ok((await outcome) instanceof kind, `${record}: ${await outcome}`);
  }
  await assert.rejects(
    other.sequence((ops) => ops.add(/** @type {any} */ (x), x)),
    HandleError,
  );
  assert.equal((await fm.memory()).handles, 1);
  assert.deepEqual(await fm.add(x, x).then((y) => y.toArray()), new Float32Array(4));
});

/**
 * Steps that take some 20 seconds, and record their progress in `at`.
 * @param {any} ops @param {any} h
 */
function slow(ops, h) {
  for (let i = 1; i <= 2000; i++) {
    ops.fusedMatmul(h.w, h.x, { out: h.y });
    h.at.set(Float32Array.of(i));
  }
  return ops.tensor({ nRows: 1, nCols: 1 });
}

for (const shared of [true, false]) {
  const how = shared ? 'a shared flag' : 'messages, without SharedArrayBuffer';
  test(`abort in the middle stops between two operations: ${how}`, async (t) => {
    const { SharedArrayBuffer: Shared } = globalThis;
    if (!shared) /** @type {any} */ (globalThis).SharedArrayBuffer = undefined;
    t.after(() => {
      globalThis.SharedArrayBuffer = Shared;
    });
    const fm = await workerKernels(t);
    const n = 2048;
    const h = {
      w: await fm.weight({ type: 'F32', nRows: n, nCols: n }),
      x: await fm.tensor({ nRows: 8, nCols: n }),
      y: await fm.tensor({ nRows: 8, nCols: n }),
      at: await fm.tensor({ nRows: 1, nCols: 1 }),
    };
    const before = await fm.memory();
    const reason = new Error('enough');
    // On a busy machine the sequence may not have started yet; it is then tried again with a later
    // abort.
    let at = 0;
    for (let wait = 150; at === 0 && wait < 20_000; wait *= 4) {
      const abort = new AbortController();
      const running = fm.sequence((ops) => slow(ops, h), { signal: abort.signal });
      // These are behind it in the queue. They are aborted before their turn, so they must never
      // run.
      const queued = new AbortController();
      const never = fm.sequence(() => void h.at.set(Float32Array.of(-1)), { signal: queued.signal });
      const single = h.at.set(Float32Array.of(-2), 0, { signal: queued.signal });
      const outcomes = Promise.all([running, never, single].map((promise) => rejection(promise)));
      await pause(wait);
      queued.abort(reason);
      abort.abort(reason);
      assert.deepEqual(await outcomes, [reason, reason, reason]);
      [at] = await h.at.toArray();
    }
    assert.ok(at > 0 && at < 2000, `stopped after ${at} of 2000`);
    const after = await fm.memory();
    assert.deepEqual([after.handles, after.tensors], [before.handles, before.tensors]);
    await pause(50);
    assert.deepEqual(await h.at.toArray(), Float32Array.of(at), 'it has really stopped');
  });
}

test('an abort that comes too late: what was made is freed', async (t) => {
  const fm = await workerKernels(t);
  const gguf = await openGguf(modelPath);
  const abort = new AbortController();
  const made = fm.tensor({ nRows: 1, nCols: 4 }, { signal: abort.signal });
  const loaded = fm.loadWeight(gguf, 'token_embd.weight', { signal: abort.signal });
  // The worker answers while this thread is busy; the abort comes first then.
  const outcomes = Promise.all([rejection(made), rejection(loaded)]);
  for (const end = Date.now() + 300; Date.now() < end; );
  const reason = new Error('enough');
  abort.abort(reason);
  assert.deepEqual(await outcomes, [reason, reason]);
  assert.equal((await fm.memory()).handles, 0);
});
