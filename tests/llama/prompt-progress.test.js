/**
 * The progress of a long prompt: `onProgress` of generate and chat, in this thread and the same in a
 * worker.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createWorkerLlama, Llama } from '../../js/llama/index.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { rejection } from '../helpers/workers.js';

/** @import { TestContext } from 'node:test' */
/** @import { PromptProgress } from '../../js/llama/index.js' */

const TEMPLATE = '{% for m in messages %}{{ m.content }}{% endfor %}';
const short = { temperature: 0, maxTokens: 4, ignoreEnd: true };
const LENGTH = 1200;
const file = /** @type {ArrayBuffer} */ (makeModel({ context: LENGTH + 64 }).bytes.buffer);

/** @type {[string, () => Promise<Llama | Awaited<ReturnType<typeof createWorkerLlama>>>][]} */
const PLACES = [
  ['in this thread', () => Llama.load(file, { threads: 1 })],
  ['in a worker', () => createWorkerLlama(file.slice(0), { threads: 1 })],
];

for (const [place, load] of PLACES) {
  /** A model, and a prompt of several batches. @param {TestContext} t */
  const open = async (t) => {
    const model = await load();
    t.after(() => model.dispose());
    return { model, tokens: Array.from({ length: LENGTH }, (_, i) => 1 + (i % 29)) };
  };

  test(`onProgress ${place}: batches of a prompt, the last one with all tokens`, async (t) => {
    const { model, tokens } = await open(t);
    /** @type {PromptProgress[]} */
    const seen = [];
    const onProgress = (/** @type {PromptProgress} */ step) => seen.push(step);
    const text = await model.generate(tokens, { ...short, onProgress }).text();
    assert.ok(seen.length > 1, `${seen.length} batches of ${tokens.length} tokens`);
    for (const [i, { phase, done, total }] of seen.entries()) {
      assert.deepEqual([phase, total], ['prompt', tokens.length]);
      assert.ok(done > (seen[i - 1]?.done ?? 0), `${done} after ${seen[i - 1]?.done}`);
    }
    assert.equal(seen.at(-1)?.done, tokens.length);
    seen.length = 0;
    const longer = [...tokens, ...tokens.slice(0, 3)];
    const run = model.generate(longer, { ...short, onProgress });
    await run.text();
    assert.ok(run.stats.reusedTokens > 0);
    assert.deepEqual(seen, [{ phase: 'prompt', done: longer.length, total: longer.length }]);
    assert.equal(await model.generate(tokens, short).text(), text, 'the function changes nothing');
  });

  test(`onProgress ${place}: in a conversation`, async (t) => {
    const { model, tokens } = await open(t);
    const content = await model.detokenize(tokens.slice(0, 200));
    /** @type {number[]} */
    const seen = [];
    const run = await model.chat([{ role: 'user', content }], {
      ...short,
      template: TEMPLATE,
      onProgress: ({ done }) => seen.push(done),
    });
    await run.text();
    assert.equal(seen.at(-1), run.stats.promptTokens);
  });

  test(`onProgress ${place}: its error ends the generation, and the model is free`, async (t) => {
    const { model, tokens } = await open(t);
    const reason = new Error('the page is gone');
    const run = model.generate(tokens, {
      ...short,
      onProgress: () => {
        throw reason;
      },
    });
    assert.equal(await rejection(run.text()), reason);
    assert.equal((await model.generate(tokens.slice(0, 9), short).text()).length > 0, true);
  });

  test(`onProgress ${place}: what is no function is refused`, async (t) => {
    const { model } = await open(t);
    const options = /** @type {any} */ ({ onProgress: 1, template: TEMPLATE });
    const calls = [
      async () => model.generate('x', /** @type {any} */ ({ onProgress: 1 })).text(),
      async () => (await model.chat([{ role: 'user', content: 'x' }], options)).text(),
    ];
    for (const call of calls) {
      const error = await rejection(call());
      assert.ok(error instanceof ArgumentError, String(error));
      assert.match(error.message, /^onProgress must be a function \(progress\) => void, got 1$/);
    }
  });

  test(`onProgress ${place}: what is no signal is refused by every call`, async (t) => {
    const { model } = await open(t);
    const signal = /** @type {any} */ ('x');
    const messages = [{ role: /** @type {const} */ ('user'), content: 'x' }];
    for (const call of [
      async () => (await model.chat(messages, { template: TEMPLATE, signal })).text(),
      () => model.embed('x', { signal }),
      () => model.restoreContext(new Uint8Array(4), { signal }),
    ]) {
      const error = await rejection(call());
      assert.ok(error instanceof ArgumentError, String(error));
      assert.match(error.message, /^signal must be an AbortSignal, got "x"$/);
    }
  });
}
