/* fused-matmul/llama: a runner of llama-architecture GGUF files, on nothing but the operations of fused-matmul/layer. */

export { createKernels } from '../fused.js';
export * from '../index.js';
export { ARCHITECTURES as architectures } from './architectures.js';
export { BusyError, ContextError, ModelError } from './errors.js';
export { Llama } from './llama.js';
export { PRE_TOKENIZERS as preTokenizers } from './pre-tokenizers.js';
