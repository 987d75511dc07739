/**
 * Kernels in a worker compute the same as kernels in this thread, with the same arguments, results
 * and errors.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  ArgumentError,
  createKernels,
  createWorkerKernels,
  FmError,
  GgufError,
  HandleError,
  IsaError,
  LoadError,
  MemoryError,
  openGguf,
  ShapeError,
} from '../../js/layer-index.js';
import { Kernels } from '../../js/wasm/kernels.js';
import { testWeights } from '../../js/wasm/selftest.js';
import { WorkerTensor, WorkerWeight } from '../../js/worker/handles.js';
import { METHODS } from '../../js/worker/methods.js';
import { wideGguf } from '../helpers/gguf-bytes.js';
import { startServer } from '../helpers/range-server.js';
import { modelPath, pause, rejection, workerKernels } from '../helpers/workers.js';

/** @param {number} length @param {number} [step] */
const ramp = (length, step = 7) => Float32Array.from({ length }, (_, i) => (((i * step) % 31) - 15) / 8);
const q4k = { type: 'Q4_K', nRows: 9, nCols: 512, data: testWeights('Q4_K', 9) };
const square = { type: 'F32', nRows: 32, nCols: 32, data: ramp(1024) };

/**
 * Every operation on arrays and on tensors. `k` are kernels of either kind, `h` their handles.
 * @type {Record<string, (k: any, h: any) => any>}
 */
const OPERATIONS = {
  select: (k) => k.select({ isa: 'scalar' }),
  servedBy: (k) => k.servedBy('Q4_K', 'f32'),
  weight: async (k) => k.dequantize(await k.weight(q4k)),
  tensor: (k) => k.tensor({ nRows: 2, nCols: 3, data: ramp(6) }),
  fusedMatmul: (k, h) => k.fusedMatmul(h.w, ramp(1024), { activation: 'int8' }),
  dequantize: (k, h) => k.dequantize(h.w, { start: 2, end: 4 }),
  quantize: (k) => k.quantize('Q8_0', ramp(64), 2, 32),
  fusedDequantMatmulQ4KLegacy: (k) =>
    k.fusedDequantMatmulQ4KLegacy(
      { data: new Uint8Array(140).fill(0x5a), scales: Float32Array.of(0.5), nRows: 1, nCols: 256 },
      ramp(256),
    ),
  memory: async (k) => (await k.memory()).weights,
  rmsNorm: (k, h) => k.rmsNorm(h.t, ramp(32), { eps: 1e-3 }),
  layerNorm: (k) => k.layerNorm(ramp(64), ramp(32), ramp(32, 3), { eps: 1e-3 }),
  softmax: (k) => k.softmax(ramp(64), { nCols: 16 }),
  rope: (k, h) => k.rope(h.t, { headSize: 16, position: 3 }),
  embed: (k, h) => k.embed(h.w, [3, 0]),
  add: (k, h) => k.add(h.t, ramp(64, 3)),
  addScaled: (k, h) => k.addScaled(h.t, ramp(64, 3), -0.3),
  scale: (k, h) => k.scale(h.t, 62.2),
  gated: (k) => k.gated(ramp(64), ramp(64, 3), { act: 'gelu' }),
  multiply: (k, h) => k.multiply(h.t, ramp(64, 3)),
  causalConv: async (k, h) => {
    const state = await k.tensor({ nRows: 2, nCols: 32, data: ramp(64, 5) });
    await k.causalConv(h.t, ramp(96), state, { bias: ramp(32), act: 'silu' });
    return state.toArray();
  },
  kvCache: async (k, h) => {
    const cache = await k.kvCache({ type: 'F32', nPositions: 4, nKvHeads: 2, headSize: 16 });
    await cache.write(h.t, 1);
    return k.flashAttention(h.t, cache, cache, { firstPosition: 1 });
  },
  ssmScan: async (k, h) =>
    k.ssmScan(ramp(136), { dt: ramp(4), dtBias: ramp(2), a: ramp(2), d: ramp(2) }, h.t2, { nGroups: 2 }),
  fusedMatmulMany: async (k, h) => (await k.fusedMatmulMany([h.s, h.s2], h.t))[1],
  fusedRmsNormMatmul: async (k, h) =>
    (await k.fusedRmsNormMatmul([h.s, h.s2], ramp(32), ramp(32), { eps: 1e-3 }))[0],
  fusedSwigluMatmul: (k, h) => k.fusedSwigluMatmul(h.s, ramp(32), ramp(32, 5), { act: 'gelu' }),
  fusedFfn: (k, h) =>
    k.fusedFfn({ gate: h.s, up: h.s2, down: h.s, norm: ramp(32) }, h.t, { residual: true, out: h.t2 }),
  route: (k) => k.route(ramp(24), { nExperts: 6, nUsed: 2, bias: ramp(6, 3) }),
  fusedMatmulExperts: async (k, h) => {
    const routing = await k.route(ramp(8), { nExperts: 4, nUsed: 2 });
    return (await k.fusedMatmulExperts([h.s, h.s2], h.t, routing, { biases: [undefined, ramp(32)] }))[1];
  },
  mixRows: async (k) => k.mixRows(ramp(64), await k.route(ramp(8), { nExperts: 4, nUsed: 2 })),
  fusedAttentionScore: (k) => k.fusedAttentionScore(ramp(64), ramp(64, 3), { headSize: 32, causal: true }),
  deltaNet: async (k) => {
    const state = await k.tensor({ nRows: 16, nCols: 8 });
    const gates = { alpha: ramp(4), beta: ramp(4, 3), dtBias: ramp(2), a: Float32Array.of(-1, -0.1) };
    await k.deltaNet(ramp(64), gates, state, { nKeyHeads: 1, gate: ramp(32, 5) });
    return state.toArray();
  },
  flashAttention: async (k) => {
    const cache = await k.kvCache({ type: 'F16', nPositions: 4, nKvHeads: 1, headSize: 16 });
    return k.flashAttention(ramp(32), cache, cache, { nHeads: 2, firstPosition: 1, softcap: 3 });
  },
};

