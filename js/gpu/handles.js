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
  }
}

/** Keys and values of a layer. */
export class GpuCache extends InBuffer {
  /** @param {GpuDevice} gpu @param {import('./wgsl/cache.js').CacheShape} shape */
  constructor(gpu, shape) {
    super(gpu.buffer(cacheLayout(shape).bytes, { label: 'keys and values' }));
    this.shape = shape;
  }
}

/** Token ids by position, and what the processor knows of them. */
export class GpuTokens extends InBuffer {
  /** @param {GpuDevice} gpu @param {number} length */
  constructor(gpu, length) {
    super(gpu.buffer(4 * length, { label: 'tokens' }));
    this.length = length;
    this.ids = new Uint32Array(length);
    /** Positions whose token only the GPU knows. @type {Set<number>} */
    this.unknown = new Set();
  }
}
