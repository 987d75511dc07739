/**
 * What kernels get on this Vulkan driver, and a weight that is larger than one of its bindings:
 * printed as JSON. A program for lavapipe.test.js.
 */
import assert from 'node:assert/strict';
import { createGpuKernels } from '../../js/gpu/index.js';
import { webGpu } from '../helpers/gpu.js';

const found = await webGpu();
if ('skip' in found) {
  console.log(JSON.stringify(found));
  process.exit(0);
}
const kernels = await createGpuKernels({ gpu: found.gpu, allowSoftware: true, selfTest: false });
const { info } = kernels;

const nCols = 4096;
const border = Math.floor(info.limits.bindingBytes / (4 * nCols));
const nRows = border + 300;
const rows = [0, border - 1, border, nRows - 1];
const data = new Float32Array(nRows * nCols);
for (const r of rows) for (let c = 0; c < nCols; c++) data[r * nCols + c] = ((r * 31 + c * 7) % 61) - 30;
const w = await kernels.weight({ type: 'F32', nRows, nCols, data });
const parts = w.parts.length;
const x = Float32Array.from({ length: nCols }, (_, c) => (c % 9) - 4);
const y = await kernels.fusedMatmul(w, x);
// Sums of integers below 2^24 are exact.
for (const r of rows) {
  const expected = x.reduce((sum, value, c) => sum + value * data[r * nCols + c], 0);
  assert.equal(y[r], expected, `row ${r}`);
}
assert.equal(y[1], 0);
const start = border - 1;
const across = await kernels.dequantize(w, { start, end: border + 1 });
assert.deepEqual(across, data.slice(start * nCols, (border + 1) * nCols));
kernels.dispose();
console.log(JSON.stringify({ ...info, nRows, parts }));
process.exit(0);