/** @param {any} k */
async function handles(k) {
  return {
    w: await k.weight(q4k),
    s: await k.weight(square),
    s2: await k.weight({ ...square, data: ramp(1024, 11) }),
    t: await k.tensor({ nRows: 2, nCols: 32, data: ramp(64) }),
    t2: await k.tensor({ nRows: 2, nCols: 32 }),
  };
}

/** @param {any} value */
const plain = async (value) => (typeof value?.toArray === 'function' ? value.toArray() : value);

test('every method of the kernels can be called, and computes the same bits', async (t) => {
  const here = await createKernels();
  const there = await workerKernels(t);
  /** @type {Set<string>} */
  const names = new Set();
  for (let at = Kernels.prototype; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at)))
      if (typeof value === 'function') names.add(name);
  }
  for (const name of ['constructor', 'dispose', 'loadWeight', 'loadWeights']) names.delete(name);
  assert.deepEqual(Object.keys(METHODS).sort(), [...names].sort());
  assert.deepEqual(Object.keys(OPERATIONS).sort(), [...names].sort());
  const [mine, theirs] = [await handles(here), await handles(there)];
  for (const [name, operation] of Object.entries(OPERATIONS)) {
    const expected = await plain(await operation(here, mine));
    const got = await operation(there, theirs);
    assert.deepEqual(await plain(got), expected, name);
  }
  assert.equal(there.info.isa, 'scalar', 'select shows in info');
  assert.deepEqual(there.types, here.types);
  assert.equal(there.info.version, here.info.version);
});

test('a signal that is aborted already: no method is called, and each rejects with its reason', async (t) => {
  const fm = await workerKernels(t);
  const reason = new Error('enough');
  const before = await fm.memory();
  for (const [name, at] of Object.entries(METHODS)) {
    const args = Array.from({ length: at }, () => undefined);
    /** @type {any} */
    const loose = fm;
    await assert.rejects(loose[name](...args, { signal: AbortSignal.abort(reason) }), reason, name);
  }
  await assert.rejects(
    fm.sequence(() => {}, { signal: AbortSignal.abort(reason) }),
    reason,
  );
  assert.deepEqual(await fm.memory(), before);
});

