/** Further contexts of a model in a worker: the same as in this thread. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { BusyError, createWorkerLlama, HandleError, Llama, SavedContextError } from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';

/** @import { TestContext } from 'node:test' */

const GREEDY = { temperature: 0, ignoreEnd: true };
const PROMPT = 'Once upon a time';
const OPTIONS = { threads: 1, contextLength: 128 };
const short = { ...GREEDY, maxTokens: 8 };
const messages = [{ role: /** @type {const} */ ('user'), content: 'a fox' }];

/** Texts and tokens of a context in this thread. @type {any} */
let expected;
before(async () => {
  const model = await Llama.load(TINY_TALES, OPTIONS);
  const context = await model.context();
  const text = await context.generate(PROMPT, short).text();
  const { tokens } = context;
  const bytes = await context.save();
  const answer = await (await context.chat(messages, { ...short, template: 'chatml' })).text();
  expected = { text, tokens, bytes, answer, info: model.info };
  model.dispose();
});

/** @param {TestContext} t */
async function open(t) {
  const model = await createWorkerLlama(TINY_TALES, OPTIONS);
  t.after(() => model.dispose());
  return model;
}

test('contexts in a worker: texts side by side, and memory', async (t) => {
  const model = await open(t);
  const { kvCache } = model.info.memory;
  const [a, b] = await Promise.all([model.context(), model.context({ contextLength: 64 })]);
  assert.deepEqual([a.contextLength, b.contextLength], [128, 64]);
  assert.deepEqual(a.tokens, []);
  assert.equal(model.info.memory.kvCache, 2.5 * kvCache);
  const texts = [a, b, model].map((one) => one.generate(PROMPT, short).text());
  assert.deepEqual(await Promise.all(texts), Array(3).fill(expected.text));
  assert.deepEqual([a.tokens, b.tokens], [expected.tokens, expected.tokens]);
  const chat = await a.chat(messages, { ...short, template: 'chatml' });
  assert.equal(await chat.text(), expected.answer);
  await a.clear();
  assert.deepEqual(a.tokens, []);
  await a.dispose();
  await a.dispose();
  assert.equal(model.info.memory.kvCache, 1.5 * kvCache);
  assert.equal(a.disposed, true);
  assert.throws(() => a.generate(PROMPT), HandleError);
  assert.throws(() => a.tokens, HandleError);
  await assert.rejects(a.save(), HandleError);
  assert.equal(await b.generate(PROMPT, short).text(), expected.text);
  await assert.rejects(model.context({ contextLength: 129 }), /from 1 to 128, got 129/);
});

test('contexts in a worker: saved, restored and copied, in a worker and in this thread', async (t) => {
  const [model, here] = [await open(t), await Llama.load(TINY_TALES, OPTIONS)];
  t.after(() => here.dispose());
  const restored = await model.restoreContext(expected.bytes);
  assert.deepEqual(restored.tokens, expected.tokens);
  assert.equal(expected.bytes.length > 0, true, 'the bytes stay with the caller');
  const bytes = await restored.save();
  assert.deepEqual(bytes, expected.bytes);
  const fork = await restored.fork();
  const local = await here.restoreContext(bytes);
  const more = [...expected.tokens, 17];
  const runs = [restored, fork, local].map((one) => one.generate(more, { ...short, logprobs: 2 }));
  await Promise.all(runs.map((run) => run.text()));
  for (const run of runs) {
    assert.equal(run.stats.reusedTokens, expected.tokens.length);
    assert.deepEqual([run.tokens, run.logprobs], [runs[2].tokens, runs[2].logprobs]);
  }
  const damaged = bytes.slice();
  damaged[50] ^= 4;
  await assert.rejects(model.restoreContext(damaged), (error) => {
    assert.ok(error instanceof SavedContextError && error.reason === 'damaged', String(error));
    return true;
  });
  await assert.rejects(model.restoreContext(/** @type {any} */ ('bytes')), /must be a Uint8Array/);
});

test('contexts in a worker: busy, queues, stops, aborts and ends', async (t) => {
  const model = await open(t);
  const context = await model.context();
  const endless = { ...GREEDY, maxTokens: 100 };
  const run = context.generate(PROMPT, endless);
  await run.next();
  await assert.rejects(context.save(), (error) => error instanceof BusyError && error.holder === 'generate');
  await assert.rejects(context.clear(), BusyError);
  const saving = context.save({ queue: true });
  context.stop();
  await run.text();
  assert.equal(run.stats.finishReason, 'stopped');
  assert.deepEqual(context.tokens, [...(await model.tokenize(PROMPT)), ...run.tokens.slice(0, -1)]);
  const bytes = await saving;
  const aborted = AbortSignal.abort(new Error('no more'));
  await assert.rejects(context.save({ signal: aborted }), /no more/);
  const { kvCache } = model.info.memory;
  for (const make of [
    (/** @type {AbortSignal} */ signal) => context.fork({ signal }),
    (/** @type {AbortSignal} */ signal) => model.restoreContext(bytes, { signal }),
  ]) {
    const late = new AbortController();
    const making = make(late.signal);
    late.abort(new Error('too late'));
    await assert.rejects(making, /too late/);
  }
  await (await model.context()).dispose();
  assert.equal(model.info.memory.kvCache, kvCache, 'nothing is left of what was aborted');
  const cut = context.generate(PROMPT, endless);
  await cut.next();
  await context.dispose();
  await assert.rejects(cut.text(), /this context is disposed/);
  const last = await model.context();
  const other = await model.context();
  await Promise.all([other.dispose(), model.dispose()]);
  assert.equal(last.disposed, true);
  assert.throws(() => last.generate(PROMPT), /this model is disposed/);
  await last.dispose();
});
