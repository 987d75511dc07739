/**
 * `npm run bench -- --threads`: one thread and several in turns, on the same memory. It shows what
 * a shared product gains, what sharing costs (a job with almost no work, the threads awake and
 * asleep), and calls so small that they are never shared.
 */
import { Kernels } from '../../js/wasm/kernels.js';
import { load } from '../../js/wasm/loader.js';
import * as operations from '../../js/wasm/operations.js';
import { referenceByName } from '../helpers/reference.js';
import { makeData } from './data.js';
import { median, race } from './lab.js';
import { table } from './report.js';

/** @import { ReferenceType } from '../helpers/reference.js' */
/** @import { Limits } from './lab.js' */

/** The threshold of work with which every call is shared. */
const ALWAYS = 0;
/** Longer than threads spin before they sleep, in milliseconds. */
const PAUSE_MS = 1;

/** @param {Kernels} fm @param {number} n @param {number} nTokens */
function product(fm, n, nTokens) {
  const type = /** @type {ReferenceType} */ (referenceByName.get('Q4_K'));
  const made = makeData({ type, nRows: n, nCols: n, nTokens: 1 });
  const w = fm.weight({ type: 'Q4_K', nRows: n, nCols: n, data: made.w });
  const x = fm.tensor({ nRows: nTokens, nCols: n });
  for (let t = 0; t < nTokens; t++) x.set(made.x, t * n);
  const out = fm.tensor({ nRows: nTokens, nCols: n });
  return () => fm.fusedMatmul(w, x, { out });
}

/** @param {number} ms */
const us = (ms) => `${(1000 * ms).toPrecision(3)} µs`;

/**
 * @param {Limits} limits
 * @param {number | undefined} threads
 * @returns {Promise<string>} Markdown
 */
export async function threadsReport(limits, threads) {
  const loaded = await load({ threads });
  const { pool } = loaded;
  if (!pool || pool.failure) return `nothing to compare: ${loaded.threadsReason}`;
  const fm = new Kernels(loaded, 'int8', operations);
  const { count } = pool;
  /** @param {() => unknown} run @param {number} [forkWork] */
  const both = (run, forkWork) =>
    race(
      [1, count].map((n) => ({
        name: `${n}`,
        run: () => {
          pool.use(n, forkWork);
          run();
        },
      })),
      limits,
    );
  const rows = [];
  for (const [name, run] of /** @type {[string, () => unknown][]} */ ([
    ['Q4_K 4096x4096, 1 token', product(fm, 4096, 1)],
    ['Q4_K 4096x4096, 128 tokens', product(fm, 4096, 128)],
    ['Q4_K 256x256, 1 token: never shared', product(fm, 256, 1)],
  ])) {
    const [one, all] = await both(run);
    rows.push([
      name,
      us(one.medianMs),
      us(all.medianMs),
      `${(one.medianMs / all.medianMs).toFixed(2)}x`,
      `${(one.minMs / all.minMs).toFixed(2)}x`,
    ]);
  }
  const values = fm.tensor({ nRows: 1, nCols: 2048 });
  const little = () => fm.add(values, values, { out: values });
  const [alone, shared] = await both(little, ALWAYS);
  const afterPause = [1, count].map((n) => afterPauseMs(() => pool.use(n, ALWAYS), little));
  pool.use(1);
  const awake = shared.medianMs - alone.medianMs;
  const asleep = afterPause[1] - afterPause[0];
  fm.dispose();
  return [
    table(['int8', '1 thread', `${count} threads`, 'median', 'min'], rows),
    '',
    `Sharing a job of ${us(alone.medianMs)} costs ${us(awake)} more where the threads are awake, ` +
      `${us(asleep)} where they sleep (median of single calls, against one thread after the same pause).`,
  ].join('\n');
}

/**
 * The median of single calls, each after a pause in which threads fall asleep.
 * @param {() => void} use @param {() => unknown} run
 */
function afterPauseMs(use, run) {
  use();
  const pause = new Int32Array(new SharedArrayBuffer(4));
  return median(
    Array.from({ length: 200 }, () => {
      Atomics.wait(pause, 0, 0, PAUSE_MS);
      const start = performance.now();
      run();
      return performance.now() - start;
    }),
  );
}
