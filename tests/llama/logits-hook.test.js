/**
 * The options `logits` and `logprobs`: a function sees and changes the logits of every token, and the
 * reported log probabilities are those of float64. And `showTokens`: control tokens as text.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createWorkerLlama, Llama } from '../../js/llama/index.js';
import { changedGguf } from '../helpers/changed-gguf.js';
import { TINY_TALES } from '../helpers/llama.js';
import { generate as generateRenamed, renamed } from '../helpers/renamed-tokens.js';
import { rejection } from '../helpers/workers.js';

/** @import { TestContext } from 'node:test' */

const PROMPT = 'Once upon a time';

/** @param {TestContext} t */
async function open(t) {
  const model = await Llama.load(TINY_TALES, { threads: 1, activation: 'f32', kvType: 'F32' });
  t.after(() => model.dispose());
  return model;
}

test('logits: it is called once for each token, with its row and all tokens so far', async (t) => {
  const model = await open(t);
  const prompt = model.tokenize(PROMPT);
  for (const options of [
    { temperature: 0, maxTokens: 8 },
    { temperature: 0.9, seed: 3, maxTokens: 8, repeatPenalty: 1.2 },
  ]) {
    const plain = model.generate(PROMPT, options);
    await plain.text();
    /** @type {{ row: Float32Array, tokens: number[] }[]} */
    const calls = [];
    const run = model.generate(PROMPT, {
      ...options,
      logits: (row, tokens) => {
        calls.push({ row: row.slice(), tokens: [...tokens] });
      },
    });
    await run.text();
    assert.deepEqual(run.tokens, plain.tokens, 'a function that changes nothing changes nothing');
    assert.equal(calls.length, 8);
    const all = [...prompt, ...run.tokens];
    const rows = await model.logits(all);
    const { nVocab } = model.info;
    for (const [i, { row, tokens }] of calls.entries()) {
      assert.deepEqual(tokens, all.slice(0, prompt.length + i));
      const own = rows.subarray((tokens.length - 1) * nVocab, tokens.length * nVocab);
      const error = row.reduce((most, value, id) => Math.max(most, Math.abs(value - own[id])), 0);
      assert.ok(row.length === nVocab && error < 1e-3, `token ${i}: ${error}`);
    }
  }
});

test('logits: what it changes decides, also with a penalty', async (t) => {
  const model = await open(t);
  const wanted = model.tokenize('the big bear and the big bear sat', { bos: false });
  const start = model.tokenize(PROMPT).length;
  const force = (/** @type {Float32Array} */ row, /** @type {readonly number[]} */ tokens) => {
    row.fill(Number.NEGATIVE_INFINITY);
    row[wanted[tokens.length - start]] = 0;
  };
  for (const more of [
    { temperature: 0 },
    { temperature: 1, topK: 0, topP: 1, minP: 0 },
    { repeatPenalty: 2 },
  ]) {
    const run = model.generate(PROMPT, { ...more, maxTokens: wanted.length, logits: force });
    assert.match(await run.text(), /the big bear and the big bear sat$/);
    assert.deepEqual(run.tokens, wanted);
  }
  const banned = model.generate(PROMPT, { temperature: 0, maxTokens: 1 });
  await banned.text();
  const other = model.generate(PROMPT, {
    temperature: 0,
    maxTokens: 1,
    logits: (row) => {
      row[banned.tokens[0]] = Number.NEGATIVE_INFINITY;
    },
  });
  await other.text();
  assert.notEqual(other.tokens[0], banned.tokens[0]);
});

test('logits: mistakes are errors that name it, and free the model', async (t) => {
  const model = await open(t);
  const run = (/** @type {any} */ logits) => rejection(model.generate(PROMPT, { logits }).text());
  /** @type {[any, RegExp][]} */
  const mistakes = [
    [(/** @type {Float32Array} */ row) => row.fill(Number.NEGATIVE_INFINITY), /logits: .* all \d+ tokens/],
    [(/** @type {Float32Array} */ row) => row.fill(Number.NaN, 7), /logits: after the call, row\[7\] is NaN/],
    [(/** @type {Float32Array} */ row) => row.fill(1 / 0, 9, 10), /row\[9\] is Infinity/],
    [async () => {}, /logits must not return a promise/],
    [async () => assert.fail('of the promise'), /logits must not return a promise/],
  ];
  for (const [logits, message] of mistakes) {
    const error = await run(logits);
    assert.ok(error instanceof ArgumentError, String(error));
    assert.match(error.message, message);
  }
  const own = new Error('of the function');
  const thrower = () => {
    throw own;
  };
  assert.equal(await run(thrower), own);
  const not = /** @type {any} */ ({ logits: {} });
  assert.throws(() => model.generate(PROMPT, not), /logits must be a function .*got Object/);
  assert.throws(() => model.generate(PROMPT, { logprobs: -1 }), /logprobs must be an integer from 0 to 1000/);
  assert.equal((await model.generate(PROMPT, { maxTokens: 2 }).text()).length > 0, true);
});

