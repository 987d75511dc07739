/* Weights and tensors: they live in wasm memory and are freed by hand. Only Kernels makes them. */

import { ArgumentError, HandleError, ShapeError, show } from '../errors.js';
import { findType } from '../types.js';

/** @typedef {import('./memory.js').Memory} Memory */
/** @typedef {import('./memory.js').Account} Account */

/** Symbol.dispose, also where the engine does not have it yet. @type {typeof Symbol.dispose} */
export const dispose = Symbol.dispose ?? Symbol.for('Symbol.dispose');

/**
 * The place of a handle: memory of its own, or a part of another handle's.
 * @typedef {{ ptr: number } | { of: Handle, offset: number }} Place
 */

/** @typedef {Place & { nRows: number, nCols: number, byteLength: number }} Extent */

/**
 * The address of a handle, after checking that it is alive and belongs to that memory.
 * @type {(handle: Handle, memory: Memory) => number}
 */
let addressIn;
/** The memory that a handle lies in. @type {(handle: Handle) => Memory} */
let memoryOfHandle;

export { addressIn };

/** The base of weights, tensors and KV caches: a place in wasm memory that is freed by hand. */
export class Handle {
  #memory;
  #ptr;
  /** What it is a part of. @type {Handle | undefined} */
  #of;
  #offset;
  /** @type {Account} */
  #account;

  static {
    addressIn = (handle, memory) => {
      if (handle.#memory !== memory) throw new HandleError(`${handle} belongs to other kernels`, 'foreign');
      if (memory.disposed) throw new HandleError(`${handle}: its kernels are disposed`, 'disposed');
      if (handle.#of) return addressIn(handle.#of, memory) + handle.#offset;
      if (handle.#ptr === 0) throw new HandleError(`${handle} is freed`, 'freed');
      return handle.#ptr;
    };
    memoryOfHandle = (handle) => handle.#memory;
  }

  /**
   * @hideconstructor
   * @param {Memory} memory
   * @param {Account} account
   * @param {Extent} extent
   */
  constructor(memory, account, { nRows, nCols, byteLength, ...place }) {
    this.#memory = memory;
    this.#account = account;
    this.#ptr = 'ptr' in place ? place.ptr : 0;
    this.#of = 'of' in place ? place.of : undefined;
    this.#offset = 'of' in place ? place.offset : 0;
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

  /** True after free(), and once the kernels that own it are disposed. @returns {boolean} */
  get freed() {
    return this.#of ? this.#of.freed : this.#ptr === 0 || this.#memory.disposed;
  }

  /**
   * Gives the memory back. The handle cannot be used any more.
   * @throws {HandleError} when it is freed already, or a part of another one
   */
  free() {
    if (this.#of) throw new HandleError(`${this} is a view: free the one it shows`, 'view');
    const ptr = addressIn(this, this.#memory);
    this.#ptr = 0;
    this.#memory.free(ptr, this.byteLength, this.#account);
  }

  /** For `using`: frees unless that is done already, or the memory is another one's. */
  [dispose]() {
    if (!this.#of && !this.freed) this.free();
  }
}

/** W [nRows][nCols] in GGUF blocks, byte for byte as a file holds them. */
export class Weight extends Handle {
  /**
   * @hideconstructor
   * @param {Memory} memory
   * @param {Extent} extent
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

  /**
   * Some of its rows as a weight of their own, without a copy. It owns nothing and ends with this one.
   * @param {number} start  first row
   * @param {number} nRows  how many
   * @returns {Weight}
   * @throws {ShapeError} the rows reach beyond this weight; the message has both numbers
   */
  rows(start, nRows) {
    addressIn(this, memoryOfHandle(this));
    const isCount = (/** @type {number} */ n, /** @type {number} */ least) =>
      Number.isInteger(n) && n >= least;
    const end = start + nRows;
    if (!(isCount(start, 0) && isCount(nRows, 1) && end <= this.nRows)) {
      throw new ShapeError(
        `${this}: ${show(nRows)} row(s) from row ${show(start)} on end at ${show(end)} of ${this.nRows}`,
        { got: end, expected: this.nRows },
      );
    }
    const rowBytes = this.byteLength / this.nRows;
    const place = { of: this, offset: start * rowBytes };
    const extent = { ...place, nRows, nCols: this.nCols, byteLength: nRows * rowBytes };
    const type = /** @type {import('../types.js').GgmlType} */ (findType(this.type));
    return new Weight(memoryOfHandle(this), extent, type, this.name);
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
   * @param {Extent} extent
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
    const memory = memoryOfHandle(this);
    const at = addressIn(this, memory) / 4 + offset;
    memory.f32.set(values, at);
  }

  /** @returns {Float32Array} a copy */
  toArray() {
    return floatsOf(this).slice();
  }
}

/**
 * The values of a tensor where they are. Growth of the memory detaches what this gives.
 * @param {Tensor} tensor
 */
export function floatsOf(tensor) {
  const memory = memoryOfHandle(tensor);
  const start = addressIn(tensor, memory) / 4;
  return memory.f32.subarray(start, start + tensor.length);
}

/**
 * A tensor that shows a part of another one, under a shape of its own.
 * @param {Tensor} of
 * @param {number} offset  bytes
 * @param {number} nRows
 * @param {number} nCols
 */
export function partOf(of, offset, nRows, nCols) {
  return new Tensor(memoryOfHandle(of), { of, offset, nRows, nCols, byteLength: 4 * nRows * nCols });
}

/**
 * A tensor with memory of its own, contents undefined.
 * @param {Memory} memory
 * @param {number} nRows
 * @param {number} nCols
 */
export function newTensor(memory, nRows, nCols) {
  const byteLength = 4 * nRows * nCols;
  return new Tensor(memory, { ptr: memory.alloc(byteLength, 'tensors'), nRows, nCols, byteLength });
}
