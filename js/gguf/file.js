/* The class GgufFile: metadata and tensors of an open file. */

import { HandleError } from '../errors.js';

/**
 * @typedef {object} GgufTensor
 * @property {string} name  Name, as the file has it.
 * @property {string} type  Weight type, e.g. 'Q4_K'.
 * @property {number} typeId  Number of the type in GGUF.
 * @property {readonly number[]} shape  Sizes in GGUF's order: shape[0] is the length of a row.
 * @property {number} nRows  Rows: the product of shape[1], shape[2] and so on.
 * @property {number} nCols  Columns: shape[0].
 * @property {number} offset  Place of the first byte in the file. In a split model the parts count
 *   as one file, one after the other.
 * @property {number} [part]  Index of its part in the `parts` of the file, if the model is split.
 * @property {number} byteLength  Bytes of its blocks.
 * @property {boolean} supported  Whether the kernels take it as a weight.
 */

/** @typedef {string | number | bigint | boolean} MetadataScalar */
/** @typedef {MetadataScalar | MetadataValue[]} MetadataValue */

/**
 * A part of a split model, or the one file of a model that is not split.
 * @typedef {object} GgufFilePart
 * @property {string} name  Address, path or file name.
 * @property {number} offset  Place of its first byte in the bytes of all parts, one after the
 *   other.
 * @property {number} byteLength  Size in bytes.
 * @property {number} nTensors  Number of tensors in it.
 */

/**
 * @typedef {object} Header
 * @property {number} version
 * @property {number} alignment
 * @property {Record<string, MetadataValue>} metadata
 * @property {Map<string, GgufTensor>} tensors
 */

/**
 * The bytes of an open file, for other modules of the library.
 * @type {(gguf: GgufFile) => import('./bytes.js').ByteSource}
 */
let sourceOf;

export { sourceOf };

/**
 * Functions of `open.js`, which is loaded with the first file.
 * @typedef {object} Tools
 * @property {(gguf: GgufFile, source: string, name: string) => import('../errors.js').GgufError}
 *   noTensor  Makes the error for a name that no tensor has.
 * @property {(tensor: GgufTensor, source: import('./bytes.js').ByteSource,
 *   options: { signal?: AbortSignal }) => Promise<Uint8Array<ArrayBuffer>>} read
 * @property {(tensor: GgufTensor, source: import('./bytes.js').ByteSource,
 *   options: { signal?: AbortSignal }) => AsyncIterable<Uint8Array>} stream
 * @property {readonly GgufFilePart[]} parts
 */

/** A GGUF file with its header read and checked. Tensors are read when they are asked for. */
export class GgufFile {
  #source;
  #tools;
  #closed = false;

  static {
    sourceOf = (gguf) => gguf.#open();
  }

  /**
   * @hideconstructor
   * @param {import('./bytes.js').ByteSource} source
   * @param {Header} header
   * @param {Tools} tools
   */
  constructor(source, { version, alignment, metadata, tensors }, tools) {
    this.#source = source;
    this.#tools = tools;
    /** Version of the format: 2 or 3. */
    this.version = version;
    /** Alignment of tensors in the file, in bytes. */
    this.alignment = alignment;
    /**
     * Key-value pairs. 64-bit integers are numbers where a number holds them exactly, otherwise
     * BigInts.
     */
    this.metadata = metadata;
    /** Tensors by name, of all parts if the model is split. */
    this.tensors = tensors;
    /** Parts of a split model, in order; a model that is not split has one. */
    this.parts = tools.parts;
  }

  /** Size in bytes, of all parts together. */
  get byteLength() {
    return this.#source.size;
  }

  /**
   * State of the cache, if the file was opened with one.
   * @returns {import('./cache.js').CacheState | undefined}
   */
  get cached() {
    return this.#source.cached?.();
  }

  /**
   * Finds a tensor by its name.
   * @param {string} name
   * @returns {GgufTensor}
   * @throws {import('../errors.js').GgufError} the file has no tensor of that name
   */
  tensor(name) {
    const tensor = this.tensors.get(name);
    if (tensor) return tensor;
    throw this.#tools.noTensor(this, this.#source.name, String(name));
  }

  /**
   * Reads the bytes of a tensor, as the file holds them.
   * @param {string} name
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Uint8Array<ArrayBuffer>>} a copy
   */
  async read(name, options = {}) {
    return this.#tools.read(this.tensor(name), this.#open(), options);
  }

  /**
   * Reads the bytes of a tensor in chunks. Do not write to a chunk: it may be a view of the data
   * given to openGguf.
   * @param {string} name
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {AsyncIterable<Uint8Array>}
   */
  stream(name, options = {}) {
    return this.#tools.stream(this.tensor(name), this.#open(), options);
  }

  /** Closes the file: reading from it fails from now on. */
  close() {
    this.#closed = true;
  }

  #open() {
    if (this.#closed) throw new HandleError(`${this.#source.name} is closed`, 'disposed');
    return this.#source;
  }
}
