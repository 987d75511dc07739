/**
 * The runner against llama.cpp: logits at every position of every prompt, and greedy continuations, of every model in the test
 * data, in every activation mode and instruction set. The limits are those of the test data's README, which also says
 * what mistakes they see.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama } from '../js/llama/index.js';
import { distance, MODELS, readReference } from './helpers/llama.js';
import { libraryVariants } from './helpers/variants.js';

/** @import { Activation } from '../js/selftest.js' */

/**
 * @param {Llama} model
 * @param {string} name
 * @param {(result: { max: number, cosine: number, rms: number }, reference: import('./helpers/llama.js').Reference) => void} check
 */
async function compare(model, name, check) {
  const { reference, logits } = readReference(name);
  assert.equal(model.info.nVocab, reference.n_vocab);
  const whole = { max: 0, cosine: 1, rms: 0 };
  let [squares, count] = [0, 0];
  for (const prompt of reference.prompts) {
    assert.deepEqual(model.tokenize(prompt.text), prompt.tokens, 'tokens, BOS included');
    const expected = logits(prompt);
    const got = await model.logits(prompt.tokens);
    assert.equal(got.length, expected.length);
    const one = distance(got, expected, reference.n_vocab);
    whole.max = one.max <= whole.max ? whole.max : one.max;
    whole.cosine = Math.min(whole.cosine, one.cosine);
    squares += one.squares;
    count += got.length;
  }
  whole.rms = Math.sqrt(squares / count);
  check(whole, reference);
  return { whole, reference };
}

/** What a 16-bit cache may add to the largest difference, by the test data's README. */
const F16_CACHE = 0.05;

/**
 * How many times llama.cpp's own int8 run a difference may be. Beside weights in blocks of 32, llama.cpp quantises activations 32
 * at a time, these kernels 256. A step is the largest of its group / 127, and the largest of n normal values grows with sqrt(ln n).
 * @param {import('./helpers/llama.js').Reference} reference
 */
const int8Factor = ({ tensor_types: types }) =>
  1.5 * ('Q8_0' in types ? Math.sqrt(Math.log(256) / Math.log(32)) : 1);

/** @type {Record<Activation, (result: { max: number, cosine: number, rms: number }, reference: import('./helpers/llama.js').Reference) => void>} */
const LIMITS = {
  f32: ({ max }) => assert.ok(max <= 2e-4, `largest difference ${max}`),
  int16: ({ max }) => assert.ok(max <= 0.02, `largest difference ${max}`),
  int8: ({ max, cosine, rms }, reference) => {
    assert.ok(cosine >= 0.999, `cosine ${cosine}`);
    const theirs = reference.quantized_run;
    const factor = int8Factor(reference);
    // Models of floats have no int8 run: they meet f32 activations here as there.
    assert.ok(max <= Math.max(factor * theirs.max_abs, 2e-4), `largest difference ${max}`);
    assert.ok(rms <= Math.max(factor * theirs.rms, 2e-4), `rms difference ${rms}`);
  },
};

for (const [name, path, skip] of MODELS) {
  for (const { isa, dot, label, skip: noIsa } of libraryVariants) {
    for (const activation of /** @type {const} */ (['f32', 'int16', 'int8'])) {
      test(`llama: ${name}, ${activation}, ${label}`, { skip: skip || noIsa }, async (t) => {
        const model = await Llama.load(path, { isa, dot, activation, kvType: 'F32' });
        t.after(() => model.dispose());
        const { whole, reference } = await compare(model, name, LIMITS[activation]);
        t.diagnostic(
          `ran: ${name}, ${activation}: largest ${whole.max.toExponential(1)}, cosine ${whole.cosine.toFixed(6)}`,
        );
        if (activation !== 'f32') return;
        const { tokens, text } = reference.greedy;
        const run = model.generate(reference.prompts[0].text, { temperature: 0, maxTokens: tokens.length });
        assert.equal(await run.text(), text);
        assert.deepEqual(run.tokens, tokens);
      });
    }
  }
  test(`llama: ${name}, 16-bit cache`, { skip }, async (t) => {
    const model = await Llama.load(path, { activation: 'f32', kvType: 'F16' });
    t.after(() => model.dispose());
    await compare(model, name, ({ max }) => assert.ok(max <= F16_CACHE, `largest difference ${max}`));
  });
  test(`llama: ${name}, as it is loaded without options`, { skip }, async (t) => {
    const model = await Llama.load(path);
    t.after(() => model.dispose());
    assert.deepEqual([model.info.activation, model.info.kvType], ['int8', 'F16']);
    // Not the cosine: where logits are small, as after the prompt of tiny-tales, it says little.
    await compare(model, name, ({ max, rms }, reference) => {
      const theirs = reference.quantized_run;
      const factor = int8Factor(reference);
      assert.ok(max <= factor * theirs.max_abs + F16_CACHE, `largest difference ${max}`);
      assert.ok(rms <= factor * theirs.rms + F16_CACHE, `rms difference ${rms}`);
    });
  });
}
