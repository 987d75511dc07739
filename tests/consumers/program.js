/** What every consumer app runs: a weight of the demo's model times some tokens, and what the library says about itself. */
import { createKernels, openGguf } from 'fused-matmul';

export const TENSOR = 'blk.0.ffn_gate.weight';

/**
 * @param {string | URL} model  where the GGUF file is
 * @param {object} [options]  of createKernels
 */
export async function program(model, options) {
  const gguf = await openGguf(model);
  const fm = await createKernels(options);
  const w = await fm.loadWeight(gguf, TENSOR);
  const x = Float32Array.from({ length: 3 * w.nCols }, (_, i) => Math.sin(i) * (1 + (i % 7)));
  const y = fm.fusedMatmul(w, x);
  const { isa, reason, version, wasmUrl } = fm.info;
  const result = { type: w.type, nRows: w.nRows, nCols: w.nCols, y: Array.from(y), isa, reason, version, wasmUrl };
  w.free();
  fm.dispose();
  return result;
}
