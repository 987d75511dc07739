/**
 * A generation that is stopped keeps its text and is no error, and calls that wait in a line get the
 * model one after the other: in this thread, and the same in a worker.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { ArgumentError, BusyError, createWorkerLlama, HandleError, Llama } from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { pause, rejection } from '../helpers/workers.js';

/** @import { TestContext } from 'node:test' */

const PROMPT = 'Once upon a time';
const endless = { temperature: 0, maxTokens: 400, ignoreEnd: true };
const short = { temperature: 0, maxTokens: 8 };
const queued = { ...short, queue: true };

/** The two places of a model. @type {[string, (t: TestContext) => Promise<any>][]} */
const PLACES = [
  ['in this thread', () => Llama.load(TINY_TALES, { threads: 1 })],
  ['in a worker', () => createWorkerLlama(TINY_TALES, { threads: 1 })],
];

/** A backend whose next read of a token fails when it is told to. */
class Failing extends ReferenceBackend {
  /** @type {((error: Error) => void) | undefined} */
  fail;

  /** @type {ReferenceBackend['readTokens']} */
  readTokens(...args) {
    if (!this.isSlow) return super.readTokens(...args);
    return new Promise((_, reject) => {
      this.fail = reject;
    });
  }

  isSlow = false;
}

/** The texts of a model that nothing disturbs. */
const expected = (async () => {
  const model = await Llama.load(TINY_TALES, { threads: 1 });
  const [text, whole] = [
    await model.generate(PROMPT, short).text(),
    await model.generate(PROMPT, endless).text(),
  ];
  model.dispose();
  return { text, whole };
})();

