/* fused-matmul/layer: all of fused-matmul, and kernels that know the other operations of a transformer layer too. */

export { createKernels, FusedKernels as Kernels } from './fused.js';
export * from './index.js';
export { KvCache } from './kv-cache.js';
