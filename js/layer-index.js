/* fused-matmul/layer: everything in fused-matmul, plus KvCache and the types that the operations of
 * a transformer layer use. */

export * from './index.js';
export { KvCache } from './wasm/kv-cache.js';

// Types that users may want to name.
/** @typedef {import('./wasm/kernel-types.js').DeltaGates} DeltaGates */
/**
 * @template {import('./wasm/operands.js').Floats} U
 * @typedef {import('./wasm/kernel-types.js').DeltaOptions<U>} DeltaOptions
 */
/**
 * @template {import('./wasm/operands.js').Floats} U
 * @typedef {import('./wasm/kernel-types.js').ConvOptions<U>} ConvOptions
 */
/**
 * @template {import('./wasm/operands.js').Floats} U
 * @typedef {import('./wasm/kernel-types.js').ExpertsOptions<U>} ExpertsOptions
 */
/**
 * @template {import('./wasm/operands.js').Floats} U
 * @typedef {import('./wasm/kernel-types.js').FfnOptions<U>} FfnOptions
 */
/** @typedef {import('./wasm/kernel-types.js').FfnWeights} FfnWeights */
/**
 * @template {import('./wasm/operands.js').Floats} U
 * @typedef {import('./wasm/kernel-types.js').FlashOptions<U>} FlashOptions
 */
/** @typedef {import('./wasm/operands.js').Floats} Floats */
/** @typedef {import('./wasm/kernel-types.js').Gate} Gate */
/**
 * @template {import('./wasm/operands.js').Floats} U
 * @typedef {import('./wasm/kernel-types.js').GatedOptions<U>} GatedOptions
 */
/** @typedef {import('./wasm/kv-cache.js').KvCacheShape} KvCacheShape */
/** @typedef {import('./wasm/kv-cache.js').KvType} KvType */
/**
 * @template {import('./wasm/operands.js').Floats} U
 * @typedef {import('./wasm/kernel-types.js').ManyOptions<U>} ManyOptions
 */
/** @typedef {import('./wasm/kernel-types.js').RopeOptions} RopeOptions */
/** @typedef {import('./wasm/kernel-types.js').RouteOptions} RouteOptions */
/** @typedef {import('./wasm/kernel-types.js').Routing} Routing */
/** @typedef {import('./wasm/kernel-types.js').ScanSteps} ScanSteps */
