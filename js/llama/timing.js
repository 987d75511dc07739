/* Times the layers of a model on two devices, with weights of zeros in the shapes of the model: the
 * time of a product does not depend on the values. The layers of a token are computed one after the
 * other as in decoding, and the result is read. */

import { GgufFile } from '../gguf/file.js';
import { Remembered } from '../remembered.js';
import { VERSION } from '../wasm/loader.js';
import { nextTask } from './pause.js';
import { slicePlan } from './plan-slice.js';

/** @typedef {import('../backend.js').Backend} Backend */
/** @typedef {import('../gguf/bytes.js').ByteSource} ByteSource */
/** @typedef {import('./devices.js').Times} Times */
/** @typedef {import('./place.js').ModelFacts} ModelFacts */
/** @typedef {import('./plan-slice.js').Slice} Slice */

/** Bytes of weights that are timed: more than a processor's caches hold. */
const TIMED_BYTES = 48 << 20;
/** Milliseconds, and tokens, after which a device has been timed. */
const LONGEST_MS = 120;
const MOST_TOKENS = 8;
/** Positions of the caches. */
const POSITIONS = 256;
/** Times by adapter and model size. @type {Remembered<Times>} */
export const knownTimes = new Remembered('fused-matmul-timings');

/** @param {any} times */
const isTimes = (times) => [times?.gpu, times?.cpu].every((ms) => typeof ms === 'number' && ms > 0);

/**
 * Times both devices, or looks up the times of the same devices and a model of the same size.
 * @type {import('./devices.js').Timer}
 */
export async function timeDevices(gpu, cpu, facts) {
  const key = keyOf(gpu, cpu, facts);
  // JSON has no infinity.
  const finite = async (/** @type {Backend} */ one) => Math.min(Number.MAX_VALUE, await timeOf(one, facts));
  const found = await knownTimes.recall(key, isTimes);
  if (found) return found;
  const times = { gpu: await finite(gpu), cpu: await finite(cpu) };
  await knownTimes.keep(key, times);
  return times;
}

/** @param {Backend} gpu @param {Backend} cpu @param {ModelFacts} facts */
function keyOf(gpu, cpu, { plan, tensors, settings }) {
  /** @type {Record<string, number>} */
  const bytes = {};
  for (const { type, byteLength } of tensors) bytes[type] = (bytes[type] ?? 0) + byteLength;
  const { adapter, features, variants } = gpu.info.gpu ?? {};
  const { isa, dot, threads } = cpu.info.kernels ?? {};
  return JSON.stringify([
    VERSION,
    [adapter, features, variants],
    [isa, dot, threads, settings.activation],
    [plan.layers.length, plan.nEmbd, bytes, settings.kvType],
  ]);
}

/**
 * Milliseconds of the layers of a token; infinite where the memory is too small for those timed.
 * @param {Backend} backend
 * @param {ModelFacts} facts
 */
export async function timeOf(backend, facts) {
  const { plan, settings } = facts;
  const slice = timedLayers(facts);
  const short = { ...settings, contextLength: Math.min(settings.contextLength, POSITIONS) };
  /** @type {{ free: () => void }[]} */
  const owned = [];
  const own = (/** @type {any} */ one) => {
    owned.push(one);
    return one;
  };
  try {
    const zeros = zeroFile(facts.gguf);
    const weights = own(await backend.loadWeights(zeros, slice.plan, slice.tensors, { otherBytes: 0 }));
    const x = own(backend.hidden(slice.plan, { batch: 1, part: 1 }));
    const layers = slice.plan.layers.map(({ attention, recurrent, feed }, i) => {
      const of = weights.byRole.layers[i];
      return {
        attention: attention && { settings: attention, weights: of.attention, layer: i },
        recurrent: recurrent && { settings: recurrent, weights: of.recurrent, layer: i },
        feed: { settings: feed, weights: of.feed, layer: i },
        cache: attention && own(backend.cache(attention, short, i)),
      };
    });
    // A layer that stands for others computes the same position several times, each with a state.
    const states = plan.layers.map((_, i) => {
      const layer = i % layers.length;
      const { recurrent } = slice.plan.layers[layer];
      return recurrent && own(backend.state(recurrent, short, layer));
    });
    const start = new Float32Array(plan.nEmbd);
    const pass = async (/** @type {number} */ position) => {
      const at = { position, start: 0, nTokens: 1, seen: position + 1 };
      backend.write(x, 0, start);
      for (let i = 0; i < plan.layers.length; i++) {
        const { attention, recurrent, feed, cache } = layers[i % layers.length];
        if (attention) backend.project(x, attention, cache, at);
        if (recurrent) backend.recur(x, recurrent, states[i], at);
        if (attention) backend.attend(x, attention, cache, at);
        backend.feed(x, feed, at);
      }
      await backend.read(x, { start: 0, nRows: 1 });
    };
    // The first token compiles kernels.
    await pass(0);
    return await fastest(pass, short.contextLength);
  } catch (error) {
    if (/** @type {{ code?: string }} */ (error)?.code === 'FM_MEMORY') return Number.POSITIVE_INFINITY;
    throw error;
  } finally {
    for (const one of owned.reverse()) one.free();
  }
}

/**
 * The shortest of some passes, in milliseconds.
 * @param {(position: number) => Promise<void>} pass
 * @param {number} nPositions
 */
async function fastest(pass, nPositions) {
  let best = Number.POSITIVE_INFINITY;
  const start = performance.now();
  for (let i = 1; i <= MOST_TOKENS && performance.now() - start < LONGEST_MS; i++) {
    await nextTask();
    const since = performance.now();
    await pass(i % nPositions);
    best = Math.min(best, performance.now() - since);
  }
  return best;
}

/**
 * The first layers, as many as have the bytes that are timed.
 * @param {ModelFacts} facts
 * @returns {Slice}
 */
function timedLayers({ gguf, plan, planned }) {
  for (let to = 1; ; to++) {
    const slice = slicePlan(plan, planned, { from: 0, to, embedding: false, head: false });
    const bytes = slice.tensors.reduce((sum, { name }) => sum + gguf.tensor(name).byteLength, 0);
    if (bytes >= TIMED_BYTES || to === plan.layers.length) return slice;
  }
}

/**
 * A file with the tensors of another one, all of zeros.
 * @param {GgufFile} gguf
 */
function zeroFile(gguf) {
  const zeros = new Uint8Array(1 << 20);
  /** @type {ByteSource} */
  const source = {
    name: 'zeros',
    size: gguf.byteLength,
    async *stream(_, length) {
      for (let left = length; left > 0; left -= zeros.length)
        yield zeros.subarray(0, Math.min(left, zeros.length));
    },
  };
  const { version, alignment, metadata, tensors } = gguf;
  const refuse = () => {
    throw new Error('only weights are read from this file');
  };
  const tools = { noTensor: refuse, read: refuse, stream: refuse, parts: gguf.parts };
  return new GgufFile(source, { version, alignment, metadata, tensors }, tools);
}
