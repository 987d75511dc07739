/* fused-matmul/layer: all of fused-matmul, and kernels that know the other operations of a transformer layer too. */

export * from './index.js';
export { createKernels, FusedKernels as Kernels } from './wasm/fused.js';
export { KvCache } from './wasm/kv-cache.js';

// The types that users may want to name.
/** @template {import('./wasm/operands.js').Floats} U @typedef {import('./wasm/fused.js').FfnOptions<U>} FfnOptions */
/** @typedef {import('./wasm/fused.js').FfnWeights} FfnWeights */
/** @template {import('./wasm/operands.js').Floats} U @typedef {import('./wasm/fused.js').FlashOptions<U>} FlashOptions */
/** @typedef {import('./wasm/operands.js').Floats} Floats */
/** @typedef {import('./wasm/layer.js').Gate} Gate */
/** @template {import('./wasm/operands.js').Floats} U @typedef {import('./wasm/fused.js').GatedOptions<U>} GatedOptions */
/** @typedef {import('./wasm/kv-cache.js').KvCacheShape} KvCacheShape */
/** @typedef {import('./wasm/kv-cache.js').KvType} KvType */
/** @template {import('./wasm/operands.js').Floats} U @typedef {import('./wasm/fused.js').ManyOptions<U>} ManyOptions */
/** @typedef {import('./wasm/layer.js').RopeOptions} RopeOptions */
