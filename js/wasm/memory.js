/* The linear memory of a module instance: allocation with accounts, views that follow its growth,
 * staging buffers. */

import { HandleError, MemoryError } from '../errors.js';

/**
 * Staging buffers grow in steps of this many bytes, so that slowly growing calls do not reallocate
 * each time.
 */
const STAGING_STEP = 65536;

/**
 * The memory of a module and its functions, which take plain numbers as addresses. Only modules
 * with threads have the functions of threads.
 * @typedef {import('./abi.js').Calls & import('./abi.js').ThreadCalls &
 *   { memory: WebAssembly.Memory }} WasmExports
 */

/** @typedef {'weights' | 'tensors' | 'scratch'} Account */

/**
 * @typedef {object} MemoryStats
 * @property {number} bytes  Size of the wasm memory.
 * @property {number} weights  Bytes of weights.
 * @property {number} tensors  Bytes of tensors and KV caches.
 * @property {number} scratch  Bytes of the staging buffers, which are reused between calls.
 * @property {number} inUse  Sum of weights, tensors and scratch.
 * @property {number} peak  The largest inUse so far.
 * @property {number} handles  Number of weights, tensors and KV caches that are not freed.
 */

export class Memory {
  /** @type {WasmExports | undefined} */
  #exports;
  #u8 = new Uint8Array(0);
  #f32 = new Float32Array(0);
  #held = { weights: 0, tensors: 0, scratch: 0 };
  #peak = 0;
  #handles = 0;
  #limit;

  /** @param {Pick<import('./module.js').Instance, 'exports' | 'limit' | 'is64'>} instance */
  constructor({ exports, limit, is64 }) {
    this.#exports = exports;
    this.#limit = limit;
    /** Whether addresses have 64 bits. */
    this.is64 = is64;
  }

  get disposed() {
    return this.#exports === undefined;
  }

  /** @throws {HandleError} after dispose */
  get exports() {
    if (this.#exports === undefined) throw new HandleError('these kernels are disposed', 'disposed');
    return this.#exports;
  }

  /**
   * The whole memory as bytes. Growth detaches this view: get it again after anything that may
   * allocate.
   */
  get u8() {
    const { buffer } = this.exports.memory;
    if (this.#u8.buffer !== buffer) this.#u8 = new Uint8Array(buffer);
    return this.#u8;
  }

  /** The whole memory as floats; see u8. */
  get f32() {
    const { buffer } = this.exports.memory;
    if (this.#f32.buffer !== buffer) this.#f32 = new Float32Array(buffer);
    return this.#f32;
  }

  /**
   * @param {number} bytes  at least 1
   * @param {Account} account
   * @returns {number} a pointer, never 0
   * @throws {MemoryError}
   */
  alloc(bytes, account) {
    const { fm_alloc } = this.exports;
    const limit = this.#limit;
    const ptr = bytes <= limit - STAGING_STEP ? fm_alloc(bytes) : 0;
    const { inUse } = this;
    if (ptr === 0) {
      throw new MemoryError(
        `no room for ${bytes} bytes: ${inUse} are in use, the linear memory has ` +
          `${this.exports.memory.buffer.byteLength} and can never have more than ${limit}`,
        { asked: bytes, inUse, limit },
      );
    }
    this.#held[account] += bytes;
    if (account !== 'scratch') this.#handles += 1;
    this.#peak = Math.max(this.#peak, inUse + bytes);
    return ptr;
  }

  /**
   * Frees memory of alloc; does nothing after dispose.
   * @param {number} ptr
   * @param {number} bytes  the size given to alloc
   * @param {Account} account
   */
  free(ptr, bytes, account) {
    if (this.#exports === undefined) return;
    this.#exports.fm_free(ptr);
    this.#held[account] -= bytes;
    if (account !== 'scratch') this.#handles -= 1;
  }

  get inUse() {
    return this.#held.weights + this.#held.tensors + this.#held.scratch;
  }

  /** @returns {MemoryStats} */
  stats() {
    return {
      bytes: this.exports.memory.buffer.byteLength,
      ...this.#held,
      inUse: this.inUse,
      peak: this.#peak,
      handles: this.#handles,
    };
  }

  /** Releases the instance. Its memory is freed when nothing else refers to it. */
  dispose() {
    this.#exports = undefined;
    this.#u8 = new Uint8Array(0);
    this.#f32 = new Float32Array(0);
  }
}

/** A buffer in wasm memory that is kept between calls and only ever grows. */
export class Staging {
  #memory;
  #ptr = 0;
  #bytes = 0;
  #view = new Float32Array(0);

  /** @param {Memory} memory */
  constructor(memory) {
    this.#memory = memory;
  }

  /**
   * A pointer to at least nFloats floats, whose values are undefined. May grow the memory.
   * @param {number} nFloats
   */
  reserve(nFloats) {
    const bytes = nFloats * 4;
    if (bytes > this.#bytes) {
      const asked = Math.ceil(bytes / STAGING_STEP) * STAGING_STEP;
      this.release();
      this.#ptr = this.#memory.alloc(asked, 'scratch');
      this.#bytes = asked;
    }
    return this.#ptr;
  }

  /**
   * A view of the first nFloats floats. Growth of the memory detaches it. Unless memory or length
   * change, each call returns the same view.
   * @param {number} nFloats
   */
  view(nFloats) {
    const { f32 } = this.#memory;
    const view = this.#view;
    if (view.buffer !== f32.buffer || view.length !== nFloats || view.byteOffset !== this.#ptr) {
      this.#view = f32.subarray(this.#ptr / 4, this.#ptr / 4 + nFloats);
    }
    return this.#view;
  }

  release() {
    if (this.#ptr !== 0) this.#memory.free(this.#ptr, this.#bytes, 'scratch');
    this.#ptr = 0;
    this.#bytes = 0;
  }
}
