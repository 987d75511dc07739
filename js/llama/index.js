/* fused-matmul/llama: a runner of llama-architecture GGUF files, on nothing but the operations of fused-matmul/layer. */

export { createKernels } from '../fused.js';
export * from '../index.js';
export { ARCHITECTURES as architectures } from './architectures.js';
export { BusyError, ContextError, ModelError } from './errors.js';
export { Llama } from './llama.js';
export { PRE_TOKENIZERS as preTokenizers } from './pre-tokenizers.js';

// The types that users may want to name.
/** @typedef {import('./architectures.js').Architecture} Architecture */
/** @typedef {import('./chat.js').ChatFormat} ChatFormat */
/** @typedef {import('../fused.js').FusedKernels} FusedKernels */
/** @typedef {import('./options.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./generation.js').Generation} Generation */
/** @typedef {import('./generation.js').GenerationStats} GenerationStats */
/** @typedef {import('../kv-cache.js').KvType} KvType */
/** @typedef {import('./llama.js').LlamaOptions} LlamaOptions */
/** @typedef {import('./chat.js').Message} Message */
/** @typedef {import('./info.js').ModelInfo} ModelInfo */
/** @typedef {import('./info.js').ModelMemory} ModelMemory */
/** @typedef {import('./info.js').RopeInfo} RopeInfo */
/** @typedef {import('./info.js').TokenizerInfo} TokenizerInfo */
/** @typedef {import('./pre-tokenizers.js').PreTokenizer} PreTokenizer */
/** @typedef {import('./tokenizer.js').EncodeOptions} EncodeOptions */
/** @typedef {import('./info.js').TypeUse} TypeUse */
