/* Weights in GPU memory, as users hold them. */

import { dispose } from '../dispose.js';
import { HandleError, ShapeError, show } from '../errors.js';
import { rowBlocks } from './wgsl/types.js';

/** A weight in GPU memory: W [nRows][nCols], in blocks as the GGUF file has them. */
export class GpuWeight {
  #gpu;
  #parts;
  /** What it shows rows of. @type {GpuWeight | undefined} */
  #of;
  /** Its first row in that. */
  #start;
  #freed = false;

  /**
   * @hideconstructor
   * @param {import('./device.js').GpuDevice} gpu
   * @param {{ type: string, nRows: number, nCols: number, name?: string }} shape
   * @param {readonly import('./weights.js').Part[]} parts
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
    this.#parts = parts;
  }

  /** @internal All buffers of the weight, also where this one shows some of its rows. */
  get parts() {
    return this.#parts;
  }

  /** @internal Whether it is on this device. @param {import('./device.js').GpuDevice} gpu */
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
   * @internal
   * @throws {HandleError} it is freed
   * @throws {import('./errors.js').GpuError} the device has ended
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
   * @internal Weights whose rows follow one another, with fewer views of the same weight: those whose
   * rows do so there are one.
   * @param {readonly GpuWeight[]} weights
   */
  static joined(weights) {
    /** @type {GpuWeight[]} */
    const all = [];
    for (const weight of weights) {
      const last = all.at(-1);
      const of = weight.#of;
      if (of && last && last.#of === of && last.#start + last.nRows === weight.#start)
        all[all.length - 1] = of.rows(last.#start - of.#start, last.nRows + weight.nRows);
      else all.push(weight);
    }
    return all;
  }

  /**
   * @internal What shaders bind: its rows, by the buffers that they lie in.
   * @returns {import('./weights.js').WeightUnit[]}
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
