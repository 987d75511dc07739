/**
 * More than 4 GiB: weights beyond it in a 64-bit memory, and files beyond it in any memory.
 * Untouched memory costs nothing.
 */
import assert from 'node:assert/strict';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { MemoryError, openGguf } from '../../js/index.js';
import { createKernels } from '../../js/layer-index.js';
import { detectFeatures } from '../../js/wasm/features.js';
import { addressIn } from '../../js/wasm/handles.js';
import { memoryOf } from '../../js/wasm/kernels.js';
import { testWeights } from '../../js/wasm/selftest.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { gaussian, weight } from '../helpers/layer-api.js';

/** @import { Kernels } from '../../js/layer-index.js' */

const GIB = 2 ** 30;
const MAX_RESIDENT = 2 * GIB;
const { memory64, relaxedSimd } = await detectFeatures();
const has64 = memory64 && relaxedSimd;
const skip = has64 ? false : `no 64-bit memories in Node ${process.version}`;

/**
 * Results of operations whose inputs may be anywhere in memory.
 * @param {Kernels} fm @returns {Float32Array[]}
 */
function results(fm) {
  const [a, b, down] = [
    weight(fm, 'Q4_K', 300, 256, 1),
    weight(fm, 'Q4_K', 300, 256, 2),
    weight(fm, 'F16', 256, 300, 3),
  ];
  const x = fm.tensor({ nRows: 5, nCols: 256, data: gaussian(5 * 256, 4) });
  const norm = gaussian(256, 5);
  const cache = /** @type {const} */ ({ type: 'F16', nPositions: 40, nKvHeads: 2, headSize: 64 });
  const [k, v] = [fm.kvCache(cache), fm.kvCache(cache)];
  k.write(gaussian(40 * 128, 6), 0);
  v.write(gaussian(40 * 128, 7), 0);
  const state = fm.tensor({ nRows: 64, nCols: 128, data: gaussian(64 * 128, 10) });
  const [alpha, beta] = [gaussian(5, 11), gaussian(5, 12)];
  const gates = { alpha, beta, dtBias: gaussian(1, 13), a: Float32Array.of(-0.3) };
  const a4 = Float32Array.of(-0.1, -1, -2, -9);
  const steps = { dt: gaussian(20, 10), dtBias: gaussian(4, 11), a: a4, d: gaussian(4, 12) };
  const outputs = [
    fm.fusedMatmul(a, x),
    ...fm.fusedMatmulMany([a, b], x),
    ...fm.fusedRmsNormMatmul([a, b], x, norm),
    fm.fusedFfn({ gate: a, up: b, down, norm }, x, { residual: true }),
    fm.fusedSwigluMatmul(a, x, x),
    ...fm.fusedMatmulExperts([a], x, fm.route(gaussian(4 * x.nRows, 10), { nExperts: 4, nUsed: 2 })),
    fm.mixRows(x, fm.route(gaussian(2 * x.nRows, 10), { nExperts: 2, nUsed: 1 })),
    fm.flashAttention(x, k, v, { firstPosition: 30 }),
    fm.deltaNet(x, gates, state),
    state,
    fm.fusedAttentionScore(x, x),
    fm.rmsNorm(x, norm),
    fm.layerNorm(x, norm),
    fm.softmax(x),
    fm.rope(x, { headSize: 64 }),
    fm.add(x, x),
    fm.addScaled(x, x, -0.3),
    fm.scale(x, 62.2),
    fm.gated(x, x),
    fm.multiply(x, x),
    fm.causalConv(x, gaussian(3 * x.nCols, 10), fm.tensor({ nRows: 2, nCols: x.nCols })),
    fm.ssmScan(x, steps, fm.tensor({ nRows: 128, nCols: 32 }), { nGroups: 2 }),
  ].map((tensor) => tensor.toArray());
  outputs.push(fm.embed(a, [299, 0]), fm.dequantize(b), fm.fusedMatmul(a, gaussian(256, 8)));
  const bytes = fm.quantize('Q6_K', gaussian(512, 9), 2, 256);
  return [...outputs, Float32Array.from(bytes)];
}

