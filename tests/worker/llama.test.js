/**
 * A model in a worker gives the results of a model in this thread, and can be stopped, left and
 * disposed in the same ways.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  ArgumentError,
  BusyError,
  createWorkerLlama,
  GgufError,
  HandleError,
  Llama,
  LoadError,
  ModelError,
  openGguf,
  WorkerError,
} from '../../js/llama/index.js';
import { startServer } from '../helpers/range-server.js';
import { projectRoot } from '../helpers/test-data.js';
import { modelPath, pause, rejection, untilAlive, workersAlive } from '../helpers/workers.js';

/** @import { TestContext } from 'node:test' */

const bytes = new Uint8Array(readFileSync(modelPath));
const ONE_THREAD = { threads: 1 };
const TEMPLATE = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:';
const messages = [{ role: 'user', content: 'Tell me of a fox' }];

/** @param {TestContext} t @param {Parameters<typeof createWorkerLlama>[1]} [options] */
async function load(t, options) {
  const model = await createWorkerLlama(modelPath, { ...ONE_THREAD, ...options });
  t.after(() => model.dispose());
  return model;
}

test('every method gives what Llama gives', async (t) => {
  const here = await Llama.load(modelPath, ONE_THREAD);
  t.after(() => here.dispose());
  const there = await load(t);
  assert.deepEqual({ ...there.info, timings: 0, kernels: 0 }, { ...here.info, timings: 0, kernels: 0 });
  assert.deepEqual(await there.tokenize('Once upon'), here.tokenize('Once upon'));
  assert.deepEqual(
    await there.tokenize('Once upon', { bos: false }),
    here.tokenize('Once upon', { bos: false }),
  );
  const tokens = here.tokenize('Once upon a time');
  assert.equal(await there.detokenize(tokens), here.detokenize(tokens));
  assert.deepEqual(await there.logits(tokens), await here.logits(tokens));
  assert.deepEqual(await there.embed('a fox'), await here.embed('a fox'));
  assert.equal(
    await there.formatChat(messages, { template: TEMPLATE }),
    await here.formatChat(messages, { template: TEMPLATE }),
  );
  const options = { maxTokens: 40, temperature: 0.9, seed: 5 };
  for (const prompt of ['Once upon a time', tokens]) {
    const [one, other] = [here.generate(prompt, options), there.generate(prompt, options)];
    const pieces = [];
    for await (const piece of other) pieces.push(piece);
    assert.equal(pieces.join(''), await one.text());
    assert.ok(pieces.length > 10, 'pieces come one by one');
    assert.deepEqual(other.tokens, one.tokens);
    assert.equal(other.stats.finishReason, one.stats.finishReason);
    assert.equal(other.stats.tokens, 40);
    assert.equal(other.stats.seed, 5);
  }
  const format = { ...options, template: TEMPLATE };
  assert.equal(
    await (await there.chat(messages, format)).text(),
    await (await here.chat(messages, format)).text(),
  );
  const long = Array.from({ length: 41 }, (_, i) => ({
    role: i % 2 ? 'assistant' : 'user',
    content: 'the fox and the bear went into the forest',
  }));
  const dropping = /** @type {const} */ ({ ...format, overflow: 'drop-oldest' });
  const [far, near] = [await there.chat(long, dropping), await here.chat(long, dropping)];
  assert.equal(far.droppedMessages, near.droppedMessages);
  assert.ok(far.droppedMessages > 0);
  assert.equal(await far.text(), await near.text());
  assert.equal(there.info.kernels.threads, 1);
});

test('from a URL, bytes, a Blob, an open file and a fetch of the caller, with progress', async (t) => {
  const server = await startServer(bytes);
  t.after(() => server.close());
  let fetched = 0;
  /** @type {[any, object][]} */
  const sources = [
    [server.url, {}],
    [new URL(server.url), { headers: new Headers({ 'x-test': '1' }), retries: 1 }],
    [bytes, {}],
    [new Blob([bytes]), {}],
    [await openGguf(bytes), {}],
    [await openGguf(modelPath), {}],
    [
      server.url,
      {
        fetch: (/** @type {any} */ ...args) => {
          fetched++;
          return fetch(.../** @type {[any]} */ (args));
        },
      },
    ],
  ];
  const texts = new Set();
  for (const [source, options] of sources) {
    /** @type {{ loaded: number, total: number }[]} */
    const progress = [];
    const model = await createWorkerLlama(source, {
      ...ONE_THREAD,
      ...options,
      onProgress: (step) => progress.push(step),
    });
    const last = progress.at(-1);
    assert.ok(last && last.loaded === last.total && last.total > 1e6);
    texts.add(await model.generate('Once upon a time', { maxTokens: 10, temperature: 0 }).text());
    await model.dispose();
  }
  assert.equal(texts.size, 1);
  assert.ok(fetched > 0, 'the fetch of the caller was used');
});

