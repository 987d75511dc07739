/**
 * The runner compared with llama.cpp: logits at every position of every prompt, and greedy
 * continuations, for every model in the test data, in every activation mode and instruction set.
 * The limits are at most those of the test data's README, which also lists the mistakes that they
 * detect.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { checkLikeLlama, distance, MODELS, readReference } from '../helpers/llama.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Activation } from '../../js/wasm/selftest.js' */
/** @import { Distance, Reference } from '../helpers/llama.js' */
/** @typedef {Distance & { at: string }} Position  at: number of the prompt, and position */

/** Compares every position of every prompt. @param {Llama} model @param {string} name */
async function compare(model, name) {
  const { reference, logits } = readReference(name);
  const nVocab = reference.n_vocab;
  assert.equal(model.info.nVocab, nVocab);
  /** @type {Position[]} */
  const positions = [];
  for (const [i, prompt] of reference.prompts.entries()) {
    assert.deepEqual(model.tokenize(prompt.text), prompt.tokens, 'tokens, BOS included');
    const expected = logits(prompt);
    const got = await model.logits(prompt.tokens);
    assert.equal(got.length, expected.length);
    prompt.tokens.forEach((_, position) => {
      const row = (/** @type {Float32Array} */ all) =>
        all.subarray(position * nVocab, (position + 1) * nVocab);
      positions.push({ at: `${i}:${position}`, ...distance(row(got), row(expected)) });
    });
  }
  return { reference, positions };
}

/** @param {Position[]} positions @param {(position: Position) => number} by */
const largest = (positions, by) => positions.reduce((a, b) => (by(a) >= by(b) ? a : b));
/** @param {Position[]} positions */
const maxOf = (positions) => largest(positions, ({ max }) => max).max;
/** @param {Position[]} positions */
const rmsOf = (positions) =>
  Math.sqrt(positions.reduce((sum, { rms }) => sum + rms * rms, 0) / positions.length);

/**
 * Twice the largest difference that llama.cpp's own 16-bit cache makes, since chance decides which
 * values are rounded up.
 * @param {Reference} reference
 */
const f16Limit = ({ reference }) => 2 * reference.kv_f16.max_abs;

/** The largest allowed difference as a multiple of that of llama.cpp's own int8 run. */
const MOST = 1.5;

const LEAST_COSINE = 0.999;
/**
 * Positions for which int8 activations cannot promise that cosine, since the logits are small
 * compared with the noise of rounding to 8 bits. "Once upon a" leaves tiny-tales with logits of 1.3
 * (all positions: 6.4). The limit of such a position's rms is llama.cpp's largest difference.
 * Chance decides the roundings: changing norms by 3e-4, which changes the logits of f32 activations
 * by 1e-3, gives this position a cosine between 0.991 and 0.9998 and an rms between 0.02 and 0.18
 * with a cache of floats, and a 16-bit cache is such a change.
 * @type {Record<string, string>}
 */
const SMALL_LOGITS = { 'tiny-tales-Q4_K_M': '0:3' };

/**
 * Models of floats have no int8 run: their activations are f32 both here and in llama.cpp.
 * @param {Position[]} positions @param {Reference} reference
 * @param {number} floor  largest difference of floats
 * @param {string} [except]  the position of small logits
 */
function checkInt8(positions, reference, floor, except) {
  const theirs = reference.quantized_run;
  for (const { at, cosine, rms, size } of positions) {
    if (at !== except) {
      assert.ok(cosine >= LEAST_COSINE, `${at}: cosine ${cosine}`);
      continue;
    }
    const expected = 1 - (MOST * theirs.rms) ** 2 / size ** 2 / 2;
    assert.ok(expected < LEAST_COSINE, `${at} is no exception: a cosine of ${expected} is to be expected`);
    assert.ok(rms <= theirs.max_abs, `${at}: rms difference ${rms}`);
  }
  const [max, rms] = [maxOf(positions), rmsOf(positions)];
  assert.ok(max <= Math.max(MOST * theirs.max_abs, floor), `largest difference ${max}`);
  assert.ok(rms <= Math.max(MOST * theirs.rms, floor), `rms difference ${rms}`);
}

/** @type {Record<Activation, (positions: Position[], reference: Reference, isa: string) => void>} */
const CHECKS = {
  f32: (positions) => assert.ok(maxOf(positions) <= 2e-4, `largest difference ${maxOf(positions)}`),
  int16: (positions) => assert.ok(maxOf(positions) <= 0.02, `largest difference ${maxOf(positions)}`),
  int8: (positions, reference, isa) => {
    checkInt8(positions, reference, 2e-4);
    const { quantized_run: theirs, tensor_types: types } = reference;
    if (theirs.rms > 0) checkLikeLlama(positions, theirs, types, isa);
  },
};

/** @param {Position[]} positions */
function summary(positions) {
  const { at, cosine } = largest(positions, (position) => -position.cosine);
  return `largest difference ${maxOf(positions).toExponential(1)}, least cosine ${cosine.toFixed(6)} at ${at}`;
}

for (const [name, path, skip] of MODELS) {
  for (const { isa, dot, label, skip: noIsa } of libraryVariants) {
    for (const activation of /** @type {const} */ (['f32', 'int16', 'int8'])) {
      test(`llama: ${name}, ${activation}, ${label}`, { skip: skip || noIsa }, async (t) => {
        const model = await Llama.load(path, { isa, dot, activation, kvType: 'F32' });
        t.after(() => model.dispose());
        const { positions, reference } = await compare(model, name);
        t.diagnostic(`ran: ${name}, ${activation}: ${summary(positions)}`);
        CHECKS[activation](positions, reference, isa);
        if (activation !== 'f32') return;
        const { tokens, text } = reference.greedy;
        const run = model.generate(reference.prompts[0].text, { temperature: 0, maxTokens: tokens.length });
        assert.equal(await run.text(), text);
        assert.deepEqual(run.tokens, tokens);
      });
    }
    test(`llama: ${name}, as it is loaded without options, ${label}`, { skip: skip || noIsa }, async (t) => {
      const model = await Llama.load(path, { isa, dot });
      t.after(() => model.dispose());
      assert.deepEqual([model.info.activation, model.info.kvType], ['int8', 'F16']);
      const { positions, reference } = await compare(model, name);
      t.diagnostic(`ran: ${name}, defaults: ${summary(positions)}`);
      checkInt8(positions, reference, f16Limit(reference), SMALL_LOGITS[name]);
    });
  }
  test(`llama: ${name}, 16-bit cache`, { skip }, async (t) => {
    const model = await Llama.load(path, { activation: 'f32', kvType: 'F16' });
    t.after(() => model.dispose());
    const { positions, reference } = await compare(model, name);
    assert.ok(maxOf(positions) <= f16Limit(reference), `largest difference ${maxOf(positions)}`);
  });
}