test('memory64: weights and tensors beyond 4 GiB give the same bits', { skip }, async (t) => {
  const [small, large] = [await createKernels({ threads: 1 }), await createKernels({ memory64: true })];
  t.after(() => small.dispose());
  t.after(() => large.dispose());
  large.select({ isa: small.isa, ...(small.info.dot && { dot: small.info.dot }) });
  assert.deepEqual([small.info.memory64, small.info.memory64Reason], [false, undefined]);
  assert.deepEqual([large.info.memory64, large.info.memory64Reason], [true, 'asked for']);
  const memory = memoryOf(large);
  for (let i = 0; i < 3; i++) memory.alloc(1.5 * GIB, 'scratch');
  const huge = memory.alloc(5 * GIB, 'scratch');
  const w = weight(large, 'Q8_0', 40, 256, 1);
  t.diagnostic(`a weight at ${addressIn(w, memory)}, memory of ${large.memory().bytes} bytes`);
  assert.ok(addressIn(w, memory) > 9 * GIB);
  for (const [i, expected] of results(small).entries()) {
    assert.deepEqual(results(large)[i], expected, `result ${i}`);
  }
  // Freed and allocated again: the allocator can split a block of over 4 GiB.
  memory.free(huge, 5 * GIB, 'scratch');
  const again = Array.from({ length: 4 }, () => memory.alloc(GIB, 'scratch'));
  assert.ok(again.every((ptr) => ptr >= huge && ptr + GIB <= huge + 5 * GIB + 4096));
  assert.ok(process.memoryUsage().rss < MAX_RESIDENT, `${process.memoryUsage().rss} bytes resident`);
});

test('memory64: the limit is that of the memory', { skip }, async (t) => {
  const fm = await createKernels({ memory64: true });
  t.after(() => fm.dispose());
  assert.throws(
    () => fm.kvCache({ nPositions: 2 ** 31, nKvHeads: 8, headSize: 64 }),
    (error) => error instanceof MemoryError && error.limit === 16 * GIB && error.asked === 2 ** 41,
  );
  assert.throws(() => memoryOf(fm).alloc(16 * GIB - 2 ** 20, 'scratch'), MemoryError);
  assert.ok(fm.rmsNorm(gaussian(32, 1)).every(Number.isFinite), 'usable as before');
});

test('memory64: where an engine has none, 32 bits and the reason', {
  skip: has64 && 'this engine has it',
}, async (t) => {
  const fm = await createKernels({ memory64: true });
  t.after(() => fm.dispose());
  assert.equal(fm.info.memory64, false);
  assert.match(fm.info.memory64Reason ?? '', /32 bits: relaxed-mt-64: .*this engine/);
});

for (const wide of [false, true]) {
  test(`a tensor beyond 4 GB of a file, ${wide ? 64 : 32}-bit memory`, { skip: wide && skip }, async (t) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'fused-matmul-'));
    t.after(() => rm(folder, { recursive: true }));
    const file = path.join(folder, 'sparse.gguf');
    const offset = 4.5e9;
    const data = testWeights('Q4_K', 24);
    const spec = { typeId: 12, shape: [512, 24], data };
    const { bytes, dataStart } = ggufBytes({
      tensors: [
        { ...spec, name: 'near' },
        { ...spec, name: 'far', offset },
      ],
    });
    const handle = await open(file, 'w');
    await handle.write(bytes.subarray(0, dataStart + data.length));
    await handle.write(
      data.map((byte, i) => byte ^ (i % 144 === 20 ? 5 : 0)),
      0,
      data.length,
      dataStart + offset,
    );
    await handle.close();
    const fm = await createKernels({ memory64: wide });
    t.after(() => fm.dispose());
    const gguf = await openGguf(file);
    const [near, far] = await fm.loadWeights(gguf, ['near', 'far']);
    const changed = data.map((byte, i) => byte ^ (i % 144 === 20 ? 5 : 0));
    const right = fm.weight({ type: 'Q4_K', nRows: 24, nCols: 512, data: changed });
    const x = gaussian(2 * 512, 1);
    assert.deepEqual(fm.fusedMatmul(far, x), fm.fusedMatmul(right, x));
    assert.notDeepEqual(fm.fusedMatmul(near, x), fm.fusedMatmul(right, x));
  });
}
