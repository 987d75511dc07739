/** A small weight of real blocks, and kernels that are disposed at the end of the test. */
import { createKernels } from '../../js/index.js';
import { testWeights } from '../../js/wasm/selftest.js';

export const data = testWeights('Q4_K', 9);
export const shape = { type: 'Q4_K', nRows: 9, nCols: 512 };

/** @param {import('node:test').TestContext} t */
export async function kernels(t) {
  const fm = await createKernels();
  t.after(() => fm.dispose());
  return fm;
}

/** @param {number} length */
export const ramp = (length) => Float32Array.from({ length }, (_, i) => ((i * 7) % 31) - 15);
