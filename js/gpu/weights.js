/* Weights in GPU memory. A tensor that is larger than a binding may be is split by rows into
 * several buffers. */

import { show } from '../errors.js';
import { servedType } from '../types.js';
import { GpuError } from './errors.js';
import { GpuWeight } from './weight.js';
import { blockBytes, loadTypes, rowBlocks, tailAt, WGSL_TYPES } from './wgsl/types.js';

/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */

/**
 * What is needed of a tensor.
 * @typedef {{ type: string, nRows: number, nCols: number, name?: string }} TensorShape
 */

/**
 * Rows of a weight in a buffer of their own.
 * @typedef {object} Part
 * @property {GpuBuffer} buffer
 * @property {number} firstRow  of the weight
 * @property {number} nRows
 * @property {number} nBlocks
 */

/**
 * Rows of a weight in one buffer, as a shader takes them.
 * @typedef {object} WeightUnit
 * @property {import('./wgsl/types.js').Unit} unit
 * @property {GpuBuffer} buffer
 * @property {number} firstRow  its first row, counted from that of the weight or view
 */

/**
 * Splits a tensor by rows, so that each part fits one binding.
 * @param {TensorShape} tensor
 * @param {number} bindingBytes
 * @returns {{ firstRow: number, nRows: number, nBlocks: number }[]}
 * @throws {GpuError} a single row is too large
 */
export function splitRows({ type, nRows, nCols, name = '' }, bindingBytes) {
  const perRow = rowBlocks({ type, nCols });
  const rowBytes = perRow * blockBytes(type);
  // Buffers are whole words.
  const most = Math.floor((bindingBytes - (bindingBytes % 4)) / rowBytes);
  if (most === 0) {
    throw new GpuError(
      `tensor ${show(name)}: a row of ${rowBytes} bytes; kernels on this GPU see ${bindingBytes} at a time`,
      'limit',
      { asked: rowBytes, limit: bindingBytes },
    );
  }
  return Array.from({ length: Math.ceil(nRows / most) }, (_, i) => {
    const n = Math.min(most, nRows - i * most);
    return { firstRow: i * most, nRows: n, nBlocks: n * perRow };
  });
}

/**
 * The data that follow the blocks of a type in memory.
 * @param {string} type
 * @returns {Promise<Uint16Array | Float32Array | undefined>}
 */
async function tailOf(type) {
  const { codebook, hasFactor } = WGSL_TYPES[type];
  // Until a file says otherwise.
  if (hasFactor) return Float32Array.of(1);
  if (!codebook) return undefined;
  const { codebookOf } = await import('./codebooks.js');
  return codebookOf(codebook);
}

/**
 * Allocates memory for weights: all of them or none. Every buffer is written once, since some
 * drivers promise memory that they do not have.
 * @param {GpuDevice} gpu
 * @param {readonly TensorShape[]} tensors
 * @returns {Promise<GpuWeight[]>}  in the order of tensors, zeros
 * @throws {GpuError} there is not enough memory
 */
export async function allocateWeights(gpu, tensors) {
  const types = new Set(tensors.map(({ type }) => servedType(type).name));
  await loadTypes(types);
  /** @type {Map<string, Awaited<ReturnType<typeof tailOf>>>} */
  const tails = new Map();
  for (const type of types) tails.set(type, await tailOf(type));
  const plans = tensors.map((tensor) => {
    const { type } = tensor;
    const tail = tails.get(type);
    const more = tail?.byteLength ?? 0;
    const parts = splitRows(tensor, gpu.limits.bindingBytes - more).map((part) => {
      const at = tailAt({ type, nBlocks: part.nBlocks });
      return { ...part, tail, tailAt: at, bytes: at + more };
    });
    return { tensor, parts };
  });
  const total = plans.reduce((sum, { parts }) => parts.reduce((of, { bytes }) => of + bytes, sum), 0);
  /** @type {GpuWeight[]} */
  const made = [];
  /** @type {GpuBuffer[]} */
  const buffers = [];
  /** The last bytes of each buffer. @type {{ buffer: GpuBuffer, at: number, bytes: ArrayBufferView }[]} */
  const ends = [];
  const free = () => {
    for (const buffer of buffers) buffer.free();
  };
  const make = () => {
    for (const { tensor, parts } of plans) {
      const owned = parts.map(({ bytes, tail, tailAt: at, ...part }) => {
        const buffer = gpu.buffer(bytes, { label: tensor.name ?? tensor.type });
        buffers.push(buffer);
        ends.push(
          tail ? { buffer, at, bytes: tail } : { buffer, at: buffer.bytes - 4, bytes: new Uint8Array(4) },
        );
        return Object.freeze({ buffer, ...part });
      });
      made.push(new GpuWeight(gpu, tensor, Object.freeze(owned)));
    }
    // The first write to a buffer makes the browser clear all of it.
    for (const { buffer, at, bytes } of ends) gpu.write(buffer, at, bytes);
  };
  try {
    await gpu.reserve(make, () => {}, total);
    await gpu.arrives(gpu.device.queue.onSubmittedWorkDone());
    gpu.check();
  } catch (error) {
    free();
    throw error;
  }
  return made;
}
