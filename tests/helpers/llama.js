/**
 * The models of the test data with their reference logits, the distance of a run from them, and
 * checks of a model against float64.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { dataPath, listData, projectRoot, skipWithout } from './test-data.js';

/** @import { Llama } from '../../js/llama/index.js' */
/** @import { makeModel, Spec } from './synthetic-llama.js' */

/** Models that go through the whole runner, by what is special. @type {[string, Spec][]} */
export const SMALL_MODELS = [
  ['llama', {}],
  ['llama, tied, factors', { tied: true, factors: true, linear: 2, nDims: 8 }],
  ['qwen2', { architecture: 'qwen2', type: 'Q8_0' }],
  ['qwen3', { architecture: 'qwen3', headSize: 32 }],
  ['llama, not causal', { causal: false }],
];

/** Options of a sampler that takes the most likely token. */
export const GREEDY = {
  ...{ temperature: 0, topK: 0, topP: 1, minP: 0, seed: 1 },
  ...{ repeatPenalty: 1, frequencyPenalty: 0, presencePenalty: 0, repeatWindow: 64 },
};

/** A prompt for models of synthetic-llama.js. */
export const TOKENS = [1, 17, 5, 30, 9, 9, 22, 3, 38, 12, 6, 28];

export const TINY_TALES = join(projectRoot, 'web/public/tiny-tales-Q4_K_M.gguf');

/** @typedef {{ text: string, tokens: number[], logits_offset: number, n_pos: number }} Prompt */

/**
 * @typedef {object} Reference
 * @property {number} n_vocab
 * @property {Prompt[]} prompts
 * @property {{ tokens: number[], text: string, margins: number[] }} greedy
 * @property {Record<string, number>} tensor_types
 * @property {{ kv_f16: { max_abs: number } }} reference  error of llama.cpp's own runs with floats
 * @property {{ max_abs: number, rms: number, cos_min: number }} quantized_run
 */

/**
 * Every model with a reference: [name, path, the reason why it cannot be tested].
 * @type {[string, string, string | false][]}
 */
export const MODELS = [['tiny-tales-Q4_K_M', TINY_TALES, skipWithout('logits/tiny-tales-Q4_K_M.json')]];
for (const file of listData('models')) {
  const name = /^(.*)\.gguf$/.exec(file)?.[1];
  if (name) MODELS.push([name, dataPath('models', file), skipWithout(`logits/${name}.json`)]);
}
if (MODELS.length === 1)
  MODELS.push(['models', '', skipWithout('models') || 'no test data: models is empty']);

/**
 * @param {string} name
 * @param {string} [folder]  in the test data
 * @returns {{ reference: Reference, logits: (prompt: Prompt) => Float32Array }}
 */
export function readReference(name, folder = 'logits') {
  const reference = JSON.parse(readFileSync(dataPath(folder, `${name}.json`), 'utf8'));
  const file = dataPath(folder, `${name}.logits.f32`);
  if (!existsSync(file)) throw new Error(`${file} is missing`);
  const bytes = readFileSync(file);
  const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const logits = (/** @type {Prompt} */ { logits_offset: start, n_pos: n }) =>
    all.subarray(start, start + n * reference.n_vocab);
  return { reference, logits };
}

/**
 * @typedef {{ max: number, rms: number, cosine: number, size: number }} Distance  size: root mean
 *   square of the expected logits
 */

/** @param {ArrayLike<number>} got @param {ArrayLike<number>} expected @returns {Distance} */
export function distance(got, expected) {
  if (got.length === 0 || got.length !== expected.length)
    throw new Error(`${got.length} values, expected ${expected.length}`);
  let [max, squares, dot, a, b] = [0, 0, 0, 0, 0];
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(got[i] - expected[i]);
    if (!(difference <= max)) max = difference;
    squares += difference * difference;
    dot += got[i] * expected[i];
    a += got[i] * got[i];
    b += expected[i] * expected[i];
  }
  const mean = (/** @type {number} */ sum) => Math.sqrt(sum / expected.length);
  return { max, rms: mean(squares), cosine: dot / Math.sqrt(a * b), size: mean(b) };
}

/**
 * The root mean square of differences, and the worst 1 - cosine, as multiples of those of llama.cpp's
 * own int8 run. Kernels round activations to the same integers as llama.cpp does, and add in another
 * order. Where a sum lies on a border of rounding, the next integers differ.
 */
const LIKE_LLAMA = 1.1;
/**
 * The worst cosine where the activations of some products are not the same integers: chance then
 * decides which position is the worst, and by how much. The limit is that of the test data's README.
 */
const OTHER_INTEGERS = 2;

/** Types whose codes take all 8 bits: the relaxed kernels may serve int8 by int16. */
const WIDE_TYPES = ['Q8_0', 'Q8_K', 'IQ4_NL', 'IQ4_XS'];

/**
 * Checks that activations of int8 make no larger errors than llama.cpp's.
 * @param {{ rms: number, cosine: number }[]} found  distances from the reference
 * @param {{ rms: number, cos_min: number }} theirs
 * @param {Record<string, number>} types  of the tensors; llama.cpp rounds activations for F16 to f16
 * @param {string} isa
 */
export function checkLikeLlama(found, theirs, types, isa) {
  const rms = Math.sqrt(found.reduce((sum, one) => sum + one.rms ** 2, 0) / found.length);
  assert.ok(rms <= LIKE_LLAMA * theirs.rms, `rms difference ${rms} where llama.cpp has ${theirs.rms}`);
  const differs = 'F16' in types || (isa === 'relaxed' && WIDE_TYPES.some((type) => type in types));
  const lowest = 1 - (differs ? OTHER_INTEGERS : LIKE_LLAMA) * (1 - theirs.cos_min);
  const cosine = Math.min(...found.map((one) => one.cosine));
  assert.ok(cosine >= lowest, `cosine ${cosine} under ${lowest}; llama.cpp has ${theirs.cos_min}`);
}

/** The largest magnitude. @param {ArrayLike<number>} values */
export const peakOf = (values) =>
  Array.from(values).reduce((peak, value) => Math.max(peak, Math.abs(value)), 0);

/**
 * @param {ArrayLike<number>} got
 * @param {ArrayLike<number>} expected
 * @param {number} limit  of the error, relative to the largest magnitude
 * @param {string} what
 */
export function close(got, expected, limit, what) {
  const { max } = distance(got, expected);
  assert.ok(max <= limit * peakOf(expected), `${what}: ${max} of ${peakOf(expected)}`);
}

/**
 * Generates tokens, each of which must have the largest logit. The prompt begins with another token
 * than TOKENS, so that a cache of TOKENS is of no use.
 * @param {Llama} model
 * @param {ReturnType<typeof makeModel>} made
 * @param {number} nTokens
 */
export async function checkGreedy(model, made, nTokens) {
  const all = TOKENS.slice(1, 6);
  const run = model.generate(all, { temperature: 0, maxTokens: nTokens, ignoreEnd: true });
  await run.text();
  for (const token of run.tokens) {
    const row = made.logits(all).slice(-made.spec.nVocab);
    assert.equal(token, row.indexOf(Math.max(...row)));
    all.push(token);
  }
  assert.equal(run.tokens.length, nTokens);
}
