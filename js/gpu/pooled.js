/* Products of rows that the processor has: what follows the pooling of hidden states. */

import { FEW, formOf, LARGEST_BATCH, productWork } from './products.js';

/** @typedef {import('./products.js').Form} Form */
/** @typedef {import('./vectors.js').GpuVector} GpuVector */
/** @typedef {import('./weight.js').GpuWeight} GpuWeight */

/**
 * @typedef {object} Tools
 * @property {import('./backend.js').GpuBackend} backend
 * @property {import('./device.js').GpuDevice} gpu
 * @property {import('./recorder.js').Recorder} recorder
 * @property {import('./products.js').Variants} variants
 */

/**
 * Rows times a matrix, with a bias added to each.
 * @param {Tools} tools
 * @param {Float32Array} x
 * @param {GpuWeight} matrix
 * @param {GpuVector} [bias]
 * @returns {Promise<Float32Array>}
 */
export async function multiplyRows(tools, x, matrix, bias) {
  const { backend, recorder } = tools;
  const { nRows, nCols } = matrix;
  const out = new Float32Array((x.length / nCols) * nRows);
  for (let start = 0; start * nCols < x.length; start += LARGEST_BATCH) {
    const values = x.subarray(start * nCols, (start + LARGEST_BATCH) * nCols);
    const nTokens = values.length / nCols;
    const form = formOf(nTokens);
    const { from, to, means } = memoryFor(tools, matrix, form);
    backend.write(from, 0, values);
    const ofBias = bias && { vectors: bias.buffer, biases: [0] };
    const product = { weights: [matrix], x: from.buffer, y: to.buffer, ...ofBias };
    const key = { owner: matrix, operands: [from, to], name: `multiply ${form}` };
    recorder.run(key, { position: 0, start: 0, nTokens, seen: 0 }, () => productWork(product, form, means));
    out.set(await backend.read(to, { start: 0, nRows: nTokens }), start * nRows);
  }
  return out;
}

/**
 * The memory of products with a matrix, made for the first of them.
 * @param {Tools} tools
 * @param {GpuWeight} matrix
 * @param {Form} form
 */
const memoryFor = ({ backend, gpu, recorder, variants }, matrix, form) =>
  recorder.remembered(matrix, `rows ${form}`, () => {
    const nRows = form === 'many' ? LARGEST_BATCH : FEW;
    const own = (/** @type {number} */ nCols) => {
      const tensor = backend.tensor({ nRows, nCols });
      recorder.own(tensor.buffer);
      return tensor;
    };
    const spare = (/** @type {string} */ label, /** @type {number} */ bytes) =>
      recorder.own(gpu.buffer(bytes, { label }));
    return { from: own(matrix.nCols), to: own(matrix.nRows), means: { variants, spare } };
  });