for (const [place, load] of PLACES) {
  /** @param {TestContext} t */
  const open = async (t) => {
    const model = await load(t);
    t.after(() => model.dispose());
    return model;
  };

  test(`stop, ${place}: a loop ends with what is written, and the model is free`, async (t) => {
    const model = await open(t);
    const { text, whole } = await expected;
    const run = model.generate(PROMPT, endless);
    let read = '';
    let next;
    for await (const piece of run) {
      read += piece;
      if (!next && run.tokens.length >= 5) {
        run.stop();
        next = model.generate(PROMPT, short).text();
      }
    }
    assert.equal(run.stats.finishReason, 'stopped');
    assert.equal(read, run.written);
    assert.equal(await run.text(), read);
    assert.equal(await run.text(), read, 'again');
    assert.ok(read.length > 0 && read.length < whole.length && whole.startsWith(read), read);
    assert.equal(await next, text);
    run.stop();
    run.cancel();
    assert.equal(run.stats.finishReason, 'stopped');
    assert.equal(await run.text(), read, 'after cancel()');
  });

  test(`stop, ${place}: during a read, and before the first one`, async (t) => {
    const model = await open(t);
    const { text, whole } = await expected;
    for (let hops = 0; hops < 12; hops++) {
      const run = model.generate(PROMPT, endless);
      const reading = run.text();
      for (let i = 0; i < hops; i++) await (i < 6 ? undefined : pause(1));
      run.stop();
      const written = await reading;
      assert.equal(run.stats.finishReason, 'stopped', `after ${hops} turns`);
      assert.equal(written, run.written);
      assert.ok(whole.startsWith(written));
      assert.equal(await model.generate(PROMPT, short).text(), text, `after ${hops} turns`);
    }
    const run = model.generate(PROMPT, endless);
    run.stop();
    assert.equal(run.stats.finishReason, 'stopped');
    assert.deepEqual((await run.next()).done, true);
    assert.equal(await run.text(), '');
    const answer = await model.chat([{ role: 'user', content: 'a fox' }], { ...endless, template: 'chatml' });
    answer.stop();
    assert.equal(await answer.text(), '');
    assert.equal(answer.stats.finishReason, 'stopped');
    assert.equal(await model.generate(PROMPT, short).text(), text);
  });

  test(`stop, ${place}: text that was held back for a stop string is given out`, async (t) => {
    const model = await open(t);
    const { whole } = await expected;
    // The stop string begins like the text, and holds all of it back.
    const run = model.generate(PROMPT, { ...endless, stop: `${whole.slice(0, 60)}zzz` });
    const reading = run.next();
    await pause(30);
    run.stop();
    const { value, done } = await reading;
    assert.equal(done, run.tokens.length === 0);
    if (!done) assert.ok(value.length > 0 && whole.startsWith(value), value);
    assert.equal(await run.text(), done ? '' : value);
    assert.equal(run.stats.finishReason, 'stopped');
  });

  test(`stop, ${place}: an abort comes first, or too late`, async (t) => {
    const model = await open(t);
    const [early, late] = [new AbortController(), new AbortController()];
    const aborted = model.generate(PROMPT, { ...endless, signal: early.signal });
    await aborted.next();
    early.abort(new Error('enough'));
    aborted.stop();
    await assert.rejects(aborted.text(), /enough/);
    assert.equal(aborted.stats.finishReason, undefined);
    const unread = model.generate(PROMPT, { ...endless, signal: early.signal });
    unread.stop();
    await assert.rejects(unread.text(), /enough/);
    const stopped = model.generate(PROMPT, { ...endless, signal: late.signal });
    await stopped.next();
    stopped.stop();
    late.abort(new Error('enough'));
    assert.ok((await stopped.text()).length > 0);
    assert.equal(stopped.stats.finishReason, 'stopped');
    const ended = model.generate(PROMPT, short);
    await ended.text();
    ended.stop();
    assert.equal(ended.stats.finishReason, 'length');
  });

  test(`stop, ${place}: the model stops whatever generation has it`, async (t) => {
    const model = await open(t);
    const { text } = await expected;
    model.stop();
    // Somebody has begun to read, and reads no more.
    const forgotten = model.generate(PROMPT, endless);
    await forgotten.next();
    const busy = await rejection(model.generate(PROMPT, short).text());
    assert.ok(busy instanceof BusyError);
    assert.equal(busy.holder, 'generate');
    assert.match(busy.message, /^generate: .* busy with generate \(5 tokens\).*queue: true.*stop\(\)/);
    model.stop();
    assert.equal(await model.generate(PROMPT, short).text(), text);
    assert.ok((await forgotten.text()).length > 0);
    assert.equal(forgotten.stats.finishReason, 'stopped');
  });

  test(`queue, ${place}: calls wait for one another, in order`, async (t) => {
    const model = await open(t);
    const { text } = await expected;
    /** @type {string[]} */
    const order = [];
    const note = (/** @type {string} */ name, /** @type {Promise<any>} */ call) =>
      call.then((value) => {
        order.push(name);
        return value;
      });
    const vector = await model.embed(PROMPT);
    const first = model.generate(PROMPT, endless);
    await first.next();
    const calls = [
      note('first', first.text()),
      note('second', model.generate(PROMPT, queued).text()),
      note('embed', model.embed(PROMPT, { queue: true })),
      note('logits', model.logits([5], { queue: true })),
      note('last', model.generate(PROMPT, queued).text()),
    ];
    const busy = await rejection(model.logits([5]));
    assert.ok(busy instanceof BusyError, String(busy));
    const [, second, embedded, row, last] = await Promise.all(calls);
    // A generation reaches a worker's line by a second message, after the calls made with it.
    const inWorker = place === 'in a worker';
    const middle = inWorker ? ['embed', 'logits', 'second'] : ['second', 'embed', 'logits'];
    assert.deepEqual(order, ['first', ...middle, 'last']);
    assert.deepEqual([second, last], [text, text]);
    assert.deepEqual(embedded, vector);
    assert.equal(row.length, model.info.nVocab);
    const bad = /** @type {any} */ ({ queue: 'yes' });
    await assert.rejects(async () => model.generate(PROMPT, bad).text(), ArgumentError);
    assert.match(
      (await rejection(model.embed(PROMPT, bad))).message,
      /queue must be true or false, got "yes"/,
    );
  });

  test(`queue, ${place}: whoever waits can leave, and the line goes on`, async (t) => {
    const model = await open(t);
    const { text } = await expected;
    const first = model.generate(PROMPT, endless);
    await first.next();
    const controller = new AbortController();
    const [left, stopped] = [model.generate(PROMPT, queued), model.generate(PROMPT, queued)];
    const aborted = rejection(model.generate(PROMPT, { ...queued, signal: controller.signal }).text());
    const embedded = rejection(model.embed(PROMPT, { queue: true, signal: controller.signal }));
    const leaving = left.text();
    const stopping = stopped.text();
    const last = model.generate(PROMPT, queued).text();
    await pause(20);
    left.cancel();
    stopped.stop();
    controller.abort(new Error('not any more'));
    assert.equal(await leaving, '');
    assert.equal(await stopping, '');
    assert.equal(stopped.stats.finishReason, 'stopped');
    assert.match((await aborted).message, /not any more/);
    assert.match((await embedded).message, /not any more/);
    first.cancel();
    assert.equal(await last, text);
  });

  test(`queue, ${place}: an abort of the one that has the model passes it on`, async (t) => {
    const model = await open(t);
    const { text } = await expected;
    const controller = new AbortController();
    const first = model.generate(PROMPT, { ...endless, signal: controller.signal });
    await first.next();
    const waiting = model.generate(PROMPT, queued).text();
    await pause(20);
    // Nobody reads the first one any more.
    controller.abort();
    assert.equal(await waiting, text);
  });

  test(`queue, ${place}: dispose tells all that wait`, async (t) => {
    const model = await open(t);
    const first = model.generate(PROMPT, endless);
    await first.next();
    const waiting = [
      rejection(model.generate(PROMPT, queued).text()),
      rejection(model.embed(PROMPT, { queue: true })),
    ];
    await pause(20);
    await model.dispose();
    for (const error of await Promise.all(waiting)) assert.ok(error instanceof HandleError, String(error));
  });
}