test('handles: shape, text, free, and every way to use one wrongly', async (t) => {
  const [fm, other, here] = [await workerKernels(t), await workerKernels(t), await createKernels()];
  const w = await fm.weight({ ...q4k, name: 'w' });
  const x = await fm.tensor({ nRows: 1, nCols: 512, data: ramp(512) });
  const cache = await fm.kvCache({ nPositions: 3, nKvHeads: 2, headSize: 8 });
  assert.ok(w instanceof WorkerWeight && x instanceof WorkerTensor);
  assert.deepEqual(
    [w.type, w.typeId, w.nRows, w.nCols, w.byteLength, w.name],
    ['Q4_K', 12, 9, 512, 2592, 'w'],
  );
  assert.deepEqual([x.nRows, x.nCols, x.length], [1, 512, 512]);
  assert.deepEqual([cache.type, cache.nPositions, cache.nKvHeads, cache.headSize], ['F16', 3, 2, 8]);
  assert.equal(`${w}, ${x}, ${cache}`, 'weight "w" (Q4_K 9x512), tensor 1x512, KV cache (F16 3x2x8)');
  await x.set(Float32Array.of(5, 6), 510);
  assert.deepEqual((await x.toArray()).slice(-3), Float32Array.of(ramp(512)[509], 5, 6));
  await assert.rejects(x.set(ramp(3), 510), ShapeError);

  /** @param {Promise<unknown>} call @param {string} reason */
  const refused = async (call, reason) => {
    const error = await rejection(call);
    assert.ok(error instanceof HandleError && error instanceof FmError, String(error));
    assert.equal(error.reason, reason);
  };
  await refused(other.fusedMatmul(/** @type {any} */ (w), ramp(512)), 'foreign');
  await refused(fm.fusedMatmul(/** @type {any} */ (here.weight(q4k)), ramp(512)), 'foreign');
  await assert.rejects(async () => here.fusedMatmul(/** @type {any} */ (w), ramp(512)), ArgumentError);
  // Freed after the calls made so far, not before.
  const last = fm.fusedMatmul(w, x);
  w.free();
  x.free();
  assert.deepEqual(
    await (await last).toArray(),
    await (
      await other.fusedMatmul(
        await other.weight(q4k),
        await other.tensor({ nRows: 1, nCols: 512, data: Float32Array.of(...ramp(510), 5, 6) }),
      )
    ).toArray(),
  );
  assert.equal(w.freed, true);
  await refused(fm.fusedMatmul(w, ramp(512)), 'freed');
  await refused(x.toArray(), 'freed');
  assert.throws(() => w.free(), HandleError);
  w[Symbol.dispose ?? Symbol.for('Symbol.dispose')]();
  cache.free();
  (await last).free();
  assert.deepEqual((await fm.memory()).handles, 0);
});

