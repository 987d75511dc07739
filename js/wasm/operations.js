/* The operations behind the methods of Kernels, under the same names. */

export { flashAttention, fusedAttentionScore } from './attention.js';
export { causalConv } from './causal-conv.js';
export { deltaNet } from './delta-net.js';
export { fusedMatmulExperts, mixRows, route } from './experts.js';
export { kvCache } from './kv-cache.js';
export {
  add,
  addScaled,
  embed,
  gated,
  layerNorm,
  multiply,
  rmsNorm,
  rope,
  scale,
  softmax,
} from './layer.js';
export { fusedDequantMatmulQ4KLegacy } from './legacy.js';
export { tensor, weight } from './make.js';
export {
  dequantize,
  fusedFfn,
  fusedMatmul,
  fusedMatmulMany,
  fusedRmsNormMatmul,
  fusedSwigluMatmul,
} from './products.js';
export { quantize } from './quantize.js';
export { ssmScan } from './ssm-scan.js';
