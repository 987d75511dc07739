/**
 * One measurement of one matrix: the fused multiply against dequantise-then-multiply, and its result against float64.
 * Both ways run in the same wasm instance, on tensors that already live in its memory, in turns.
 */
import { Comparison, randomActivations } from './reference.js';

/** A float copy larger than this is not made: wasm memory never shrinks, and phones have little. */
const maxDenseBytes = 512e6;
/** Multiply-adds of the float64 check; more than a second of JavaScript otherwise. Rows are sampled evenly beyond it. */
const maxCheckedProducts = 1e8;
/** How long one timed batch of calls should last, so that the browser's coarse clock does not matter. */
const batchMs = globalThis.crossOriginIsolated ? 4 : 12;
const budgetMs = 700;
const minRounds = 3;
const maxRounds = 15;
const seed = 20240607;

/** Lets messages in, so that a measurement can be cancelled. @param {AbortSignal} signal */
async function breathe(signal) {
  await new Promise((resolve) => setTimeout(resolve, 0));
  signal.throwIfAborted();
}

/** @param {() => void} run @param {number} calls */
function timeBatch(run, calls) {
  const start = performance.now();
  for (let i = 0; i < calls; i++) run();
  return performance.now() - start;
}

/** Also warms the code up: the optimising compiler needs calls before it takes over. @param {() => void} run */
function callsPerBatch(run) {
  let calls = 1;
  for (;;) {
    const ms = timeBatch(run, calls);
    if (ms >= batchMs) return calls;
    calls = Math.ceil(calls * Math.min(8, Math.max(1.5, (1.2 * batchMs) / Math.max(ms, 1e-3))));
  }
}

/**
 * Runs the contenders in turns, so that whatever slows the machine slows all of them.
 * @param {Record<string, () => void>} contenders
 * @param {AbortSignal} signal
 */
async function race(contenders, signal) {
  const entries = [];
  for (const [name, run] of Object.entries(contenders)) {
    entries.push({ name, run, calls: callsPerBatch(run), ms: /** @type {number[]} */ ([]) });
    await breathe(signal);
  }
  const start = performance.now();
  for (let round = 0; round < maxRounds; round++) {
    if (round >= minRounds && performance.now() - start > budgetMs) break;
    for (const entry of entries) {
      entry.ms.push(timeBatch(entry.run, entry.calls) / entry.calls);
      await breathe(signal);
    }
  }
  return Object.fromEntries(
    entries.map(({ name, ms }) => {
      const sorted = [...ms].sort((a, b) => a - b);
      return [name, { ms: sorted[sorted.length >> 1], min: sorted[0], rounds: sorted.length }];
    }),
  );
}

/**
 * @param {import('../js/index.js').Kernels} fm
 * @param {import('../js/index.js').Weight} w
 * @param {Float32Array} x
 * @param {Float32Array} y  the result to check
 * @param {'f32' | 'int16' | 'int8'} served  the activation mode the kernel really used
 * @param {AbortSignal} signal
 */
async function check(fm, w, x, y, served, signal) {
  const comparison = new Comparison(x, w.nCols, served);
  const wanted = Math.floor(maxCheckedProducts / (w.nCols * comparison.nTokens));
  const rows = Math.max(1, Math.min(w.nRows, wanted));
  let last = performance.now();
  for (let i = 0; i < rows; i++) {
    const row = Math.floor((i * w.nRows) / rows);
    const values = fm.dequantize(w, { start: row, end: row + 1 });
    comparison.addRow(values, (token) => y[token * w.nRows + row]);
    if (performance.now() - last > 50) {
      await breathe(signal);
      last = performance.now();
    }
  }
  return { ...comparison.summary(), rows, seed };
}

/**
 * @param {import('../js/index.js').Kernels} fm
 * @param {import('../js/index.js').Weight} w
 * @param {{ nTokens: number, activation: 'f32' | 'int16' | 'int8', signal: AbortSignal }} options
 */
export async function measure(fm, w, { nTokens, activation, signal }) {
  const { nRows, nCols } = w;
  const denseBytes = nRows * nCols * 4;
  const flops = 2 * nTokens * nRows * nCols;
  const served = fm.servedBy(w.type, activation);
  const owned = /** @type {{ free(): void }[]} */ ([]);
  const own = (/** @type {any} */ handle) => {
    owned.push(handle);
    return handle;
  };
  try {
    const values = randomActivations(nTokens * nCols, seed);
    const x = own(fm.tensor({ nRows: nTokens, nCols, data: values }));
    const y = own(fm.tensor({ nRows: nTokens, nCols: nRows }));
    const fused = () => void fm.fusedMatmul(w, x, { out: y, activation });
    fused();
    const verified = await check(fm, w, values, y.toArray(), served.activation, signal);

    /** @type {Record<string, () => void>} */
    const contenders = { fused };
    let skipped = '';
    if (w.type === 'F32') {
      skipped = 'This matrix is f32 already: there is nothing to dequantise.';
    } else if (denseBytes > maxDenseBytes) {
      skipped = 'Dequantising first was not run: its f32 copy is larger than this page asks a browser for.';
    } else {
      const dense = own(fm.weight({ type: 'F32', nRows, nCols }));
      contenders.dense = () => {
        fm.dequantize(w, { out: dense });
        fm.fusedMatmul(dense, x, { out: y, activation: 'f32' });
      };
    }
    const times = await race(contenders, signal);
    const speed = (/** @type {{ ms: number, min: number, rounds: number } | undefined} */ time) =>
      time && { ...time, gflops: flops / time.ms / 1e6 };
    return {
      tensor: { type: w.type, nRows, nCols },
      nTokens,
      activation,
      isa: fm.isa,
      served,
      fused: /** @type {{ ms: number, min: number, rounds: number, gflops: number }} */ (speed(times.fused)),
      dense: speed(times.dense),
      skipped,
      memory: { weight: w.byteLength, dense: w.type === 'F32' ? 0 : denseBytes },
      verified,
    };
  } finally {
    for (const handle of owned.reverse()) handle.free();
  }
}