test('logprobs: they are those of float64, whatever changes the logits afterwards', async (t) => {
  const model = await open(t);
  const prompt = model.tokenize(PROMPT);
  const { nVocab } = model.info;
  for (const options of [
    { temperature: 0, logprobs: 3 },
    { temperature: 1.3, seed: 4, repeatPenalty: 1.5, logprobs: 1 },
    {
      temperature: 0.7,
      seed: 5,
      logprobs: 0,
      logits: (/** @type {Float32Array} */ row) => row.fill(0, 5, 900),
    },
    { temperature: 0, logprobs: 1000 },
  ]) {
    const run = model.generate(PROMPT, { ...options, maxTokens: 6 });
    await run.text();
    assert.equal(run.logprobs.length, run.tokens.length);
    const rows = await model.logits([...prompt, ...run.tokens]);
    for (const [i, { token, bytes, logprob, top }] of run.logprobs.entries()) {
      const at = prompt.length + i - 1;
      const row = Float64Array.from(rows.subarray(at * nVocab, (at + 1) * nVocab));
      const peak = Math.max(...row);
      const all = peak + Math.log(row.reduce((sum, value) => sum + Math.exp(value - peak), 0));
      assert.equal(token, run.tokens[i]);
      assert.ok(Math.abs(logprob - (row[token] - all)) < 1e-3, `${logprob}, ${row[token] - all}`);
      assert.equal(
        new TextDecoder().decode(bytes).trim(),
        model.detokenize([token], { special: true }).trim(),
      );
      assert.equal(top.length, Math.min(options.logprobs, nVocab));
      for (const [k, one] of top.entries()) {
        assert.ok(Math.abs(one.logprob - (row[one.token] - all)) < 1e-3);
        assert.ok(k === 0 || one.logprob <= top[k - 1].logprob);
      }
      if (options.temperature === 0) assert.equal(top[0].token, token);
    }
  }
  const plain = model.generate(PROMPT, { maxTokens: 2 });
  await plain.text();
  assert.deepEqual(plain.logprobs, []);
});

test('in a worker: log probabilities arrive, and a function is refused by name', async (t) => {
  const [here, there] = [
    await open(t),
    await createWorkerLlama(TINY_TALES, { threads: 1, activation: 'f32', kvType: 'F32' }),
  ];
  t.after(() => there.dispose());
  const options = { temperature: 1, seed: 9, maxTokens: 12, logprobs: 2 };
  const [one, other] = [here.generate(PROMPT, options), there.generate(PROMPT, options)];
  assert.equal(await one.text(), await other.text());
  assert.deepEqual(other.logprobs, one.logprobs);
  assert.equal(other.logprobs.length, 12);
  const logits = () => {};
  const refused = /^logits cannot be sent to a worker, as it is a function; load the model with Llama.load/;
  assert.throws(
    () => there.generate(PROMPT, { logits }),
    (error) => error instanceof ArgumentError && refused.test(error.message),
  );
  assert.match((await rejection(there.chat([{ role: 'user', content: 'a' }], { logits }))).message, refused);
});

test('showTokens: those control tokens are text, and no others', async () => {
  const plain = await generateRenamed({});
  const [, second, , fourth] = plain.tokens;
  const pairs = renamed({ [second]: ['[CALL]', 3], [fourth]: ['<|x|>', 3] });
  const hidden = await generateRenamed(pairs);
  assert.doesNotMatch(hidden.text, /CALL|x/);
  const shown = await generateRenamed(pairs, { showTokens: ['[CALL]', '[NONE]'] });
  assert.match(shown.text, /^.\[CALL\]/u);
  assert.doesNotMatch(shown.text, /x/);
  assert.equal(shown.text.replaceAll('[CALL]', ''), hidden.text);
  assert.deepEqual(shown.tokens, plain.tokens);
  const not = /** @type {any} */ ({ showTokens: '[CALL]' });
  await assert.rejects(generateRenamed(pairs, not), /showTokens must be a list of texts/);
});

test('logits: tokens that the file suppresses are never chosen', async (t) => {
  const options = { temperature: 0, maxTokens: 8, ignoreEnd: true };
  const plain = (await open(t)).generate(PROMPT, options);
  await plain.text();
  const [first, second] = plain.tokens;
  const metadata = { 'tokenizer.ggml.suppress_tokens': [first, second, 1e6] };
  const model = await Llama.load(await changedGguf(TINY_TALES, { metadata }), { threads: 1 });
  t.after(() => model.dispose());
  for (const more of [{}, { logprobs: 1 }, { logits: () => {} }, { temperature: 1.5, seed: 3 }]) {
    const run = model.generate(PROMPT, { ...options, ...more });
    await run.text();
    assert.equal(run.tokens.length, 8);
    assert.ok(!run.tokens.some((id) => id === first || id === second), run.tokens.join(' '));
  }
});
