/* fused-matmul: f32 activations times GGUF-quantised weights, in WebAssembly. */

export {
  ArgumentError,
  FmError,
  GgufError,
  HandleError,
  IsaError,
  LoadError,
  MemoryError,
  ShapeError,
  WorkerError,
} from './errors.js';
export { clearCachedGgufs, deleteCachedGguf, listCachedGgufs, openGguf } from './gguf.js';
export { GgufFile } from './gguf-file.js';
export { Tensor, Weight } from './handles.js';
export { createKernels, Kernels } from './kernels.js';
export { VERSION as version } from './loader.js';
export { types } from './types.js';
export { createWorkerKernels } from './worker.js';

/** @typedef {import('./worker-types.js').WorkerKernels} WorkerKernels */
/** @typedef {import('./worker-handles.js').WorkerWeight} WorkerWeight */
/** @typedef {import('./worker-handles.js').WorkerTensor} WorkerTensor */
/** @typedef {import('./worker-handles.js').WorkerKvCache} WorkerKvCache */
