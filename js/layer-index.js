/* fused-matmul/layer: all of fused-matmul, and kernels that know the other operations of a transformer layer too. */

export { createKernels, FusedKernels as Kernels } from './fused.js';
export * from './index.js';
export { KvCache } from './kv-cache.js';

// The types that users may want to name.
/** @template {import('./operands.js').Floats} U @typedef {import('./fused.js').FfnOptions<U>} FfnOptions */
/** @typedef {import('./fused.js').FfnWeights} FfnWeights */
/** @template {import('./operands.js').Floats} U @typedef {import('./fused.js').FlashOptions<U>} FlashOptions */
/** @typedef {import('./operands.js').Floats} Floats */
/** @typedef {import('./layer.js').Gate} Gate */
/** @template {import('./operands.js').Floats} U @typedef {import('./fused.js').GatedOptions<U>} GatedOptions */
/** @typedef {import('./kv-cache.js').KvCacheShape} KvCacheShape */
/** @typedef {import('./kv-cache.js').KvType} KvType */
/** @template {import('./operands.js').Floats} U @typedef {import('./fused.js').ManyOptions<U>} ManyOptions */
/** @typedef {import('./layer.js').RopeOptions} RopeOptions */