test('errors arrive with class, code, numbers and cause', async (t) => {
  const fm = await workerKernels(t);
  const w = await fm.weight(q4k);
  const shape = await rejection(fm.fusedMatmul(w, ramp(300)));
  assert.ok(shape instanceof ShapeError && shape instanceof RangeError && shape instanceof FmError);
  assert.deepEqual([shape.code, shape.got, shape.expected, shape.name], ['FM_SHAPE', 300, 512, 'ShapeError']);
  assert.match(String(shape.stack), /worker-host/);
  const argument = await rejection(fm.weight({ type: 'Q9_Z', nRows: 1, nCols: 1 }));
  assert.ok(
    argument instanceof ArgumentError && argument instanceof TypeError && argument.code === 'FM_ARGUMENT',
  );
  for (const bad of [[1, 2], () => 1, Promise.resolve(1), Symbol('x'), new Map()]) {
    const error = await rejection(fm.fusedMatmul(w, /** @type {any} */ (bad)));
    assert.ok(error instanceof ArgumentError, `${String(bad)}: ${error}`);
  }
  const isa = await rejection(createWorkerKernels({ isa: 'scalar', wasm: { simd128: new Uint8Array(8) } }));
  assert.ok(isa instanceof ArgumentError, String(isa));
  const load = await rejection(createWorkerKernels({ wasm: new Uint8Array([0, 97, 115, 109, 1, 0, 0, 9]) }));
  assert.ok(load instanceof LoadError && load.code === 'FM_LOAD', String(load));
  assert.ok(load.cause instanceof WebAssembly.CompileError, String(load.cause));
  const missing = await rejection(createWorkerKernels({ wasm: '/nowhere/x.wasm' }));
  assert.ok(
    missing instanceof LoadError && /** @type {any} */ (missing.cause)?.code === 'ENOENT',
    String(missing),
  );
  if (!(await createKernels()).info.features.relaxedSimd)
    assert.ok((await rejection(createWorkerKernels({ isa: 'relaxed' }))) instanceof IsaError);
  const gguf = await openGguf(modelPath);
  const unknown = await rejection(fm.loadWeight(gguf, 'blk.0.ffn_gate.wait'));
  assert.ok(unknown instanceof GgufError && unknown.tensor === 'blk.0.ffn_gate.wait');
  gguf.close();
  assert.ok((await rejection(fm.loadWeight(gguf, 'token_embd.weight'))) instanceof HandleError);
});

test('out of memory is a MemoryError with its numbers, and the kernels go on', async (t) => {
  const fm = await workerKernels(t);
  const w = await fm.weight(q4k);
  const y = await fm.fusedMatmul(w, ramp(512));
  const before = await fm.memory();
  const error = await rejection(fm.tensor({ nRows: 2 ** 15, nCols: 2 ** 15 }));
  assert.ok(error instanceof MemoryError, String(error));
  assert.deepEqual([error.asked, error.inUse, error.limit >= 2 ** 32], [2 ** 32, before.inUse, true]);
  const inSequence = await rejection(
    fm.sequence((ops) => {
      const small = ops.tensor({ nRows: 4, nCols: 4 });
      return [small, ops.tensor({ nRows: 2 ** 15, nCols: 2 ** 15 })];
    }),
  );
  assert.ok(inSequence instanceof MemoryError);
  assert.deepEqual(await fm.fusedMatmul(w, ramp(512)), y);
  assert.equal((await fm.memory()).handles, before.handles);
});

test('arrays: copied, or moved where that is asked for; results are whole buffers', async (t) => {
  const fm = await workerKernels(t);
  const w = await fm.weight(q4k);
  const large = new Float32Array(2048).fill(9);
  large.set(ramp(512), 700);
  const view = large.subarray(700, 1212);
  const expected = await fm.fusedMatmul(w, ramp(512));
  assert.equal(expected.buffer.byteLength, 36);
  assert.deepEqual(await fm.fusedMatmul(w, view), expected);
  assert.equal(large.length, 2048);
  const shared = new Float32Array(new SharedArrayBuffer(2048));
  shared.set(ramp(512));
  const pending = fm.fusedMatmul(w, shared);
  shared.fill(0);
  assert.deepEqual(await pending, expected, 'an argument is read when the call is made');
  const moved = ramp(512);
  assert.deepEqual(await fm.fusedMatmul(w, moved, { transfer: [moved.buffer] }), expected);
  assert.equal(moved.length, 0, 'moved, not copied');
  const data = q4k.data.slice();
  const w2 = await fm.weight({ ...q4k, data }, { transfer: [data.buffer] });
  assert.equal(data.length, 0);
  const out = new Float32Array(9);
  assert.equal(await fm.fusedMatmul(w2, ramp(512), { out }), out);
  assert.deepEqual(out, expected);
  for (const transfer of [[out.buffer], [out], 5]) {
    const error = await rejection(
      fm.fusedMatmul(w, ramp(512), { out, transfer: /** @type {any} */ (transfer) }),
    );
    assert.ok(error instanceof ArgumentError, String(error));
  }
  const [a, b] = [new Float32Array(32), new Float32Array(32)];
  const s = await fm.weight(square);
  const many = await fm.fusedMatmulMany([s, s], ramp(32), { out: [a, b] });
  assert.ok(many[0] === a && many[1] === b && a.some((v) => v !== 0));
  assert.deepEqual(a, b);
});

