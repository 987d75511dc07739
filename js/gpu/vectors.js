/* The vectors of a block (norms, biases) in one buffer: kernels have few bindings. */

import { InBuffer } from './handles.js';
import { up16 } from './shader.js';

/** @typedef {import('./commands.js').Commands} Commands */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */

/** Rows of f32 numbers in GPU memory, one most often, each padded with zeros. */
export class GpuVector extends InBuffer {
  /**
   * @param {GpuBuffer} buffer
   * @param {number} nCols
   * @param {Float32Array} [values] what is in it, where the processor needs it
   * @param {number} [nRows]
   */
  constructor(buffer, nCols, values, nRows = 1) {
    super(buffer);
    this.nRows = nRows;
    this.nCols = nCols;
    this.values = values;
  }
}

/**
 * Copies vectors behind one another; those without a buffer are zeros.
 * @template {string} K
 * @param {GpuDevice} gpu
 * @param {Commands} commands
 * @param {Record<K, { buffer?: GpuBuffer, nCols: number } | undefined>} vectors
 * @param {readonly number[]} numbers  that follow them
 * @returns {{ buffer: GpuBuffer, at: Record<K, number>, numbersAt: number }}  at: where each
 *   begins, in values
 */
export function joinVectors(gpu, commands, vectors, numbers) {
  /** @type {Record<string, number>} */
  const at = {};
  let length = 0;
  const given = /** @type {[string, { buffer?: GpuBuffer, nCols: number }][]} */ (
    Object.entries(vectors).filter(([, one]) => one)
  );
  for (const [name, { nCols }] of given) {
    at[name] = length;
    length += up16(nCols);
  }
  const buffer = gpu.buffer(4 * up16(length + numbers.length), { label: 'vectors' });
  commands.write(buffer, 4 * length, Float32Array.from(numbers));
  for (const [name, { buffer: from, nCols }] of given)
    if (from) commands.copy({ buffer: from, offset: 0, bytes: 4 * up16(nCols) }, buffer, 4 * at[name]);
  return { buffer, at: /** @type {Record<K, number>} */ (at), numbersAt: length };
}
