/* Weights in GPU memory. A tensor that is larger than a binding may be is split by rows into several
 * buffers. */

import { dispose } from '../dispose.js';
import { HandleError, ShapeError, show } from '../errors.js';
import { servedType } from '../types.js';
import { GpuError } from './errors.js';
import { blockBytes, rowBlocks } from './wgsl/types.js';

/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./wgsl/types.js').Unit} Unit */

/** Symbol.dispose, also where the engine does not have it yet. @type {typeof Symbol.dispose} */

/** What is needed of a tensor. @typedef {{ type: string, nRows: number, nCols: number, name?: string }} TensorShape */

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
 * @property {Unit} unit
 * @property {GpuBuffer} buffer
 * @property {number} firstRow  its first row, counted from that of the weight or view
 */

/** W [nRows][nCols] in GPU memory, in the layouts of wgsl/types.js. */
export class GpuWeight {
  #gpu;
  /** What it shows rows of. @type {GpuWeight | undefined} */
  #of;
  /** Its first row in that. */
  #start;
  #freed = false;

  /**
   * @hideconstructor
   * @param {GpuDevice} gpu
   * @param {TensorShape} shape
   * @param {readonly Part[]} parts
   * @param {{ of: GpuWeight, start: number }} [view]
   */
  constructor(gpu, { type, nRows, nCols, name = '' }, parts, view) {
    this.#gpu = gpu;
    this.#of = view?.of;
    this.#start = view?.start ?? 0;
    /** Its type, as GGUF spells it. */
    this.type = type;
    /** Rows. */
    this.nRows = nRows;
    /** Values of a row. */
    this.nCols = nCols;
    /** Of the tensor in its file, or what it was called when it was made. */
    this.name = name;
    /** All buffers of the weight, also where this one shows some of its rows. */
    this.parts = parts;
  }

  /** Whether it is on this device. @param {GpuDevice} gpu */
  isOn(gpu) {
    return this.#gpu === gpu;
  }

  /** Type and shape, for messages. @returns {string} */
  toString() {
    return `weight ${this.name ? `${show(this.name)} ` : ''}(${this.type} ${this.nRows}x${this.nCols})`;
  }

  /** True after free(), and once the device has ended. @returns {boolean} */
  get freed() {
    return this.#of ? this.#of.freed : this.#freed || this.#gpu.failure !== undefined;
  }

  /**
   * @throws {HandleError} it is freed
   * @throws {GpuError} the device has ended
   */
  check() {
    if ((this.#of ?? this).#freed) throw new HandleError(`${this} is freed`, 'freed');
    this.#gpu.check();
  }

  /**
   * Gives the memory back. The weight cannot be used any more.
   * @throws {HandleError} when it is freed already, or a part of another one
   */
  free() {
    if (this.#of) throw new HandleError(`${this} is a view: free the one it shows`, 'view');
    if (this.#freed) throw new HandleError(`${this} is freed`, 'freed');
    this.#freed = true;
    for (const { buffer } of this.parts) buffer.free();
  }

  /** For `using`: frees unless that is done already, or the memory is another one's. */
  [dispose]() {
    if (!this.#of && !this.#freed) this.free();
  }

  /**
   * Some of its rows as a weight of their own, without a copy. The view owns nothing and ends with
   * this weight.
   * @param {number} start  first row
   * @param {number} nRows  how many
   * @returns {GpuWeight}
   * @throws {ShapeError} the rows reach beyond this weight; the message has both numbers
   */
  rows(start, nRows) {
    this.check();
    const end = start + nRows;
    if (
      !(Number.isInteger(start) && start >= 0 && Number.isInteger(nRows) && nRows >= 1 && end <= this.nRows)
    ) {
      throw new ShapeError(
        `${this}: ${show(nRows)} row(s) from row ${show(start)} on end at ${show(end)} of ${this.nRows}`,
        { got: end, expected: this.nRows },
      );
    }
    const { type, nCols, name } = this;
    return new GpuWeight(this.#gpu, { type, nRows, nCols, name }, this.parts, {
      of: this.#of ?? this,
      start: this.#start + start,
    });
  }

  /**
   * What shaders bind: its rows, by the buffers that they lie in.
   * @returns {WeightUnit[]}
   */
  units() {
    this.check();
    const { type, nCols } = this;
    const [first, end] = [this.#start, this.#start + this.nRows];
    const perRow = rowBlocks(this);
    return this.parts
      .filter((part) => part.firstRow < end && part.firstRow + part.nRows > first)
      .map(({ buffer, firstRow, nRows, nBlocks }) => {
        const from = Math.max(first, firstRow);
        const to = Math.min(end, firstRow + nRows);
        const firstBlock = (from - firstRow) * perRow;
        return {
          unit: { type, nRows: to - from, nCols, nBlocks, firstBlock },
          buffer,
          firstRow: from - first,
        };
      });
  }
}

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
 * Allocates memory for weights: all of them or none. Every buffer is written once, since some
 * drivers promise memory that they do not have.
 * @param {GpuDevice} gpu
 * @param {readonly TensorShape[]} tensors
 * @returns {Promise<GpuWeight[]>}  in the order of tensors, zeros
 * @throws {GpuError} there is not enough memory
 */
export async function allocateWeights(gpu, tensors) {
  const plans = tensors.map((tensor) => {
    const { name: type } = servedType(tensor.type);
    const parts = splitRows(tensor, gpu.limits.bindingBytes);
    return { tensor, parts: parts.map((part) => ({ ...part, bytes: part.nBlocks * blockBytes(type) })) };
  });
  const total = plans.reduce((sum, { parts }) => parts.reduce((of, { bytes }) => of + bytes, sum), 0);
  /** @type {GpuWeight[]} */
  const made = [];
  /** @type {GpuBuffer[]} */
  const buffers = [];
  const free = () => {
    for (const buffer of buffers) buffer.free();
  };
  const make = () => {
    for (const { tensor, parts } of plans) {
      const owned = parts.map(({ bytes, ...part }) => {
        const buffer = gpu.buffer(bytes, { label: tensor.name ?? tensor.type });
        buffers.push(buffer);
        return Object.freeze({ buffer, ...part });
      });
      made.push(new GpuWeight(gpu, tensor, Object.freeze(owned)));
    }
    // The first write to a buffer makes the browser clear all of it.
    for (const buffer of buffers) gpu.write(buffer, buffer.bytes - 4, new Uint8Array(4));
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
