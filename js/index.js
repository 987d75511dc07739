/* fused-matmul: multiplies f32 activations by GGUF-quantised weights, in WebAssembly. */

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
export { GgufFile } from './gguf/file.js';
export { clearCachedGgufs, deleteCachedGguf, listCachedGgufs, openGguf } from './gguf/index.js';
export { types } from './types.js';
export { createKernels } from './wasm/create.js';
export { Tensor, Weight } from './wasm/handles.js';
export { Kernels } from './wasm/kernels.js';
export { VERSION as version } from './wasm/loader.js';
export { createWorkerKernels } from './worker/index.js';

// Types that users may want to name.
/** @typedef {import('./wasm/selftest.js').Activation} Activation */
/** @typedef {import('./gguf/cache.js').CachedGguf} CachedGguf */
/** @typedef {import('./gguf/cache.js').CacheState} CacheState */
/** @typedef {import('./worker/types.js').CallOptions} CallOptions */
/**
 * @template {Float32Array | import('./wasm/handles.js').Tensor
 *   | import('./wasm/handles.js').Weight} U
 * @typedef {import('./wasm/kernel-types.js').DequantizeOptions<U>} DequantizeOptions
 */
/** @typedef {import('./wasm/selftest.js').Dot} Dot */
/** @typedef {import('./wasm/loader.js').Features} Features */
/** @typedef {import('./types.js').GgmlType} GgmlType */
/** @typedef {import('./gguf/file.js').GgufFilePart} GgufFilePart */
/** @typedef {import('./gguf/source.js').GgufPart} GgufPart */
/** @typedef {import('./gguf/source.js').GgufSource} GgufSource */
/** @typedef {import('./gguf/file.js').GgufTensor} GgufTensor */
/** @typedef {import('./wasm/handles.js').Handle} Handle */
/** @typedef {import('./wasm/selftest.js').Isa} Isa */
/** @typedef {import('./wasm/kernel-types.js').KernelsInfo} KernelsInfo */
/** @typedef {import('./wasm/kernel-types.js').KernelsOptions} KernelsOptions */
/** @typedef {import('./wasm/legacy.js').LegacyQ4Weight} LegacyQ4Weight */
/** @typedef {import('./wasm/kernel-types.js').LoadOptions} LoadOptions */
/** @typedef {import('./wasm/memory.js').MemoryStats} MemoryStats */
/** @typedef {import('./gguf/file.js').MetadataScalar} MetadataScalar */
/** @typedef {import('./gguf/file.js').MetadataValue} MetadataValue */
/** @typedef {import('./wasm/loader.js').ModuleName} ModuleName */
/** @typedef {import('./wasm/loader.js').ModuleTable} ModuleTable */
/** @typedef {import('./gguf/index.js').OpenOptions} OpenOptions */
/** @typedef {import('./wasm/kernel-types.js').ServedType} ServedType */
/** @typedef {import('./wasm/kernel-types.js').Service} Service */
/** @typedef {import('./wasm/loader.js').Step} Step */
/** @typedef {import('./wasm/loader.js').Timings} Timings */
/** @typedef {import('./wasm/module.js').WasmSource} WasmSource */
/** @typedef {import('./wasm/kernel-types.js').WeightData} WeightData */
/** @typedef {import('./worker/handles.js').WorkerHandle} WorkerHandle */
/** @typedef {import('./worker/types.js').WorkerKernels} WorkerKernels */
/** @typedef {import('./worker/types.js').WorkerKernelsOptions} WorkerKernelsOptions */
/** @typedef {import('./worker/types.js').WorkerMethods} WorkerMethods */
/** @typedef {import('./worker/handles.js').WorkerKvCache} WorkerKvCache */
/** @typedef {import('./worker/port.js').WorkerSource} WorkerSource */
/** @typedef {import('./worker/handles.js').WorkerTensor} WorkerTensor */
/** @typedef {import('./worker/handles.js').WorkerWeight} WorkerWeight */
