/* The names of pre-tokenizers in GGUF files (tokenizer.ggml.pre). Names of one row stand for the same
 * rule, which has the first of them as its name in pre-tokenizers.js. */

/** @satisfies {[rule: string, ...others: string[]][]} */
const ROWS = /** @type {const} */ ([
  ['default'],
  [
    ...['gpt-2', 'phi-2', 'mpt', 'olmo', 'jais', 'roberta-bpe', 'exaone4', 'trillion', 'granite-docling'],
    ...['gigachat', 'a.x-4.0', 'mellum', 'modern-bert', 'jina-v1-en', 'jina-es', 'jina-de', 'jina-v2-es'],
    ...['jina-v2-de', 'jina-v2-code'],
  ],
  ['smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b', 'mellum2'],
  [
    ...['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2'],
    'jina-v5-nano',
  ],
  ['smaug-bpe', 'dbrx', 'glm4', 'chatglm-bpe'],
  [
    ...['qwen2', 'deepseek-r1-qwen', 'stablelm2', 'megrez', 'kormo', 'f2llmv2', 'hunyuan', 'solar-open'],
    ...['grok-2', 'bailingmoe', 'bailingmoe2', 'llada-moe'],
  ],
  ['qwen35'],
  ['gpt-4o', 'llama4', 'kanana2', 'talkie', 'minimax-m2'],
  ['granite-embed-multi-97m'],
  ['tekken'],
  ['youtu'],
  ['tiny_aya', 'cohere2moe'],
  ['kimi-k2'],
  ['deepseek-coder'],
  ['deepseek-llm'],
  ['deepseek-v3', 'hunyuan-dense', 'joyai-llm', 'hy_v4'],
  ['spark2_5'],
  ['afmoe'],
  ['falcon'],
  ['bloom', 'poro-chat', 'gpt3-finnish'],
  ['viking'],
  ['chameleon'],
  ['superbpe'],
  ['seed-coder'],
  ['exaone-moe'],
  ['jais-2'],
  ['minicpm5'],
  ['ufakzeka'],
  ['laguna'],
  ['gemma4', 'granite-embed-multi-311m'],
  ['sarvam-moe'],
]);

/** @typedef {(typeof ROWS)[number][0]} Rule */

/** The rule of each name. @type {ReadonlyMap<string, Rule>} */
export const RULE_OF = new Map(ROWS.flatMap((names) => names.map((name) => [name, names[0]])));

/** Supported values of tokenizer.ggml.pre. */
export const PRE_TOKENIZERS = Object.freeze([...RULE_OF.keys()]);
