/* Memory of a model on a GPU that the runner holds: tensors, caches, tokens. */

import { up16 } from './shader.js';
import { cacheLayout } from './wgsl/cache.js';

/** @typedef {import('../backend.js').Resource} Resource */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */

/** A handle of one buffer, freed with it. @implements {Resource} */
export class InBuffer {
  /** @param {GpuBuffer} buffer */
  constructor(buffer) {
    this.buffer = buffer;
  }

  get freed() {
    return this.buffer.freed;
  }

  free() {
    this.buffer.free();
  }
}

/** f32 values in GPU memory, rows of up16(nCols). */
export class GpuTensor extends InBuffer {
  /** @param {GpuDevice} gpu @param {{ nRows: number, nCols: number }} shape */
  constructor(gpu, { nRows, nCols }) {
    super(gpu.buffer(4 * nRows * up16(nCols), { label: 'tensor' }));
    this.nRows = nRows;
    this.nCols = nCols;
    /**
     * Where a row of logits comes from that nobody has looked at for NaN and infinity yet.
     * @type {{ hidden: import('./hidden.js').GpuHidden, position: number } | undefined}
     */
    this.unchecked = undefined;
  }
}

/** Keys and values of a layer. */
export class GpuCache extends InBuffer {
  /** The position after the last one that was written. */
  #end = 0;

  /** @param {GpuDevice} gpu @param {import('./wgsl/cache.js').CacheShape} shape */
  constructor(gpu, shape) {
    super(gpu.buffer(cacheLayout(shape).bytes, { label: 'keys and values' }));
    this.shape = shape;
  }

  /** The first position that is there. */
  get first() {
    const { nPositions, nRows = nPositions } = this.shape;
    return Math.max(0, this.#end - nRows);
  }

  /** Tokens are written. @param {number} position  of the first @param {number} nTokens */
  note(position, nTokens) {
    this.#end = Math.max(position === 0 ? 0 : this.#end, position + nTokens);
  }
}

/** Token ids by position, and what the processor knows of them. */
export class GpuTokens extends InBuffer {
  /** Choices that only the GPU knows, by position. @type {Map<number, number>} */
  #versions = new Map();
  #lastVersion = 0;

  /** @param {GpuDevice} gpu @param {number} length */
  constructor(gpu, length) {
    super(gpu.buffer(4 * length, { label: 'tokens' }));
    this.length = length;
    /** The tokens, where they are known. */
    this.ids = new Uint32Array(length);
  }

  /** The GPU chooses the token of a position. @param {number} position */
  forget(position) {
    this.#versions.set(position, ++this.#lastVersion);
  }

  /** @param {number} start @param {ArrayLike<number>} ids */
  set(start, ids) {
    this.ids.set(ids, start);
    for (let i = 0; i < ids.length; i++) this.#versions.delete(start + i);
  }

  /** Whether these tokens are there, and known. @param {number} start @param {ArrayLike<number>} ids */
  has(start, ids) {
    for (let i = 0; i < ids.length; i++)
      if (this.ids[start + i] !== ids[i] || this.#versions.has(start + i)) return false;
    return true;
  }

  /**
   * The smallest range that has all unknown tokens between two positions, with the choices in it.
   * @param {number} start
   * @param {number} end
   */
  unknown(start, end) {
    const versions = [...this.#versions].filter(([position]) => position >= start && position < end);
    if (versions.length === 0) return undefined;
    const positions = versions.map(([position]) => position);
    const first = Math.min(...positions);
    return { first, count: Math.max(...positions) + 1 - first, versions };
  }

  /**
   * Takes tokens over that were read. Meanwhile others may have been chosen or written.
   * @param {number} first
   * @param {Uint32Array} ids
   * @param {[number, number][]} versions  of unknown()
   */
  learn(first, ids, versions) {
    for (const [position, version] of versions) {
      if (this.#versions.get(position) !== version) continue;
      this.ids[position] = ids[position - first];
      this.#versions.delete(position);
    }
  }
}
