/* Weights, tensors and KV caches that live in a worker: here are their shapes, and the right to use them. */

import { HandleError } from '../errors.js';

/** @typedef {import('./methods.js').StepName} StepName */
/** @typedef {import('./types.js').CallOptions} CallOptions */
/** @template T @typedef {import('./types.js').In<T>} In */

/**
 * What a handle needs of the kernels that own it.
 * @typedef {object} Owner
 * @property {() => void} check  throws when the worker is gone
 * @property {() => boolean} isGone
 * @property {(handle: WorkerHandle, method: StepName, args: unknown[]) => any} call
 * @property {(handle: WorkerHandle, id: number) => void} free
 */

/** Symbol.dispose, also where the engine does not have it yet. @type {typeof Symbol.dispose} */
const dispose = Symbol.dispose ?? Symbol.for('Symbol.dispose');

/** @type {(handle: WorkerHandle, owner: Owner) => number} */
let idIn;

export { idIn };

/** What weights, tensors and KV caches in a worker have in common. */
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
    /** Rows. @type {number} */
    this.nRows = fields.nRows;
    /** Values of a row. @type {number} */
    this.nCols = fields.nCols;
    /** Bytes it takes. @type {number} */
    this.byteLength = fields.byteLength;
  }

  /** Kind and shape, for messages. @returns {string} */
  toString() {
    return this.#text;
  }

  /** True after free(), and once the kernels that own it are disposed or their worker ended. */
  get freed() {
    return this.#id === 0 || this.#owner.isGone();
  }

  /**
   * Gives the memory back, after all calls made so far. The handle cannot be used any more.
   * @throws {HandleError} when it is freed already
   */
  free() {
    const id = this.#check();
    this.#owner.free(this, id);
    this.#id = 0;
  }

  /** For `using`: frees unless that is done already. */
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

/** W [nRows][nCols] in GGUF blocks, in the worker's memory. */
export class WorkerWeight extends WorkerHandle {
  /**
   * @hideconstructor
   * @param {Owner} owner
   * @param {any} facts
   */
  constructor(owner, facts) {
    super(owner, facts);
    /** Its type, as GGUF numbers it. @type {number} */
    this.typeId = facts.fields.typeId;
    /** Its type, as GGUF spells it. @type {string} */
    this.type = facts.fields.type;
    /** Of the tensor in its file, or what it was called when it was made. @type {string} */
    this.name = facts.fields.name;
  }

  /**
   * As Weight.rows: some of its rows as a weight of their own, without a copy.
   * @param {number} start  first row
   * @param {number} nRows  how many
   * @param {CallOptions} [options]
   * @returns {Promise<WorkerWeight>}
   */
  rows(start, nRows, options) {
    return this.call('rows', [start, nRows, options]);
  }
}

/** [nRows][nCols] f32, in the worker's memory. */
export class WorkerTensor extends WorkerHandle {
  /**
   * @hideconstructor
   * @param {Owner} owner
   * @param {any} facts
   */
  constructor(owner, facts) {
    super(owner, facts);
    /** Values in all. @type {number} */
    this.length = facts.fields.length;
  }

  /**
   * Copies values in, from `offset` (in values) on.
   * @param {In<Float32Array>} values
   * @param {number} [offset]
   * @param {CallOptions} [options]
   * @returns {Promise<void>}
   */
  set(values, offset, options) {
    return this.call('set', [values, offset, options]);
  }

  /**
   * Its values.
   * @param {CallOptions} [options]
   * @returns {Promise<Float32Array<ArrayBuffer>>} a copy
   */
  toArray(options) {
    return this.call('toArray', [options]);
  }
}

/** [nPositions][nKvHeads][headSize] of one type, in the worker's memory. */
export class WorkerKvCache extends WorkerHandle {
  /**
   * @hideconstructor
   * @param {Owner} owner
   * @param {any} facts
   */
  constructor(owner, facts) {
    super(owner, facts);
    const { type, typeId, nPositions, nKvHeads, headSize } = facts.fields;
    /** What keys or values are stored as. @type {import('../wasm/kv-cache.js').KvType} */
    this.type = type;
    /** The same, as GGUF numbers it. @type {number} */
    this.typeId = typeId;
    /** Positions it has room for. @type {number} */
    this.nPositions = nPositions;
    /** Heads of a position. @type {number} */
    this.nKvHeads = nKvHeads;
    /** Values of a head. @type {number} */
    this.headSize = headSize;
  }

  /**
   * Converts and stores what belongs to the positions from `position` on.
   * @param {In<Float32Array | import('../wasm/handles.js').Tensor>} x  nTokens * nKvHeads * headSize values
   * @param {number} position
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
