/** A small synthetic model whose greedy tokens are known, with changed texts for some tokens. */
import { Llama } from '../../js/llama/index.js';
import { makeModel } from './synthetic-llama.js';

/** @import { GenerateOptions } from '../../js/llama/model.js' */
/** @import { Pair } from './gguf-bytes.js' */

const N_VOCAB = 40;
const SEED = 3;
const PROMPT = [1, 17, 5, 30];

/** The text of a token in the unchanged model. @param {number} id */
export const letter = (id) => ['<unk>', '<s>', '</s>'][id] ?? String.fromCharCode(0x4e00 + id);

/**
 * Metadata of a vocabulary in which some tokens have a different text and type.
 * @param {Record<number, [text: string, type: number]>} changes  by id
 * @returns {Record<string, Pair>}
 */
export function renamed(changes) {
  const ids = Array.from({ length: N_VOCAB }, (_, id) => id);
  const items = ids.map((id) => changes[id]?.[0] ?? letter(id));
  const types = ids.map((id) => changes[id]?.[1] ?? [2, 3, 3][id] ?? 1);
  return {
    'tokenizer.ggml.tokens': ['tokenizer.ggml.tokens', 'array', { of: 'string', items }],
    'tokenizer.ggml.token_type': ['tokenizer.ggml.token_type', 'array', { of: 'i32', items: types }],
  };
}

/**
 * Twelve greedy tokens, or fewer if the generation ends earlier.
 * @param {Record<string, Pair>} pairs  metadata
 * @param {GenerateOptions} [options]
 */
export async function generate(pairs, options) {
  const { bytes } = makeModel({ pairs, seed: SEED });
  const model = await Llama.load(bytes.buffer, { activation: 'f32', kvType: 'F32', threads: 1 });
  try {
    const run = model.generate(PROMPT, { temperature: 0, maxTokens: 12, ...options });
    /** @type {string[]} */
    const pieces = [];
    for await (const piece of run) pieces.push(piece);
    return { text: pieces.join(''), pieces, tokens: run.tokens, finish: run.stats.finishReason };
  } finally {
    model.dispose();
  }
}
