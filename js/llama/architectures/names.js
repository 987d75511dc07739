/* Architectures that the runner supports, by general.architecture, with the names of models for
 * people. */

/** @type {Readonly<Record<string, Readonly<import('../plan.js').Architecture>>>} */
export const ARCHITECTURES = Object.freeze({
  llama: { models: 'Llama 1 to 3.x, Mistral, Mixtral, SmolLM, TinyLlama' },
  mistral3: { models: 'Ministral 3' },
  qwen2: { models: 'Qwen 2, Qwen 2.5' },
  qwen3: { models: 'Qwen 3' },
  qwen35: { models: 'Qwen 3.5' },
  gemma2: { models: 'Gemma 2' },
  gemma3: { models: 'Gemma 3 (text)' },
  gemma4: { models: 'Gemma 4 (text)' },
  phi3: { models: 'Phi 3, Phi 3.5, Phi 4' },
  granite: { models: 'Granite 3' },
  granitehybrid: { models: 'Granite 4 H' },
  lfm2: { models: 'LFM 2' },
  smollm3: { models: 'SmolLM 3' },
  glm4: { models: 'GLM 4, GLM Z1' },
  olmo2: { models: 'OLMo 2, OLMo 3' },
  exaone4: { models: 'EXAONE 4' },
  'falcon-h1': { models: 'Falcon H1' },
  arcee: { models: 'Arcee AFM' },
  'hunyuan-dense': { models: 'Hunyuan (dense)' },
  ernie4_5: { models: 'ERNIE 4.5 (dense)' },
  'gpt-oss': { models: 'gpt-oss' },
  qwen2moe: { models: 'Qwen 1.5 MoE, Qwen 2 MoE' },
  qwen3moe: { models: 'Qwen 3 MoE' },
  granitemoe: { models: 'Granite 3 MoE' },
  lfm2moe: { models: 'LFM 2 MoE' },
  olmoe: { models: 'OLMoE' },
  deepseek2: { models: 'DeepSeek V2, V3, Moonlight, Kimi K2, GigaChat 3' },
  bert: { models: 'BERT, BGE, GTE, E5, MiniLM, Arctic Embed' },
  'nomic-bert': { models: 'Nomic Embed 1, 1.5' },
  'modern-bert': { models: 'ModernBERT, Granite Embedding R2' },
  'gemma-embedding': { models: 'EmbeddingGemma' },
});

/**
 * Architectures that resemble supported ones, and why they are not.
 * @type {Readonly<Record<string, string>>}
 */
export const REFUSED = Object.freeze({
  'nomic-bert-moe': 'its feed-forward blocks are mixtures of experts',
  'jina-bert-v2': 'its attention knows positions by ALiBi',
});
