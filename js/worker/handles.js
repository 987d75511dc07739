/* Handles to weights, tensors and KV caches in a worker. The handle has the shape; the values are
 * in the worker. */

import { HandleError } from '../errors.js';

/** @typedef {import('./methods.js').StepName} StepName */
/** @typedef {import('./types.js').CallOptions} CallOptions */
/** @template T @typedef {import('./types.js').In<T>} In */

/**
 * The kernels that own a handle.
 * @typedef {object} Owner
 * @property {() => void} check  Throws if the worker is gone.
 * @property {() => boolean} isGone
 * @property {(handle: WorkerHandle, method: StepName, args: unknown[]) => any} call
 * @property {(handle: WorkerHandle, id: number) => void} free
 */

/** Symbol.dispose, also for engines that lack it. @type {typeof Symbol.dispose} */
const dispose = Symbol.dispose ?? Symbol.for('Symbol.dispose');

/** @type {(handle: WorkerHandle, owner: Owner) => number} */
let idIn;

export { idIn };

/** Base class of the handles to objects in a worker. */
export class WorkerHandle {
  #owner;
  #id;
  #text;

  static {
    idIn = (handle, owner) => {
      if (handle.#owner !== owner) throw new HandleError(`${handle} belongs to other kernels`, 'foreign');
      return handle.#check();
    };
  }

  /**
   * @hideconstructor
   * @param {Owner} owner
   * @param {{ id: number, text: string, fields: any }} facts
   */
  constructor(owner, { id, text, fields }) {
    this.#owner = owner;
    this.#id = id;
    this.#text = text;
    /** Number of rows. @type {number} */
    this.nRows = fields.nRows;
    /** Values in a row. @type {number} */
    this.nCols = fields.nCols;
    /** Size in bytes. @type {number} */
    this.byteLength = fields.byteLength;
  }

  /** Kind and shape, for messages. @returns {string} */
  toString() {
    return this.#text;
  }

  /** True after free(), and once the kernels are disposed or the worker has ended. */
  get freed() {
    return this.#id === 0 || this.#owner.isGone();
  }

  /**
   * Frees the memory, after all calls made before. The handle cannot be used afterwards.
   * @throws {HandleError} it is freed already
   */
  free() {
    const id = this.#check();
    this.#owner.free(this, id);
    this.#id = 0;
  }

  /** Frees the handle at the end of a `using` block, unless it is freed already. */
  [dispose]() {
    if (!this.freed) this.free();
  }

  /**
   * @param {StepName} method
   * @param {unknown[]} args
   * @protected
   */
  call(method, args) {
    return this.#owner.call(this, method, args);
  }

  #check() {
    this.#owner.check();
    if (this.#id === 0) throw new HandleError(`${this} is freed`, 'freed');
    return this.#id;
  }
}

/** A weight W [nRows][nCols] in GGUF blocks, in the worker's memory. */
export class WorkerWeight extends WorkerHandle {
  /**
   * @hideconstructor
   * @param {Owner} owner
   * @param {any} facts
   */
  constructor(owner, facts) {
    super(owner, facts);
    /** Weight type as a number of GGUF. @type {number} */
    this.typeId = facts.fields.typeId;
    /** Weight type as GGUF spells it. @type {string} */
    this.type = facts.fields.type;
    /**
     * Name of the tensor in its file, or the name given when the weight was made.
     * @type {string}
     */
    this.name = facts.fields.name;
  }

  /**
   * Makes a weight of some of the rows, without a copy, like Weight.rows.
   * @param {number} start  first row
   * @param {number} nRows  number of rows
   * @param {CallOptions} [options]
   * @returns {Promise<WorkerWeight>}
   */
  rows(start, nRows, options) {
    return this.call('rows', [start, nRows, options]);
  }
}

/** A tensor [nRows][nCols] of f32 values, in the worker's memory. */
export class WorkerTensor extends WorkerHandle {
  /**
   * @hideconstructor
   * @param {Owner} owner
   * @param {any} facts
   */
  constructor(owner, facts) {
    super(owner, facts);
    /** Number of values. @type {number} */
    this.length = facts.fields.length;
  }

  /**
   * Copies values into the tensor.
   * @param {In<Float32Array>} values
   * @param {number} [offset]  place of the first value, in values
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  set(values, offset, options) {
    return this.call('set', [values, offset, options]);
  }

  /**
   * Reads the values of the tensor.
   * @param {CallOptions} [options]
   * @returns {Promise<Float32Array<ArrayBuffer>>} a copy
   */
  toArray(options) {
    return this.call('toArray', [options]);
  }
}

/** A KV cache [nPositions][nKvHeads][headSize] of keys or values, in the worker's memory. */
export class WorkerKvCache extends WorkerHandle {
  /**
   * @hideconstructor
   * @param {Owner} owner
   * @param {any} facts
   */
  constructor(owner, facts) {
    super(owner, facts);
    const { type, typeId, nPositions, nKvHeads, headSize } = facts.fields;
    /** Type that keys or values are stored in. @type {import('../wasm/kv-cache.js').KvType} */
    this.type = type;
    /** The same type as a number of GGUF. @type {number} */
    this.typeId = typeId;
    /** Number of positions. @type {number} */
    this.nPositions = nPositions;
    /** Heads of a position. @type {number} */
    this.nKvHeads = nKvHeads;
    /** Values of a head. @type {number} */
    this.headSize = headSize;
  }

  /**
   * Converts and stores the keys or values of consecutive positions.
   * @param {In<Float32Array | import('../wasm/handles.js').Tensor>} x  nTokens * nKvHeads *
   *   headSize values
   * @param {number} position  position of the first token
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  write(x, position, options) {
    return this.call('write', [x, position, options]);
  }
}

export const HANDLE_CLASSES = Object.freeze({
  weight: WorkerWeight,
  tensor: WorkerTensor,
  kvCache: WorkerKvCache,
});