test('errors arrive with their classes and numbers', async (t) => {
  const model = await load(t);
  assert.throws(() => model.generate('x', /** @type {any} */ ({ maxTokenz: 1 })), ArgumentError);
  assert.throws(() => model.generate('x', { temperature: -1 }), ArgumentError);
  const tooLong = await rejection(model.generate(Array(5000).fill(5)).text());
  assert.equal(tooLong.name, 'ContextError');
  assert.equal(tooLong.got, 5000);
  assert.ok((await rejection(model.chat(messages))) instanceof ModelError);
  assert.ok((await rejection(model.tokenize(/** @type {any} */ (5)))) instanceof ArgumentError);
  assert.ok((await rejection(createWorkerLlama(new Uint8Array(99)))) instanceof GgufError);
  assert.ok(
    (await rejection(createWorkerLlama(modelPath, /** @type {any} */ ({ kernels: {} })))) instanceof
      ArgumentError,
  );
  const unknown = await rejection(createWorkerLlama(modelPath, /** @type {any} */ ({ contextLenght: 9 })));
  assert.ok(unknown instanceof ArgumentError);
  assert.match(unknown.message, /contextLenght.*did you mean "contextLength"/s);
  const noScript = await rejection(
    createWorkerLlama(modelPath, { worker: new URL('none.js', import.meta.url) }),
  );
  assert.ok(noScript instanceof LoadError);
  assert.equal(await model.generate('Once upon', { maxTokens: 3, temperature: 0 }).text(), ' a time,');
});

test('a generation that is aborted, left or cancelled frees the model at once', async (t) => {
  const model = await load(t);
  const endless = { maxTokens: 4000, ignoreEnd: true, temperature: 1 };
  const next = () => model.generate('Once upon', { maxTokens: 3, temperature: 0 }).text();

  const controller = new AbortController();
  const aborted = model.generate('Once', { ...endless, signal: controller.signal });
  const reason = new Error('enough');
  await assert.rejects(async () => {
    for await (const _ of aborted) if (aborted.tokens.length > 5) controller.abort(reason);
  }, reason);
  assert.ok(aborted.written.length > 0 && aborted.stats.finishReason === undefined);
  assert.equal(await rejection(aborted.text()), reason);
  assert.equal(await next(), ' a time,');

  const left = model.generate('Once', endless);
  for await (const _ of left) break;
  assert.equal(await next(), ' a time,');
  assert.equal(await left.text(), left.written);

  const cancelled = model.generate('Once', endless);
  await cancelled.next();
  const busy = await rejection(next());
  assert.ok(busy instanceof BusyError);
  cancelled.cancel();
  assert.equal(await next(), ' a time,');

  const early = model.generate('Once', { ...endless, signal: AbortSignal.abort(reason) });
  assert.equal(await rejection(early.text()), reason);
  const never = model.generate('Once', endless);
  assert.equal((await never.return()).done, true);
  assert.equal((await never.next()).done, true);
  assert.equal(await next(), ' a time,');
});

test('a generation that is cancelled before its first piece frees the model', async (t) => {
  const model = await load(t);
  const endless = { maxTokens: 4000, ignoreEnd: true, temperature: 1 };
  const next = () => model.generate('Once upon', { maxTokens: 3, temperature: 0 }).text();
  const early = model.generate('Once', endless);
  const first = early.next();
  early.cancel();
  assert.equal((await first).done, true);
  assert.equal(await next(), ' a time,');
  const answer = await model.chat(messages, { ...endless, template: TEMPLATE });
  await answer.return();
  assert.equal((await answer.next()).done, true);
  assert.equal(await next(), ' a time,');
});

test('two readers of one generation share its pieces, and both end', async (t) => {
  const model = await load(t);
  const run = model.generate('Once upon a time', { maxTokens: 30, temperature: 0 });
  const read = async () => {
    const pieces = [];
    for (let step = await run.next(); !step.done; step = await run.next()) pieces.push(step.value);
    return pieces;
  };
  const shares = await Promise.all([read(), read(), run.text()]);
  assert.equal(shares[2], await model.generate('Once upon a time', { maxTokens: 30, temperature: 0 }).text());
});

