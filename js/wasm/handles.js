/* What lives in wasm memory and is freed by hand: weights and tensors. Made by Kernels only. */

import { ArgumentError, HandleError, ShapeError, show } from '../errors.js';

/** @typedef {import('./memory.js').Memory} Memory */
/** @typedef {import('./memory.js').Account} Account */

/** Symbol.dispose, also where the engine does not have it yet. @type {typeof Symbol.dispose} */
export const dispose = Symbol.dispose ?? Symbol.for('Symbol.dispose');

/** What weights, tensors and KV caches have in common: a place in wasm memory, to be given back by hand. */
export class Handle {
  #memory;
  #ptr;
  /** @type {Account} */
  #account;

  /**
   * @hideconstructor
   * @param {Memory} memory
   * @param {Account} account
   * @param {{ ptr: number, nRows: number, nCols: number, byteLength: number }} extent
   */
  constructor(memory, account, { ptr, nRows, nCols, byteLength }) {
    this.#memory = memory;
    this.#account = account;
    this.#ptr = ptr;
    /** Rows. */
    this.nRows = nRows;
    /** Values of a row. */
    this.nCols = nCols;
    /** Bytes it takes. */
    this.byteLength = byteLength;
  }

  /** Kind and shape, for messages. @returns {string} */
  toString() {
    return `tensor ${this.nRows}x${this.nCols}`;
  }

  /** True after free(), and once the kernels that own it are disposed. */
  get freed() {
    return this.#ptr === 0 || this.#memory.disposed;
  }

  /** Offset into the linear memory of its owner. */
  get ptr() {
    return this.ptrIn(this.#memory);
  }

  /**
   * @internal The pointer, after checking that this handle is alive and belongs to that memory.
   * @param {Memory} memory
   * @returns {number}
   * @throws {HandleError}
   */
  ptrIn(memory) {
    if (this.#memory !== memory) throw new HandleError(`${this} belongs to other kernels`, 'foreign');
    if (memory.disposed) throw new HandleError(`${this}: its kernels are disposed`, 'disposed');
    if (this.#ptr === 0) throw new HandleError(`${this} is freed`, 'freed');
    return this.#ptr;
  }

  /**
   * Gives the memory back. The handle cannot be used any more.
   * @throws {HandleError} when it is freed already
   */
  free() {
    const ptr = this.ptrIn(this.#memory);
    this.#ptr = 0;
    this.#memory.free(ptr, this.byteLength, this.#account);
  }

  /** For `using`: frees unless that is done already. */
  [dispose]() {
    if (!this.freed) this.free();
  }

  /** @internal The memory's floats, for subclasses; stale after growth. */
  get heap() {
    this.ptrIn(this.#memory);
    return this.#memory.f32;
  }

  /** @internal @returns {Memory} its owner, for subclasses */
  get memory() {
    return this.#memory;
  }
}

/** W [nRows][nCols] in GGUF blocks, byte for byte as a file holds them. */
export class Weight extends Handle {
  /**
   * @hideconstructor
   * @param {Memory} memory
   * @param {{ ptr: number, nRows: number, nCols: number, byteLength: number }} extent
   * @param {import('../types.js').GgmlType} type
   * @param {string} name
   */
  constructor(memory, extent, type, name) {
    super(memory, 'weights', extent);
    /** Its type, as GGUF numbers it. */
    this.typeId = type.id;
    /** Its type, as GGUF spells it. */
    this.type = type.name;
    /** Of the tensor in its file, or what it was called when it was made. */
    this.name = name;
  }

  toString() {
    return `weight ${this.name ? `${show(this.name)} ` : ''}(${this.type} ${this.nRows}x${this.nCols})`;
  }
}

/** [nRows][nCols] f32 in wasm memory, so that chains of operations copy nothing. */
export class Tensor extends Handle {
  /**
   * @hideconstructor
   * @param {Memory} memory
   * @param {{ ptr: number, nRows: number, nCols: number, byteLength: number }} extent
   */
  constructor(memory, extent) {
    super(memory, 'tensors', extent);
    /** Values in all. */
    this.length = this.nRows * this.nCols;
  }

  /**
   * Copies values in, from `offset` (in values) on.
   * @param {Float32Array} values
   * @param {number} [offset]
   */
  set(values, offset = 0) {
    if (!(values instanceof Float32Array)) {
      throw new ArgumentError(`${this}: values must be a Float32Array, got ${show(values)}`);
    }
    if (!Number.isInteger(offset) || offset < 0 || offset + values.length > this.length) {
      throw new ShapeError(
        `${this}: ${values.length} values from ${offset} on do not fit into ${this.length}`,
        { got: offset + values.length, expected: this.length },
      );
    }
    this.heap.set(values, this.ptr / 4 + offset);
  }

  /** @returns {Float32Array} a copy */
  toArray() {
    const start = this.ptr / 4;
    return this.heap.slice(start, start + this.length);
  }
}