test('stop, in a worker: a slow reader learns of the end without reading on', async (t) => {
  const model = await createWorkerLlama(TINY_TALES, { threads: 1 });
  t.after(() => model.dispose());
  const run = model.generate(PROMPT, { ...endless, maxTokens: 240 });
  await run.next();
  for (let before = -1; before !== run.tokens.length; await pause(100)) before = run.tokens.length;
  assert.ok(run.tokens.length < 150, 'the worker waits for the reader');
  run.stop();
  for (let i = 0; i < 100 && run.stats.finishReason === undefined; i++) await pause(20);
  assert.equal(run.stats.finishReason, 'stopped');
});

test('queue: a generation that nobody can read any more passes the model on', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const model = await Llama.load(TINY_TALES, { threads: 1 });
  t.after(() => model.dispose());
  const controller = new AbortController();
  await (async () => {
    await model.generate(PROMPT, { ...endless, signal: controller.signal }).next();
  })();
  let text;
  model
    .generate(PROMPT, queued)
    .text()
    .then((value) => {
      text = value;
    });
  for (let i = 0; i < 100 && text === undefined; i++) {
    await pause(10);
    collect();
  }
  assert.equal(text, (await expected).text);
});

test('stop: a read that fails afterwards is no error', async (t) => {
  const backend = new Failing();
  const model = await Llama.loadTo(async () => backend, makeModel({ context: 64 }).bytes.buffer, {});
  t.after(() => model.dispose());
  const run = model.generate([3, 4, 5], { maxTokens: 20, temperature: 0, ignoreEnd: true });
  await run.next();
  backend.isSlow = true;
  const reading = run.text();
  for (let wait = 0; wait < 100 && !backend.fail; wait++) await pause(1);
  run.stop();
  backend.fail?.(new Error('of the device'));
  assert.equal(await reading, run.written);
  assert.equal(run.stats.finishReason, 'stopped');
});
