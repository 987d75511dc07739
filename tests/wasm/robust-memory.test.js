/**
 * Out of memory at every allocation: for every operation of the API and every n, the n-th fm_alloc
 * of a call fails. The call throws a MemoryError with the numbers and leaves nothing behind; the
 * same call then works and gives the same result.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import * as library from '../../js/layer-index.js';
import { createKernels, MemoryError, openGguf } from '../../js/layer-index.js';
import { sampleGguf } from '../helpers/gguf-bytes.js';

/** @import { Kernels } from '../../js/layer-index.js' */

/** Number of the allocation that fails, counted down; 0 if none does. */
let failAfter = 0;
let nAllocations = 0;
const realInstantiate = WebAssembly.instantiate;

before(() => {
  /** @type {any} */ (WebAssembly).instantiate = async (/** @type {any[]} */ ...args) => {
    const made = await Reflect.apply(realInstantiate, WebAssembly, args);
    if (typeof made.exports?.fm_alloc !== 'function') return made;
    const { fm_alloc } = made.exports;
    const refusing = (/** @type {number} */ bytes) => {
      nAllocations++;
      return failAfter > 0 && --failAfter === 0 ? 0 : fm_alloc(bytes);
    };
    return { exports: { ...made.exports, fm_alloc: refusing } };
  };
});

after(() => {
  WebAssembly.instantiate = realInstantiate;
});

const ramp = (/** @type {number} */ n, scale = 1) =>
  Float32Array.from({ length: n }, (_, i) => scale * Math.sin(i + 1));

/** So many rows of 64 values that no staging buffer of the operands has room for them. */
const ROWS = 600;

/** The inputs of the operations. @param {Kernels} fm */
function makeOperands(fm) {
  const blocks = (/** @type {number} */ nRows) => fm.quantize('Q8_0', ramp(nRows * 64), nRows, 64);
  const weight = (/** @type {number} */ nRows) =>
    fm.weight({ type: 'Q8_0', nRows, nCols: 64, data: blocks(nRows) });
  const cache = { nPositions: ROWS, nKvHeads: 2, headSize: 32 };
  const made = {
    w: weight(64),
    w2: weight(64),
    x: ramp(2 * 64),
    tx: fm.tensor({ nRows: 2, nCols: 64, data: ramp(2 * 64) }),
    big: fm.weight({ type: 'F32', nRows: ROWS, nCols: 64 }),
    tbig: fm.tensor({ nRows: ROWS, nCols: 64 }),
    scanState: fm.tensor({ nRows: 32, nCols: 16 }),
    ones: new Float32Array(64).fill(1),
    keys: fm.kvCache(cache),
    values: fm.kvCache(cache),
    state: fm.tensor({ nRows: 64, nCols: 64 }),
    data: blocks(64),
  };
  made.keys.write(ramp(8 * 64), 0);
  made.values.write(ramp(8 * 64, 0.5), 0);
  return made;
}

/** @typedef {ReturnType<typeof makeOperands>} Operands */

const gguf = await openGguf(sampleGguf().bytes);
const legacy = { data: new Uint8Array(140).fill(0x5a), scales: ramp(1), nRows: 1, nCols: 256 };
const LARGE = 64 * ROWS;
const scanSteps = (/** @type {number} */ nTokens) => ({
  ...{ dt: ramp(2 * nTokens), dtBias: ramp(2), a: Float32Array.of(-1, -2), d: ramp(2) },
});

/**
 * Every method of the API that may allocate.
 * @type {Record<string, (fm: Kernels, o: Operands) => any>}
 */
