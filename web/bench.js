/**
 * The benchmark of the kernels: matrices of real models' size with 1 and many tokens, one thread against all of them, and against
 * dequantising first. What is compared runs in turns, so that whatever slows the machine slows all of it.
 */
import { createKernels } from '../js/wasm/create.js';
import { randomActivations } from './reference.js';

/** Rows and columns: an attention projection of a model of 7 billion parameters. */
export const nRows = 4096;
export const nCols = 4096;
export const benchTypes = /** @type {const} */ (['Q4_K', 'Q6_K', 'Q8_0', 'Q4_0']);
const activation = 'int8';
/** Rows that are really made; a matrix is these over and over, since quantising all of it would take longer than all the rest. */
const madeRows = 32;
/** How long one contender runs, at least so often. */
const budgetMs = 120;
const warmUpMs = 70;
const minRounds = 3;
const maxRounds = 40;
/** A call that takes longer is measured once. */
const longCallMs = 700;
/** Below this speed the many are fewer. */
const slowGflops = 10;
export const seed = 20240607;

/** @typedef {{ ms: number, min: number, rounds: number, gflops: number }} Timing */
/** @typedef {{ type: string, nTokens: number, one: Timing, all?: Timing, naive?: Timing, gpu?: Timing }} BenchRow */

/** @param {AbortSignal} signal */
export async function breathe(signal) {
  await new Promise((resolve) => setTimeout(resolve, 0));
  signal.throwIfAborted();
}

/** @param {() => unknown} run  a promise is waited for */
async function time(run) {
  const start = performance.now();
  const pending = run();
  if (pending) await pending;
  return performance.now() - start;
}

/**
 * @param {Record<string, (() => unknown) | undefined>} contenders
 * @param {number} flops  of one call
 * @param {AbortSignal} signal
 * @returns {Promise<Record<string, Timing>>}
 */
export async function race(contenders, flops, signal) {
  const entries = Object.entries(contenders).flatMap(([name, run]) =>
    run ? [{ name, run, ms: /** @type {number[]} */ ([]), spent: 0, done: false }] : [],
  );
  // The first calls warm the code and the caches up, and tell how long one takes.
  for (const entry of entries) {
    for (let spent = 0; spent < warmUpMs && !entry.done; ) {
      const ms = await time(entry.run);
      spent += ms;
      entry.done = ms > longCallMs;
      if (entry.done) entry.ms.push(ms);
      await breathe(signal);
    }
  }
  for (let round = 0; round < maxRounds; round++) {
    const active = entries.filter((entry) => !entry.done);
    if (active.length === 0) break;
    for (const entry of active) {
      const ms = await time(entry.run);
      entry.ms.push(ms);
      entry.spent += ms;
      entry.done = round + 1 >= minRounds && entry.spent > budgetMs;
    }
    await breathe(signal);
  }
  return Object.fromEntries(
    entries.map(({ name, ms }) => {
      const sorted = [...ms].sort((a, b) => a - b);
      const median = sorted[sorted.length >> 1];
      return [name, { ms: median, min: sorted[0], rounds: sorted.length, gflops: flops / median / 1e6 }];
    }),
  );
}

/** The bytes of a matrix. @param {import('../js/wasm/kernels.js').Kernels} fm @param {typeof benchTypes[number]} type */
export function makeMatrix(fm, type) {
  const made = fm.quantize(type, randomActivations(madeRows * nCols, seed), madeRows, nCols);
  const data = new Uint8Array((made.byteLength * nRows) / madeRows);
  for (let at = 0; at < data.length; at += made.byteLength)
    data.set(new Uint8Array(made.buffer, made.byteOffset, made.byteLength), at);
  return data;
}

/**
 * @param {import('../js/wasm/kernels.js').Kernels[]} kernels
 * @param {typeof benchTypes[number]} type
 * @param {number} nTokens
 * @param {AbortSignal} signal
 * @returns {Promise<BenchRow>}
 */
async function measureType([one, all], type, nTokens, signal) {
  const data = makeMatrix(one, type);
  const activations = randomActivations(nTokens * nCols, seed + 1);
  /** @type {{ free(): void }[]} */
  const owned = [];
  const own = (/** @type {any} */ handle) => {
    owned.push(handle);
    return handle;
  };
  try {
    const contender = (/** @type {typeof one} */ fm) => {
      const w = own(fm.weight({ type, nRows, nCols, data }));
      const x = own(fm.tensor({ nRows: nTokens, nCols, data: activations }));
      const y = own(fm.tensor({ nRows: nTokens, nCols: nRows }));
      return { w, x, y, run: () => void fm.fusedMatmul(w, x, { out: y, activation }) };
    };
    const single = contender(one);
    let naive;
    if (nTokens === 1) {
      const dense = own(one.weight({ type: 'F32', nRows, nCols }));
      naive = () => {
        one.dequantize(single.w, { out: dense });
        one.fusedMatmul(dense, single.x, { out: single.y, activation: 'f32' });
      };
    }
    const contenders = { one: single.run, all: all && contender(all).run, naive };
    const times = await race(contenders, 2 * nTokens * nRows * nCols, signal);
    return { type, nTokens, one: times.one, all: times.all, naive: times.naive };
  } finally {
    for (const handle of owned.reverse()) handle.free();
  }
}

/** @param {{ threads?: number, signal: AbortSignal, onEvent: (event: { done: number, total: number, label: string }) => void }} options */
export async function benchmark({ threads, signal, onEvent }) {
  const one = await createKernels({ threads: 1 });
  const all = await createKernels({ threads });
  const nThreads = all.info.threads;
  const kernels = nThreads > 1 ? [one, all] : [one];
  try {
    const total = 2 * benchTypes.length;
    let done = 0;
    const tell = (/** @type {string} */ label) => onEvent({ done: done++, total, label });
    /** @type {BenchRow[]} */
    const rows = [];
    let many = 128;
    for (const type of benchTypes) {
      tell(`${type}, 1 token`);
      const single = await measureType(kernels, type, 1, signal);
      if (single.one.gflops < slowGflops) many = 32;
      tell(`${type}, ${many} tokens`);
      rows.push(single, await measureType(kernels, type, many, signal));
    }
    const { isa, dot, version } = one.info;
    return {
      version,
      isa,
      dot,
      threads: nThreads,
      cores: navigator.hardwareConcurrency,
      isolated: crossOriginIsolated,
      userAgent: navigator.userAgent,
      date: new Date().toISOString(),
      nRows,
      nCols,
      activation,
      many,
      rows,
    };
  } finally {
    one.dispose();
    all.dispose();
  }
}