test('an error of onProgress ends the loading with it', async () => {
  const before = workersAlive();
  const reason = new Error('the page is gone');
  const onProgress = () => {
    throw reason;
  };
  assert.equal(await rejection(createWorkerLlama(modelPath, { ...ONE_THREAD, onProgress })), reason);
  await untilAlive(before);
});

/** A model whose messages with pieces are noted. @param {TestContext} t */
async function loadWatched(t) {
  const { Worker } = await import('node:worker_threads');
  const worker = new Worker(new URL('../../dist/llama-host.js', import.meta.url));
  /** @type {string[][]} */
  const messages = [];
  worker.on('message', ({ pieces }) => pieces && messages.push(pieces));
  return { model: await load(t, { worker: /** @type {any} */ (worker) }), messages };
}

test('the first piece comes alone and at once, later ones share messages', async (t) => {
  const { model, messages } = await loadWatched(t);
  const start = performance.now();
  const run = model.generate('Once', { maxTokens: 250, ignoreEnd: true, temperature: 1, seed: 1 });
  const { value } = await run.next();
  assert.deepEqual(messages[0], [value]);
  const text = await run.text();
  const elapsed = performance.now() - start;
  assert.equal(messages.flat().join(''), text);
  // One each 8 milliseconds, and the last.
  const most = 2 + elapsed / 8;
  assert.ok(messages.length <= most, `${messages.length} messages in ${elapsed} ms`);
  t.diagnostic(`${messages.flat().length} pieces in ${messages.length} messages, ${elapsed.toFixed(0)} ms`);
});

test('the worker waits for a slow reader, and holds nothing back meanwhile', async (t) => {
  const { model, messages } = await loadWatched(t);
  const run = model.generate('Once', { maxTokens: 250, ignoreEnd: true, temperature: 1, seed: 1 });
  await run.next();
  let before = -1;
  while (before !== run.tokens.length) {
    before = run.tokens.length;
    await pause(100);
  }
  assert.ok(before < 150, `${before} tokens were written ahead`);
  assert.equal(messages.flat().length, 64, 'all that was asked for has come');
  await run.text();
  assert.equal(run.tokens.length, 250);
});

test('dispose ends the worker in the middle of work, and what is pending is told', async () => {
  const before = workersAlive();
  const model = await createWorkerLlama(modelPath, ONE_THREAD);
  assert.equal(workersAlive(), before + 1);
  const run = model.generate('Once', { maxTokens: 4000, ignoreEnd: true });
  await run.next();
  const [text, tokens] = [rejection(run.text()), rejection(model.tokenize('a'))];
  await model.dispose();
  await model.dispose();
  await untilAlive(before);
  assert.ok((await text) instanceof HandleError);
  assert.ok((await tokens) instanceof HandleError);
  assert.equal(model.disposed, true);
  assert.ok((await rejection(model.embed('a'))) instanceof HandleError);
});

test('loading ends with its signal, and leaves no worker', async (t) => {
  const before = workersAlive();
  const server = await startServer(bytes);
  t.after(() => server.close());
  const controller = new AbortController();
  const reason = new Error('no more');
  const onProgress = () => controller.abort(reason);
  const loading = createWorkerLlama(server.url, { ...ONE_THREAD, signal: controller.signal, onProgress });
  assert.equal(await rejection(loading), reason);
  await untilAlive(before);
});

test('a worker that ends by itself is a WorkerError', async (t) => {
  const { Worker } = await import('node:worker_threads');
  const worker = new Worker(new URL('../../dist/llama-host.js', import.meta.url));
  const model = await createWorkerLlama(modelPath, { ...ONE_THREAD, worker: /** @type {any} */ (worker) });
  t.after(() => model.dispose());
  const run = model.generate('Once', { maxTokens: 4000, ignoreEnd: true });
  await run.next();
  const pending = rejection(run.text());
  worker.terminate();
  assert.ok((await pending) instanceof WorkerError);
  assert.equal(model.disposed, true);
});

test('an idle model does not keep a process alive', () => {
  const code = `import { createWorkerLlama } from './js/llama/index.js';
    const model = await createWorkerLlama(${JSON.stringify(modelPath)}, { threads: 1 });
    console.log(await model.generate('Once upon', { maxTokens: 3, temperature: 0 }).text());`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '--eval', code], {
    cwd: projectRoot,
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(status, 0, stderr);
  assert.equal(stdout, ' a time,\n');
});
