/* The linear memory of one module instance: allocation with accounts, views that outlive growth, staging
 * buffers. */

import { HandleError, MemoryError } from '../errors.js';

/** Staging buffers grow in these steps, so that slowly growing calls do not reallocate each time. */
const STAGING_STEP = 65536;

/**
 * The functions of src/fused.h as a module exports them, with the memory. Addresses are numbers from 0 on (wasm.js sees to it).
 * @typedef {object} WasmExports
 * @property {WebAssembly.Memory} memory
 * @property {(type: number, w: number, x: number, y: number, nTokens: number, nRows: number, nCols: number,
 *   activation: number) => number} fused_matmul
 * @property {(type: number, w: number, y: number, nRows: number, nCols: number) => number} fm_dequantize_rows
 * @property {(type: number, x: number, w: number, nRows: number, nCols: number) => number} fm_quantize_rows
 * @property {(w: number, scales: number, x: number, y: number, nTokens: number, nRows: number, nCols:
 *   number) =>
 *   number} fused_dequant_matmul_q4k_legacy
 * @property {(targets: number, nTargets: number, x: number, nTokens: number, nCols: number,
 *   activation: number) => number} fused_matmul_many
 * @property {(targets: number, nTargets: number, x: number, normWeight: number, eps: number,
 *   nTokens: number, nCols: number, activation: number) => number} fused_rmsnorm_matmul
 * @property {(type: number, w: number, gate: number, up: number, y: number, nTokens: number,
 *   nRows: number, nCols: number, act: number, activation: number) => number} fused_swiglu_matmul
 * @property {(weights: number, x: number, normWeight: number, eps: number, y: number,
 *   workspace: number, nTokens: number, nEmbd: number, nFf: number, act: number, residual: number,
 *   activation: number) => number} fused_ffn
 * @property {(q: number, k: number, scores: number, nQ: number, nK: number, headSize: number,
 *   scale: number, causal: number) => number} fused_attention_score
 * @property {(shape: number, q: number, k: number, v: number, out: number) => number} fm_flash_attention
 * @property {(type: number, cache: number, x: number, nTokens: number, nCols: number,
 *   position: number, nPositions: number) => number} fm_kv_write
 * @property {(x: number, weight: number, y: number, nRows: number, nCols: number, eps: number) =>
 *   number} fm_rms_norm
 * @property {(x: number, weight: number, bias: number, y: number, nRows: number, nCols: number,
 *   eps: number) => number} fm_layer_norm
 * @property {(x: number, y: number, nRows: number, nCols: number) => number} fm_softmax
 * @property {(x: number, nTokens: number, nHeads: number, headSize: number, nDims: number,
 *   firstPosition: number, base: number, linearScale: number, factors: number, pairing: number) =>
 *   number} fm_rope
 * @property {(type: number, table: number, ids: number, y: number, nTokens: number, nRows: number,
 *   nCols: number) => number} fm_embed
 * @property {(a: number, b: number, y: number, n: number) => number} fm_add
 * @property {(a: number, b: number, y: number, n: number, scale: number) => number} fm_add_scaled
 * @property {(x: number, y: number, n: number, scale: number) => number} fm_scale
 * @property {(gate: number, up: number, y: number, n: number, act: number) => number} fm_gated
 * @property {(type: number) => number} fm_type_block_values
 * @property {(type: number) => number} fm_type_block_bytes
 * @property {(type: number) => number} fm_type_alignment
 * @property {(bytes: number) => number} fm_alloc
 * @property {(ptr: number) => void} fm_free
 * @property {() => number} fm_version
 * @property {() => number} fm_isa
 * @property {(isa: number, dot: number) => number} fm_select
 * @property {(type: number, activation: number) => number} fm_served_by
 * @property {(thread: number) => number} fm_thread_stack  this and the next: of modules with threads only
 * @property {(nThreads: number, forkWork: number, maySleep: number) => number} fm_threads_use
 * @property {() => void} fm_threads_stop
 */

/** @typedef {'weights' | 'tensors' | 'scratch'} Account */

/**
 * @typedef {object} MemoryStats
 * @property {number} bytes  size of the linear memory
 * @property {number} weights  bytes held by weights
 * @property {number} tensors  bytes held by tensors and KV caches
 * @property {number} scratch  bytes of the staging buffers, reused between calls
 * @property {number} inUse  the sum of the three
 * @property {number} peak  the largest inUse so far
 * @property {number} handles  weights, tensors and KV caches not yet freed
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
    /** Bytes of an address. */
    this.addressBytes = is64 ? 8 : 4;
  }

  get disposed() {
    return this.#exports === undefined;
  }

  /** @throws {HandleError} after dispose */
  get exports() {
    if (this.#exports === undefined) throw new HandleError('these kernels are disposed', 'disposed');
    return this.#exports;
  }

  /** The whole memory as bytes. Growth detaches it: ask again after anything that may allocate. */
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
   * Gives back what alloc returned; nothing after dispose.
   * @param {number} ptr
   * @param {number} bytes  as given to alloc
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

  /** Lets go of the instance; its memory goes when nothing else refers to it. */
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
   * A pointer to at least nFloats floats, contents undefined. May grow the memory.
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
   * The first nFloats floats; the same view as long as neither memory nor length changes. Stale after growth.
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
