/* Weights and tensors in wasm memory, freed explicitly. Only Kernels makes them. */

import { ArgumentError, HandleError, ShapeError, show } from '../errors.js';
import { findType } from '../types.js';

/** @typedef {import('./memory.js').Memory} Memory */
/** @typedef {import('./memory.js').Account} Account */

/** Symbol.dispose, also for engines that lack it. @type {typeof Symbol.dispose} */
export const dispose = Symbol.dispose ?? Symbol.for('Symbol.dispose');

/**
 * The place of a handle: memory of its own, or a part of another handle's memory.
 * @typedef {{ ptr: number } | { of: Handle, offset: number }} Place
 */

/** @typedef {Place & { nRows: number, nCols: number, byteLength: number }} Extent */

/**
 * The address of a handle; throws if it is freed or belongs to another memory.
 * @type {(handle: Handle, memory: Memory) => number}
 */
let addressIn;
/** The memory that contains a handle. @type {(handle: Handle) => Memory} */
let memoryOfHandle;

export { addressIn };

/**
 * Base class of weights, tensors and KV caches: a place in wasm memory that is freed explicitly.
 */
export class Handle {
  #memory;
  #ptr;
  /** The handle that this one is a part of. @type {Handle | undefined} */
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
    /** Number of rows. */
    this.nRows = nRows;
    /** Values in a row. */
    this.nCols = nCols;
    /** Size in bytes. */
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
   * Frees the memory. The handle cannot be used afterwards.
   * @throws {HandleError} it is freed already, or it is a view of another handle
   */
  free() {
    if (this.#of) throw new HandleError(`${this} is a view: free the one it shows`, 'view');
    const ptr = addressIn(this, this.#memory);
    this.#ptr = 0;
    this.#memory.free(ptr, this.byteLength, this.#account);
  }

  /** Frees the handle at the end of a `using` block, unless it is freed already or a view. */
  [dispose]() {
    if (!this.#of && !this.freed) this.free();
  }
}

/** A weight W [nRows][nCols] in GGUF blocks, byte for byte as a file holds them. */
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
    /** Weight type as a number of GGUF. */
    this.typeId = type.id;
    /** Weight type as GGUF spells it. */
    this.type = type.name;
    /** Name of the tensor in its file, or the name given when the weight was made. */
    this.name = name;
  }

  /**
   * Makes a weight of some of the rows, without a copy. It is a view: it owns no memory, and cannot
   * be used once this weight is freed.
   * @param {number} start  first row
   * @param {number} nRows  number of rows
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

/**
 * A tensor [nRows][nCols] of f32 values in wasm memory. With tensors, chains of operations copy
 * nothing.
 */
export class Tensor extends Handle {
  /**
   * @hideconstructor
   * @param {Memory} memory
   * @param {Extent} extent
   */
  constructor(memory, extent) {
    super(memory, 'tensors', extent);
    /** Number of values. */
    this.length = this.nRows * this.nCols;
  }

  /**
   * Copies values into the tensor.
   * @param {Float32Array} values
   * @param {number} [offset]  place of the first value, in values
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

  /** Reads the values of the tensor. @returns {Float32Array} a copy */
  toArray() {
    return floatsOf(this).slice();
  }
}

/**
 * A view of the values of a tensor in wasm memory. Growth of the memory detaches it.
 * @param {Tensor} tensor
 */
export function floatsOf(tensor) {
  const memory = memoryOfHandle(tensor);
  const start = addressIn(tensor, memory) / 4;
  return memory.f32.subarray(start, start + tensor.length);
}

/**
 * Makes a view of a part of a tensor, with a shape of its own.
 * @param {Tensor} of
 * @param {number} offset  in bytes
 * @param {number} nRows
 * @param {number} nCols
 */
export function partOf(of, offset, nRows, nCols) {
  return new Tensor(memoryOfHandle(of), { of, offset, nRows, nCols, byteLength: 4 * nRows * nCols });
}

/**
 * Makes a tensor with memory of its own; its values are undefined.
 * @param {Memory} memory
 * @param {number} nRows
 * @param {number} nCols
 */
export function newTensor(memory, nRows, nCols) {
  const byteLength = 4 * nRows * nCols;
  return new Tensor(memory, { ptr: memory.alloc(byteLength, 'tensors'), nRows, nCols, byteLength });
}
