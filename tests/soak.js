/**
 * `npm run soak -- --iterations 10000`: a mix of everything that the library does, in two instances
 * side by side, one of which is sometimes dropped without dispose(); loads that are aborted at
 * random moments, broken files, wrong calls. Memory must stay flat: the linear memories, the
 * handles, JavaScript's heap and its buffers. tests/package/soak.test.js runs a short version.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createKernels, FmError, openGguf } from '../js/layer-index.js';
import { isMain } from '../scripts/setup/run.js';
import { countedBytes, ggufBytes } from './helpers/gguf-bytes.js';
import { Prng } from './helpers/prng.js';
import { startServer } from './helpers/range-server.js';

/** @import { GgufFile, Kernels, Weight } from '../js/layer-index.js' */

/**
 * Largest difference of the JavaScript heap, and of array buffers outside it, between two moments
 * with nothing in use.
 */
const HEAP_SLACK = 2.5e6;
const BUFFER_SLACK = 1e6;
/**
 * Iterations after which everything that is made only once exists, and code has its final
 * compilation.
 */
const warmUp = (/** @type {number} */ iterations) => Math.max(Math.min(60, iterations >> 1), iterations / 10);

setFlagsFromString('--expose-gc');
const collectGarbage = /** @type {() => void} */ (runInNewContext('gc'));

/** A file whose tensors arrive in several chunks. */
const { bytes: fileBytes } = ggufBytes({
  tensors: [
    { name: 'small', typeId: 8, shape: [64, 64], data: countedBytes(64 * 68) },
    { name: 'large', typeId: 12, shape: [4096, 1300], data: countedBytes(1300 * 16 * 144) },
  ],
});

/**
 * @param {Kernels} fm @param {Prng} prng
 * @returns {Float32Array[]} results, to compare between instances
 */
function layer(fm, prng) {
  const nTokens = prng.int(1, 20);
  const x = Float32Array.from({ length: nTokens * 64 }, () => prng.gaussian());
  const type = prng.pick(['Q8_0', 'Q4_0', 'Q5_1']);
  const weights = [1, 2, 3].map((seed) => {
    const values = Float32Array.from({ length: 64 * 64 }, (_, i) => Math.sin(seed + i));
    return fm.weight({ type, nRows: 64, nCols: 64, data: fm.quantize(type, values, 64, 64) });
  });
  const [w1, w2, w3] = weights;
  const caches = [0, 1].map(() => fm.kvCache({ nPositions: 24, nKvHeads: 1, headSize: 32, type: 'F16' }));
  const h = fm.tensor({ nRows: nTokens, nCols: 64, data: x });
  const [q, k] = fm.fusedRmsNormMatmul([w1, w2], h, null);
  fm.rope(q, { headSize: 32, out: q });
  const half = fm.tensor({ nRows: nTokens, nCols: 32, data: k.toArray().subarray(0, nTokens * 32) });
  for (const cache of caches) cache.write(half, prng.int(0, 24 - nTokens));
  const attended = fm.flashAttention(q, caches[0], caches[1], { causal: false });
  fm.add(h, attended, { out: h });
  fm.fusedFfn({ gate: w1, up: w2, down: w3 }, h, { residual: true, out: h });
  const logits = fm.fusedMatmul(w3, h.toArray());
  const results = [
    h.toArray(),
    logits,
    fm.softmax(logits, { nCols: 64 }),
    fm.dequantize(w1, { start: 1, end: 9 }),
  ];
  for (const handle of [...weights, ...caches, h, q, k, half, attended]) handle.free();
  return results;
}

/**
 * Wrong calls, which must leave nothing behind.
 * @param {Kernels} fm @param {Weight} w @param {Prng} prng
 */
function mistakes(fm, w, prng) {
  const wrong = prng.pick([
    () => fm.fusedMatmul(w, new Float32Array(prng.int(0, 63))),
    () => fm.tensor({ nRows: 2 ** 31, nCols: 2 ** 10 }),
    () => fm.weight({ type: 'Q4_K', nRows: 2, nCols: 100, data: new Uint8Array(3) }),
    () => fm.embed(w, [prng.int(64, 1e6)]),
    () => fm.fusedMatmulMany([w, w], new Float32Array(64), { out: [new Float32Array(64)] }),
    () => fm.kvCache({ nPositions: 1, nKvHeads: 1, headSize: 1000 }),
  ]);
  assert.throws(wrong, FmError);
}

/**
 * A load that is aborted after some chunks or some turns of the event loop, or finishes before.
 * @param {Kernels} fm @param {GgufFile} gguf @param {Prng} prng
 * @returns {Promise<number>}  1 if it was aborted
 */
async function abortedLoad(fm, gguf, prng) {
  const controller = new AbortController();
  const reason = new Error('enough');
  const after = prng.int(0, 4);
  const byProgress = prng.int(0, 1) === 0;
  let nChunks = 0;
  const onProgress = () => {
    if (byProgress && ++nChunks > after) controller.abort(reason);
  };
  if (!byProgress) {
    const wait = (/** @type {number} */ turns) =>
      turns === 0 ? controller.abort(reason) : setImmediate(() => wait(turns - 1));
    wait(after);
  }
  /** @type {Weight} */
  let w;
  try {
    w = await fm.loadWeight(gguf, 'large', { signal: controller.signal, onProgress });
  } catch (error) {
    assert.equal(error, reason);
    return 1;
  }
  w.free();
  return 0;
}

