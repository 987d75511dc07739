/**
 * `npm run bench -- --startup`: from createKernels() to the first result, each time in a process of its own, file cache warm.
 * Run with --child it is that process.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createKernels } from '../../js/index.js';
import { median } from './lab.js';

/** One 256 x 256 Q4_K product by kernels that did not exist before. @returns {Promise<number>} milliseconds */
async function firstResult() {
  const data = new Uint8Array(256 * 144).fill(0x21);
  const x = new Float32Array(256).fill(0.5);
  const start = performance.now();
  const fm = await createKernels();
  const w = fm.weight({ type: 'Q4_K', nRows: 256, nCols: 256, data });
  fm.fusedMatmul(w, x);
  const ms = performance.now() - start;
  fm.dispose();
  return ms;
}

/** @param {number} processes @returns {string} Markdown */
export function startup(processes) {
  const times = Array.from({ length: processes }, () => {
    const args = [fileURLToPath(import.meta.url), '--child'];
    return Number(spawnSync(process.execPath, args, { encoding: 'utf8' }).stdout);
  }).sort((a, b) => a - b);
  const show = (/** @type {number} */ ms) => `${ms.toFixed(1)} ms`;
  return [
    `createKernels() to the first result, ${processes} processes of ${process.version}:`,
    `median ${show(median(times))}, min ${show(times[0])}, max ${show(times[times.length - 1])}`,
  ].join(' ');
}

if (process.argv[2] === '--child') console.log(await firstResult());
