/**
 * `npm run bench -- --startup`: the time from createKernels() to the first result, each time in a
 * new process with a warm file cache. With --child, this script is that process.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createKernels } from '../../js/index.js';
import { median } from './lab.js';

/** @import { Result } from './report.js' */

/** Options of createKernels to compare: a name for the table, and the number of threads. */
const CONTENDERS = /** @type {const} */ ([
  ['default', undefined],
  ['threads: 1', 1],
]);

/**
 * Makes new kernels and computes one 256 x 256 Q4_K product.
 * @param {number | undefined} threads
 * @returns {Promise<number>} milliseconds
 */
async function firstResult(threads) {
  const data = new Uint8Array(256 * 144).fill(0x21);
  const x = new Float32Array(256).fill(0.5);
  const start = performance.now();
  const fm = await createKernels(threads === undefined ? {} : { threads });
  const w = fm.weight({ type: 'Q4_K', nRows: 256, nCols: 256, data });
  fm.fusedMatmul(w, x);
  const ms = performance.now() - start;
  fm.dispose();
  return ms;
}

/**
 * Starts processes of the contenders in turns.
 * @param {number} processes  number of processes for each contender @returns {Result[]}
 */
export function startup(processes) {
  const times = CONTENDERS.map(() => /** @type {number[]} */ ([]));
  for (let round = 0; round < processes; round++) {
    for (const [i, [, threads]] of CONTENDERS.entries()) {
      const args = [fileURLToPath(import.meta.url), '--child', ...(threads ? [`${threads}`] : [])];
      times[i].push(Number(spawnSync(process.execPath, args, { encoding: 'utf8' }).stdout));
    }
  }
  return CONTENDERS.map(([kernel], i) => ({
    section: 'startup',
    case: 'startup',
    kernel,
    flops: 2 * 256 * 256,
    bytes: 256 * 144,
    medianMs: median(times[i].sort((a, b) => a - b)),
    minMs: times[i][0],
    samples: processes,
  }));
}

/** @param {Result[]} results @returns {string} a line for each contender */
export const startupReport = (results) =>
  results
    .map(({ kernel, medianMs, minMs, samples }) => {
      const [middle, least] = [medianMs, minMs].map((ms) => `${ms.toFixed(1)} ms`);
      return `createKernels() to the first result, ${kernel}: median ${middle}, min ${least} (${samples} processes)`;
    })
    .join('\n');

if (process.argv[2] === '--child')
  console.log(await firstResult(process.argv[3] ? Number(process.argv[3]) : undefined));
