/* fused-matmul/llama: runs GGUF models of the llama family with the operations of
 * fused-matmul/layer. */

import { ARCHITECTURES } from './architectures/names.js';

export * from '../index.js';
export { BusyError, ContextError, ModelError, NumericError, SavedContextError } from './errors.js';
export { Llama } from './model.js';
export { PRE_TOKENIZERS as preTokenizers } from './tokenizer/pre-tokenizer-names.js';
export { createWorkerLlama } from './worker.js';

/** Architectures that the runner supports, by `general.architecture`. */
export const architectures = ARCHITECTURES;

// Types that users may want to name.
/** @typedef {import('./info.js').AdapterInfo} AdapterInfo */
/** @typedef {import('./load-options.js').AdapterOption} AdapterOption */
/** @typedef {import('./plan.js').Architecture} Architecture */
/** @typedef {import('./info.js').BackendChoice} BackendChoice */
/** @typedef {import('./info.js').BackendLayers} BackendLayers */
/** @typedef {import('./load-options.js').BackendOption} BackendOption */
/** @typedef {import('./load-options.js').BackendPart} BackendPart */
/** @typedef {import('./options.js').CallOptions} CallOptions */
/** @typedef {import('./chat.js').ChatFormat} ChatFormat */
/** @typedef {import('./chat/overflow.js').ChatLimits} ChatLimits */
/** @typedef {import('./llama-context.js').ContextOptions} ContextOptions */
/** @typedef {import('./embedding.js').EmbedOptions} EmbedOptions */
/** Older name of Kernels. @typedef {import('../wasm/kernels.js').Kernels} FusedKernels */
/** @typedef {import('./options.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./generation.js').Generation} Generation */
/** @typedef {import('./generation.js').GenerationStats} GenerationStats */
/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */
/** @typedef {import('./llama-context.js').LlamaContext} LlamaContext */
/** @typedef {import('./load-options.js').LlamaOptions} LlamaOptions */
/** @typedef {import('./chat/messages.js').CallingMessage} CallingMessage */
/** @typedef {import('./hooked-sampler.js').LogitsHook} LogitsHook */
/** @typedef {import('./chat/messages.js').Message} Message */
/** @typedef {import('./chat/messages.js').SpokenMessage} SpokenMessage */
/** @typedef {import('./chat/messages.js').TextPart} TextPart */
/** @typedef {import('./chat/messages.js').ToolCall} ToolCall */
/** @typedef {import('./chat/messages.js').ToolFunction} ToolFunction */
/** @typedef {import('./options.js').JsonObjectFormat} JsonObjectFormat */
/** @typedef {import('./options.js').JsonSchemaFormat} JsonSchemaFormat */
/** @typedef {import('./info.js').ModelInfo} ModelInfo */
/** @typedef {import('./info.js').ModelMemory} ModelMemory */
/** @typedef {import('./errors.js').NumericPart} NumericPart */
/** @typedef {import('./embedding.js').Pooling} Pooling */
/** @typedef {import('./options.js').PromptProgress} PromptProgress */
/** @typedef {import('./ranking.js').RankOptions} RankOptions */
/** @typedef {import('./options.js').ResponseFormat} ResponseFormat */
/** @typedef {import('./llama-context.js').RestoreOptions} RestoreOptions */
/** @typedef {import('./info.js').RopeInfo} RopeInfo */
/** @typedef {import('./hooked-sampler.js').TokenChance} TokenChance */
/** @typedef {import('./hooked-sampler.js').TokenLogprob} TokenLogprob */
/** @typedef {import('./info.js').TokenizerInfo} TokenizerInfo */
/** @typedef {import('./tokenizer/pre-tokenizers.js').PreTokenizer} PreTokenizer */
/** @typedef {import('./tokenizer/tokenizer.js').EncodeOptions} EncodeOptions */
/** @typedef {import('./info.js').TypeUse} TypeUse */
/** @typedef {import('../worker/llama-generation.js').WorkerGeneration} WorkerGeneration */
/** @typedef {import('./worker.js').WorkerLlama} WorkerLlama */
/** @typedef {import('../worker/llama-context.js').WorkerLlamaContext} WorkerLlamaContext */
/** @typedef {import('./worker.js').WorkerLlamaOptions} WorkerLlamaOptions */
