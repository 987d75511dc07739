/* Memory of a model on a GPU that the runner holds: tensors, caches, tokens. */

import { up16 } from './shader.js';
import { cacheLayout } from './wgsl/cache.js';

/** @typedef {import('../backend.js').Resource} Resource */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */

/** f32 values in GPU memory, rows of up16(nCols). @implements {Resource} */
export class GpuTensor {
  /** @param {GpuDevice} gpu @param {{ nRows: number, nCols: number }} shape */
  constructor(gpu, { nRows, nCols }) {
    this.nRows = nRows;
    this.nCols = nCols;
    this.buffer = gpu.buffer(4 * nRows * up16(nCols), { label: 'tensor' });
  }

  get freed() {
    return this.buffer.freed;
  }

  free() {
    this.buffer.free();
  }
}

/** Keys and values of a layer. @implements {Resource} */
export class GpuCache {
  /** @param {GpuDevice} gpu @param {import('./wgsl/cache.js').CacheShape} shape */
  constructor(gpu, shape) {
    this.shape = shape;
    this.buffer = gpu.buffer(cacheLayout(shape).bytes, { label: 'keys and values' });
  }

  get freed() {
    return this.buffer.freed;
  }

  free() {
    this.buffer.free();
  }
}

/** Token ids by position, and what the processor knows of them. @implements {Resource} */
export class GpuTokens {
  /** @param {GpuDevice} gpu @param {number} length */
  constructor(gpu, length) {
    this.length = length;
    this.buffer = gpu.buffer(4 * length, { label: 'tokens' });
    this.ids = new Uint32Array(length);
    /** Positions whose token only the GPU knows. @type {Set<number>} */
    this.unknown = new Set();
  }

  get freed() {
    return this.buffer.freed;
  }

  free() {
    this.buffer.free();
  }
}
