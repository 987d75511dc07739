/** The embedding models of the test data (`arch`), and what llama.cpp computes for them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { distance } from './llama.js';
import { dataPath, listData, skipWithout } from './test-data.js';

/** @import { Llama } from '../../js/llama/index.js' */

/**
 * @typedef {object} Reference
 * @property {string} architecture
 * @property {Record<string, number>} tensor_types
 * @property {number} n_embd_out
 * @property {{ text: string, tokens: number[], embedding_offset: number }[]} texts
 * @property {{ text: number, offset: number, n_pos: number, n_embd: number }} token_embeddings
 * @property {{ cos_min: number, max_abs: number, rms: number }} quantized_run
 */

/** Why there are no such models, or false. */
export const ABSENT = skipWithout('arch/models') || skipWithout('arch/logits');

/** @param {string} name */
function readModel(name) {
  /** @type {Reference} */
  const reference = JSON.parse(readFileSync(dataPath('arch/logits', `${name}.json`), 'utf8'));
  const bytes = readFileSync(dataPath('arch/logits', `${name}.embd.f32`));
  const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const vector = (/** @type {number} */ i) => {
    const { embedding_offset: at } = reference.texts[i];
    return all.subarray(at, at + reference.n_embd_out);
  };
  const { offset, n_pos: n, n_embd: size } = reference.token_embeddings;
  return { name, reference, vector, ofTokens: all.subarray(offset, offset + n * size) };
}
/** The models that are there. */
export const embeddingModels = () =>
  (ABSENT ? [] : listData('arch/models'))
    .map((file) => file.replace(/\.gguf$/, ''))
    .filter((name) => !skipWithout(`arch/logits/${name}.embd.f32`))
    .map(readModel);

/** @typedef {ReturnType<typeof readModel>} Model */

/**
 * Limits of the README. llama.cpp takes GELU from a table with 16-bit values.
 * @param {Model} model
 */
export const limitOf = ({ reference: { architecture } }) =>
  ['bert', 'gemma-embedding', 'modern-bert'].includes(architecture) ? 5e-3 : 2e-4;
const LARGEST_ANGLE = 1e-5;

/**
 * The distances of the vectors of all texts, one text at a time.
 * @param {Llama} llama @param {Model} model
 */
export async function distances(llama, { reference, vector }) {
  const found = [];
  for (const [i, { text }] of reference.texts.entries())
    found.push(distance(await llama.embed(text, { normalize: false }), vector(i)));
  return found;
}

/** @param {{ max: number }[]} found */
export const maxOf = (found) => Math.max(...found.map(({ max }) => max));

/**
 * @param {Llama} llama @param {Model} model
 */
export async function checkVectors(llama, model) {
  const { reference, vector, ofTokens } = model;
  const limit = limitOf(model);
  for (const { text, tokens } of reference.texts) assert.deepEqual(llama.tokenize(text), tokens);
  const found = await distances(llama, model);
  for (const { cosine } of found) assert.ok(1 - cosine < LARGEST_ANGLE, `cosine ${cosine}`);
  assert.ok(maxOf(found) <= limit, `largest difference ${maxOf(found)}`);
  // The output for every token, and all texts in one call.
  const [first] = reference.texts;
  const every = await llama.embed(first.text, { pooling: 'none', normalize: false });
  assert.ok(distance(every, ofTokens).max <= limit, `tokens: ${distance(every, ofTokens).max}`);
  const list = await llama.embed(
    reference.texts.map(({ text }) => text),
    { normalize: false },
  );
  const together = list.map((one, i) => distance(one, vector(i)));
  assert.ok(maxOf(together) <= limit, `together: largest difference ${maxOf(together)}`);
  return maxOf([...found, ...together]);
}

/** Biases that encoders may have, and those of the test data do not. @type {[string, string, number][]} */
export const RARE_BIASES = [
  ['nomic-bert-A', 'blk.0.attn_qkv.bias', 768],
  ['nomic-bert-A', 'blk.1.attn_output.bias', 256],
  ['nomic-bert-A', 'blk.1.ffn_down.bias', 256],
  ['modern-bert-A', 'blk.1.attn_norm.bias', 256],
  ['modern-bert-A', 'blk.0.ffn_norm.bias', 256],
  ['modern-bert-A', 'blk.2.ffn_down.bias', 256],
  ['modern-bert-A', 'output_norm.bias', 256],
];
