/** The benchmark of the kernels on a GPU: the same matrices as on the CPU, in bench.js. */
import { createGpuKernels } from '../js/gpu/index.js';
import { createKernels } from '../js/wasm/create.js';
import { benchTypes, breathe, makeMatrix, nCols, nRows, race, seed } from './bench.js';
import { randomActivations } from './reference.js';

/** A product that would take longer, by the speed with one token, is not measured. */
export const LONGEST_PRODUCT_MS = 10_000;

/** @typedef {import('./bench.js').Timing} Timing */

/**
 * A call's time is what one waits for it: the activations are sent to the GPU, and the result is read.
 * @param {{ many: number, gpu: import('../js/gpu/index.js').GpuOptions }} args  many: tokens of the larger products
 * @param {import('./lab-serve.js').Context} context
 */
export async function benchmarkGpu({ many, gpu: options }, { signal, onEvent }) {
  const fm = await createKernels({ threads: 1 });
  /** @type {import('../js/gpu/index.js').GpuKernels | undefined} */
  let kernels;
  try {
    const gpu = await createGpuKernels(options);
    kernels = gpu;
    /** @type {{ type: string, nTokens: number, timing: Timing }[]} */
    const rows = [];
    for (const type of benchTypes) {
      const data = makeMatrix(fm, type);
      for (const nTokens of [1, many]) {
        const flops = 2 * nTokens * nRows * nCols;
        const last = rows.at(-1);
        if (nTokens > 1 && last && flops / last.timing.gflops / 1e6 > LONGEST_PRODUCT_MS) continue;
        const label = `${type}, ${nTokens === 1 ? '1 token' : `${nTokens} tokens`}, GPU`;
        onEvent({ done: rows.length, total: 2 * benchTypes.length, label });
        await breathe(signal);
        const w = await gpu.weight({ type, nRows, nCols, data });
        const x = randomActivations(nTokens * nCols, seed + 1);
        const out = new Float32Array(nTokens * nRows);
        const run = () => gpu.fusedMatmul(w, x, { out });
        const { timing } = await race({ timing: run }, flops, signal);
        rows.push({ type, nTokens, timing });
        w.free();
      }
    }
    const { adapter, software, features, variants } = gpu.info;
    return { name: adapter.name, software, features, variants, rows };
  } finally {
    kernels?.dispose();
    fm.dispose();
  }
}