const operations = {
  weight: (fm, o) => fm.weight({ type: 'Q8_0', nRows: 64, nCols: 64, data: o.data }),
  'weight of zeros': (fm) => fm.weight({ type: 'F32', nRows: 3, nCols: 4 }),
  loadWeight: (fm) => fm.loadWeight(gguf, 'a.weight'),
  loadWeights: (fm) => fm.loadWeights(gguf, ['a.weight', 'norm.weight']),
  tensor: (fm) => fm.tensor({ nRows: 3, nCols: 5, data: ramp(15) }),
  kvCache: (fm) => fm.kvCache({ nPositions: 4, nKvHeads: 2, headSize: 32, type: 'Q8_0' }),
  'write to a cache': (_, o) => o.keys.write(ramp(LARGE), 0),
  fusedMatmul: (fm, o) => fm.fusedMatmul(o.w, ramp(LARGE)),
  'fusedMatmul of a tensor': (fm, o) => fm.fusedMatmul(o.w, o.tx),
  'fusedMatmul of a tensor into an array': (fm, o) =>
    fm.fusedMatmul(o.w, o.tbig, { out: new Float32Array(LARGE) }),
  'fusedMatmul of an array into a tensor': (fm, o) =>
    fm.fusedMatmul(o.w, o.x, { out: fm.tensor({ nRows: 2, nCols: 64 }) }),
  dequantize: (fm, o) => fm.dequantize(o.big),
  quantize: (fm) => fm.quantize('Q4_K', ramp(LARGE), LARGE / 256, 256),
  fusedDequantMatmulQ4KLegacy: (fm) => fm.fusedDequantMatmulQ4KLegacy(legacy, ramp(256)),
  rmsNorm: (fm, o) => fm.rmsNorm(ramp(LARGE), o.ones),
  'rmsNorm of a tensor': (fm, o) => fm.rmsNorm(o.tx, o.ones),
  layerNorm: (fm, o) => fm.layerNorm(o.tx, o.ones, o.ones),
  softmax: (fm) => fm.softmax(ramp(LARGE), { nCols: 64 }),
  rope: (fm, o) => fm.rope(o.tx, { headSize: 32, position: 3, factors: ramp(16) }),
  embed: (fm, o) =>
    fm.embed(
      o.w,
      Array.from({ length: ROWS }, (_, i) => i % 64),
    ),
  add: (fm, o) => fm.add(o.tx, o.x),
  addScaled: (fm, o) => fm.addScaled(o.tx, o.x, 0.5),
  scale: (fm, o) => fm.scale(o.tx, 0.5),
  'scale of an array': (fm) => fm.scale(ramp(LARGE), 0.5),
  gated: (fm, o) => fm.gated(o.tx, o.x),
  multiply: (fm, o) => fm.multiply(o.tx, o.x),
  causalConv: (fm, o) => fm.causalConv(o.tx, ramp(64 * 3), ramp(64 * 2), { bias: o.ones }),
  'causalConv of an array': (fm) => fm.causalConv(ramp(LARGE), ramp(64 * 3), ramp(64 * 2)),
  ssmScan: (fm, o) => fm.ssmScan(ramp(LARGE), scanSteps(ROWS), o.scanState),
  'ssmScan of a tensor': (fm, o) => fm.ssmScan(o.tx, scanSteps(2), o.scanState),
  fusedMatmulMany: (fm, o) => fm.fusedMatmulMany([o.w, o.w2], o.tx),
  'fusedMatmulMany of an array': (fm, o) => fm.fusedMatmulMany([o.w, o.w2], ramp(LARGE)),
  fusedRmsNormMatmul: (fm, o) => fm.fusedRmsNormMatmul([o.w, o.w2], o.tx, o.ones),
  fusedSwigluMatmul: (fm, o) => fm.fusedSwigluMatmul(o.w, o.tx, o.x),
  fusedFfn: (fm, o) => fm.fusedFfn({ gate: o.w, up: o.w2, down: o.w, norm: o.ones }, o.tx),
  route: (fm) => fm.route(ramp(LARGE), { nExperts: 64, nUsed: 8 }),
  fusedMatmulExperts: (fm, o) =>
    fm.fusedMatmulExperts([o.w, o.w2], o.tx, fm.route(ramp(64), { nExperts: 32, nUsed: 4 })),
  'fusedMatmulExperts of an array': (fm, o) =>
    fm.fusedMatmulExperts([o.w], ramp(LARGE), fm.route(ramp(2 * ROWS), { nExperts: 2, nUsed: 1 })),
  mixRows: (fm, o) => fm.mixRows(o.tx, fm.route(ramp(2), { nExperts: 2, nUsed: 2 })),
  fusedAttentionScore: (fm) => fm.fusedAttentionScore(ramp(64 * 300), ramp(64 * 300), { headSize: 64 }),
  deltaNet: (fm, o) =>
    fm.deltaNet(
      ramp(3 * LARGE),
      { alpha: ramp(LARGE / 64), beta: ramp(LARGE / 64), dtBias: ramp(1), a: ramp(1) },
      o.state,
    ),
  flashAttention: (fm, o) => fm.flashAttention(o.tx, o.keys, o.values),
  'flashAttention of an array': (fm, o) => fm.flashAttention(ramp(LARGE), o.keys, o.values, { nHeads: 2 }),
};

/**
 * The contents of a result, for comparison.
 * @param {any} result @param {Kernels} fm @returns {any}
 */