/** Opens a broken file. @param {Prng} prng */
async function brokenFile(prng) {
  const mutant = fileBytes.slice(0, 4096);
  for (let n = prng.int(0, 3); n > 0; n--) mutant[prng.int(0, 200)] = prng.int(0, 255);
  await assert.rejects(openGguf(mutant), { name: 'GgufError' });
}

/** Waits until sockets and buffers that are about to be freed are gone. @param {Kernels[]} both */
async function state(both) {
  let [heapUsed, arrayBuffers] = [Infinity, Infinity];
  for (let i = 0; i < 6; i++) {
    collectGarbage();
    await sleep(20);
    const usage = process.memoryUsage();
    heapUsed = Math.min(heapUsed, usage.heapUsed);
    arrayBuffers = Math.min(arrayBuffers, usage.arrayBuffers);
  }
  return { heapUsed, arrayBuffers, linear: both.map((fm) => fm.memory()) };
}

/**
 * @param {{ iterations: number, seed: number, report?: (line: string) => void }} options
 * @returns {Promise<{ aborted: number, heapGrowth: number, bufferGrowth: number,
 *   linearBytes: number[] }>}
 */
export async function soak({ iterations, seed, report = () => {} }) {
  const prng = new Prng(seed);
  const server = await startServer(fileBytes);
  const both = [await createKernels(), await createKernels()];
  const files = [
    await openGguf(fileBytes),
    await openGguf(new Blob([fileBytes])),
    await openGguf(server.url),
  ];
  const kept = await Promise.all(both.map((fm) => fm.loadWeight(files[0], 'small')));
  let aborted = 0;
  /** @type {Awaited<ReturnType<typeof state>> | undefined} */
  let settled;
  try {
    for (let i = 0; i < iterations; i++) {
      const fork = prng.u32();
      const results = both.map((fm) => layer(fm, new Prng(fork)));
      assert.deepEqual(results[1], results[0], `seed ${seed}, iteration ${i}: the instances differ`);
      both.forEach((fm, k) => {
        mistakes(fm, kept[k], prng);
      });
      if (i % 4 === 0) await brokenFile(prng);
      if (i % 8 === 0) {
        for (const n of await Promise.all(both.map((fm) => abortedLoad(fm, prng.pick(files), prng))))
          aborted += n;
      }
      if (i % 50 === 0) {
        const third = await createKernels();
        const loading = third.loadWeight(files[1], 'large');
        if (prng.int(0, 1)) third.dispose();
        await loading.catch((error) => assert.ok(error instanceof FmError, String(error)));
        third.dispose();
      }
      server.requests.length = 0; // the server records every request
      for (const fm of both) assert.equal(fm.memory().handles, 1, `iteration ${i}`);
      if (i === Math.floor(warmUp(iterations))) settled = await state(both);
      if (i % 1000 === 999) {
        const { heapUsed, arrayBuffers, linear } = await state(both);
        report(
          `${i + 1} iterations: ${linear[0].bytes} bytes of linear memory, ${heapUsed} of heap, ${arrayBuffers} of buffers`,
        );
      }
    }
    assert.ok(settled);
    const end = await state(both);
    end.linear.forEach((memory, k) => {
      const { bytes, weights, tensors, handles, inUse } = /** @type {any} */ (settled).linear[k];
      assert.deepEqual(
        [memory.bytes, memory.weights, memory.tensors, memory.handles, memory.inUse],
        [bytes, weights, tensors, handles, inUse],
        `the linear memory of instance ${k} after ${iterations} iterations, and after ${warmUp(iterations)}`,
      );
    });
    const heapGrowth = end.heapUsed - settled.heapUsed;
    const bufferGrowth = end.arrayBuffers - settled.arrayBuffers;
    assert.ok(heapGrowth < HEAP_SLACK, `JavaScript's heap grew by ${heapGrowth} bytes`);
    assert.ok(bufferGrowth < BUFFER_SLACK, `array buffers grew by ${bufferGrowth} bytes`);
    return { aborted, heapGrowth, bufferGrowth, linearBytes: end.linear.map(({ bytes }) => bytes) };
  } finally {
    for (const fm of both) fm.dispose();
    await server.close();
  }
}

if (isMain(import.meta.url)) {
  const { values } = parseArgs({
    options: { iterations: { type: 'string', default: '10000' }, seed: { type: 'string', default: '1' } },
  });
  const started = performance.now();
  const { aborted, heapGrowth, bufferGrowth, linearBytes } = await soak({
    iterations: Number(values.iterations),
    seed: Number(values.seed),
    report: (line) => process.stdout.write(`${line}\n`),
  });
  process.stdout.write(
    `${values.iterations} iterations in ${((performance.now() - started) / 1000).toFixed(0)} s, ${aborted} loads aborted: ` +
      `heap ${heapGrowth} bytes, buffers ${bufferGrowth} bytes more; linear memories ${linearBytes.join(' and ')} bytes\n`,
  );
}