test('calls that are not awaited are done in order', async (t) => {
  const fm = await workerKernels(t);
  const x = await fm.tensor({ nRows: 1, nCols: 1 });
  /** @type {Promise<Float32Array>[]} */
  const seen = [];
  for (let i = 0; i < 200; i++) {
    x.set(Float32Array.of(i));
    seen.push(x.toArray());
  }
  assert.deepEqual(
    (await Promise.all(seen)).map(([v]) => v),
    Array.from({ length: 200 }, (_, i) => i),
  );
});

test('weights are loaded from every kind of source, the same bits', async (t) => {
  const fm = await workerKernels(t);
  const here = await createKernels();
  const bytes = readFileSync(modelPath);
  const server = await startServer(bytes);
  t.after(() => server.close());
  const sources = {
    path: modelPath,
    url: server.url,
    bytes,
    blob: new Blob([bytes]),
    'own fetch': server.url,
  };
  const name = 'blk.1.ffn_down.weight';
  const mine = here.dequantize(await here.loadWeight(await openGguf(modelPath), name));
  for (const [kind, source] of Object.entries(sources)) {
    /** @type {{ loaded: number, total: number }[]} */
    const steps = [];
    const gguf = await openGguf(source, kind === 'own fetch' ? { fetch: (...args) => fetch(...args) } : {});
    const w = await fm.loadWeight(gguf, name, { onProgress: (step) => steps.push(step) });
    assert.deepEqual(await fm.dequantize(w), mine, kind);
    assert.deepEqual(steps.at(-1), { loaded: w.byteLength, total: w.byteLength }, kind);
    const all = await fm.loadWeights(gguf, gguf.tensors.keys());
    assert.deepEqual(
      all.map((one) => one.name),
      [...gguf.tensors.keys()],
      kind,
    );
    assert.deepEqual(await fm.dequantize(all[[...gguf.tensors.keys()].indexOf(name)]), mine, kind);
    for (const one of all) one.free();
  }
});

test('a load waits without holding up the rest; an abort of it leaves nothing', async (t) => {
  const fm = await workerKernels(t);
  const { bytes } = wideGguf({ nTensors: 4, bytes: 2 ** 20 });
  const server = await startServer(bytes);
  t.after(() => server.close());
  const gguf = await openGguf(server.url);
  const relayed = await openGguf(server.url, { fetch: (...args) => fetch(...args) });
  const names = [...gguf.tensors.keys()];
  server.behaviour.stallAt = bytes.length - 1000;
  const before = await fm.memory();
  for (const file of [gguf, relayed]) {
    const abort = new AbortController();
    let settled = false;
    const load = fm.loadWeights(file, names, { signal: abort.signal }).finally(() => {
      settled = true;
    });
    load.catch(() => {});
    const w = await fm.weight(q4k);
    assert.equal((await fm.fusedMatmul(w, ramp(512))).length, 9);
    assert.ok((await fm.memory()).weights > w.byteLength);
    await pause(50);
    assert.equal(settled, false);
    w.free();
    const reason = new Error('enough');
    abort.abort(reason);
    assert.equal(await rejection(load), reason);
    const after = await fm.memory();
    assert.deepEqual([after.weights, after.handles], [before.weights, before.handles]);
  }
  const thrown = new Error('from the page');
  delete server.behaviour.stallAt;
  const load = fm.loadWeights(gguf, names, {
    onProgress: () => {
      throw thrown;
    },
  });
  assert.equal(await rejection(load), thrown);
  assert.equal((await fm.memory()).weights, before.weights);
});
