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

// The types that users may want to name.
/** @typedef {import('./selftest.js').Activation} Activation */
/** @typedef {import('./gguf-cache.js').CachedGguf} CachedGguf */
/** @typedef {import('./gguf-cache.js').CacheState} CacheState */
/** @typedef {import('./worker-types.js').CallOptions} CallOptions */
/** @template {Float32Array | import('./handles.js').Tensor | import('./handles.js').Weight} U @typedef {import('./kernels.js').DequantizeOptions<U>} DequantizeOptions */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./loader.js').Features} Features */
/** @typedef {import('./types.js').GgmlType} GgmlType */
/** @typedef {import('./source.js').GgufSource} GgufSource */
/** @typedef {import('./gguf-file.js').GgufTensor} GgufTensor */
/** @typedef {import('./handles.js').Handle} Handle */
/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./kernels.js').KernelsInfo} KernelsInfo */
/** @typedef {import('./kernels.js').KernelsOptions} KernelsOptions */
/** @typedef {import('./legacy.js').LegacyQ4Weight} LegacyQ4Weight */
/** @typedef {import('./kernels.js').LoadOptions} LoadOptions */
/** @typedef {import('./memory.js').MemoryStats} MemoryStats */
/** @typedef {import('./gguf-file.js').MetadataScalar} MetadataScalar */
/** @typedef {import('./gguf-file.js').MetadataValue} MetadataValue */
/** @typedef {import('./loader.js').ModuleName} ModuleName */
/** @typedef {import('./loader.js').ModuleTable} ModuleTable */
/** @typedef {import('./gguf.js').OpenOptions} OpenOptions */
/** @typedef {import('./kernels.js').ServedType} ServedType */
/** @typedef {import('./kernels.js').Service} Service */
/** @typedef {import('./loader.js').Step} Step */
/** @typedef {import('./loader.js').Timings} Timings */
/** @typedef {import('./wasm.js').WasmSource} WasmSource */
/** @typedef {import('./kernels.js').WeightData} WeightData */
/** @typedef {import('./worker-handles.js').WorkerHandle} WorkerHandle */
/** @typedef {import('./worker-types.js').WorkerKernels} WorkerKernels */
/** @typedef {import('./worker-types.js').WorkerKernelsOptions} WorkerKernelsOptions */
/** @typedef {import('./worker-types.js').WorkerMethods} WorkerMethods */
/** @typedef {import('./worker-handles.js').WorkerKvCache} WorkerKvCache */
/** @typedef {import('./worker-port.js').WorkerSource} WorkerSource */
/** @typedef {import('./worker-handles.js').WorkerTensor} WorkerTensor */
/** @typedef {import('./worker-handles.js').WorkerWeight} WorkerWeight */