function valuesOf(result, fm) {
  if (result === undefined) return undefined;
  if (Array.isArray(result)) return result.map((one) => valuesOf(one, fm));
  if (result instanceof library.Weight) return fm.dequantize(result);
  if (result instanceof library.Tensor) return result.toArray();
  return ArrayBuffer.isView(result) ? result : undefined;
}

/** @param {Kernels} fm */
const held = (fm) => {
  const { weights, tensors, handles } = fm.memory();
  return { weights, tensors, handles };
};

/** @param {Kernels} fm */
function checkAccounts(fm) {
  const { weights, tensors, scratch, inUse } = fm.memory();
  assert.equal(inUse, weights + tensors + scratch);
}

for (const [name, run] of Object.entries(operations)) {
  test(`out of memory at every allocation: ${name}`, async () => {
    const reference = await createKernels({ threads: 1 });
    const operands = makeOperands(reference);
    nAllocations = 0;
    const expected = valuesOf(await run(reference, operands), reference);
    const n = nAllocations;
    assert.ok(n > 0, 'nothing is allocated');
    reference.dispose();
    for (let nth = 1; nth <= n; nth++) {
      const fm = await createKernels({ threads: 1 });
      const mine = makeOperands(fm);
      const before = held(fm);
      const what = `allocation ${nth} of ${n}`;
      /** An output that the caller made in the call itself still belongs to the caller. */
      const isOurs = !name.endsWith('into a tensor');
      failAfter = nth;
      await assert.rejects(
        async () => run(fm, mine),
        (/** @type {any} */ error) => {
          assert.ok(error instanceof MemoryError, `${what}: ${error}`);
          assert.equal(error.code, 'FM_MEMORY');
          assert.match(
            error.message,
            new RegExp(`no room for ${error.asked} bytes: ${error.inUse} are in use`),
          );
          return true;
        },
      );
      assert.equal(failAfter, 0, `${what}: it was not reached`);
      if (isOurs) assert.deepEqual(held(fm), before, `${what}: something is left`);
      checkAccounts(fm);
      const result = await run(fm, mine);
      assert.deepEqual(valuesOf(result, fm), expected, `${what}: the next call`);
      const { scratch } = fm.memory();
      await run(fm, mine);
      assert.equal(fm.memory().scratch, scratch, `${what}: every call takes more scratch memory`);
      fm.dispose();
    }
  });
}

test('every method that may allocate is among them', async () => {
  const fm = await createKernels({ threads: 1 });
  const methods = [fm, Object.getPrototypeOf(fm)].flatMap(() => {
    /** @type {string[]} */
    const names = [];
    for (let at = Object.getPrototypeOf(fm); at !== Object.prototype; at = Object.getPrototypeOf(at))
      names.push(...Object.getOwnPropertyNames(at));
    return names;
  });
  const allocatesNothing = new Set(
    'constructor info isa types disposed select servedBy memory dispose'.split(' '),
  );
  const tested = new Set(Object.keys(operations).map((name) => name.split(' ')[0]));
  const missing = methods.filter((name) => !allocatesNothing.has(name) && !tested.has(name));
  assert.deepEqual([...new Set(missing)], []);
  fm.dispose();
});

test('out of memory while the kernels are loaded is an error that says so', async () => {
  const file = new URL('../../dist/fused-scalar.wasm', import.meta.url);
  const wasm = new WebAssembly.Module(readFileSync(file));
  failAfter = 1;
  await assert.rejects(createKernels({ wasm, isa: 'scalar' }), (/** @type {any} */ error) => {
    assert.ok(error instanceof library.IsaError, String(error));
    assert.match(error.message, /the memory cannot hold the test/);
    return true;
  });
  failAfter = 0;
  (await createKernels({ wasm: new WebAssembly.Module(readFileSync(file)), isa: 'scalar' })).dispose();
});

test('staging buffers hold what the largest call needed, and never the ones before', async () => {
  const fm = await createKernels({ threads: 1 });
  const w = fm.weight({ type: 'F32', nRows: 32, nCols: 64 });
  const step = 65536;
  const room = (/** @type {number} */ values) => Math.ceil((4 * values) / step) * step;
  const empty = fm.memory().scratch;
  let most = 0;
  for (const nTokens of [1, 300, 700, 200, 701, 1500, 3, 1024, 2100]) {
    most = Math.max(most, nTokens);
    fm.fusedMatmul(w, new Float32Array(nTokens * 64));
    const { scratch, bytes } = fm.memory();
    assert.equal(scratch - empty, room(most * 64) + room(most * 32), `${nTokens} tokens`);
    assert.ok(bytes < 12e6, `${bytes} bytes of linear memory`);
  }
  fm.dispose();
});
