/**
 * Several contexts of a model: each computes what a model of its own would, whatever the others do
 * meanwhile; each is used by one call at a time, and takes its memory with it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ArgumentError,
  BusyError,
  createKernels,
  HandleError,
  Llama,
  MemoryError,
  ModelError,
} from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { TestContext } from 'node:test' */
/** @import { Generation, LlamaContext } from '../../js/llama/index.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */

const SEED = Number(process.env.FM_TEST_SEED ?? 20261128);
const PROMPT = 'Once upon a time';
const GREEDY = { temperature: 0, ignoreEnd: true };
const EXACT = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
/** A token that is computed with others differs in the rounding of sums, which is small in f32. */
const FLOAT = /** @type {const} */ ({ threads: 1, ...EXACT });

/** Something that generates: a model or a context. @typedef {Pick<LlamaContext, 'generate'>} Writer */

/**
 * A model to test: how to load it, and how many tokens it has.
 * @typedef {{ name: string, load: () => Promise<Llama>, nVocab: number, length: number,
 *   skip?: string | false }} Case
 */

/** @param {string} name @param {number} length  positions @returns {Case} */
const real = (name, length) => ({
  name,
  nVocab: 512,
  length,
  skip: skipWithout(`arch/models/${name}.gguf`),
  load: () => Llama.load(dataPath(`arch/models/${name}.gguf`), { ...FLOAT, contextLength: length }),
});

const hybrid = makeHybrid([true, false, true], { context: 64 }).bytes.buffer;
const dense = makeModel({ nVocab: 40, context: 64 }).bytes.buffer;

/** @param {string} name @param {any} bytes @param {object} options @returns {Case} */
const recorded = (name, bytes, options) => ({
  name,
  nVocab: 40,
  length: 64,
  load: () => Llama.loadTo(async () => new ReferenceBackend(options), bytes, { ...EXACT, contextLength: 64 }),
});

/** @type {Case[]} */
const CASES = [
  {
    name: 'tiny-tales',
    nVocab: 768,
    length: 128,
    load: () => Llama.load(TINY_TALES, { ...FLOAT, contextLength: 128 }),
  },
  real('lfm2-A', 96),
  real('qwen35-A', 96),
  real('falcon-h1-A', 96),
  // Longer than the window and a batch, so that positions leave the caches.
  real('gemma3-A', 700),
  recorded('a device that queues its work', dense, {}),
  recorded('a device with tokens in flight', dense, { ahead: 3 }),
  recorded('a device with tokens in flight, recurrent', hybrid, { ahead: 3, batch: 5, part: 2 }),
];

/** @param {TestContext} t @param {Case} one */
async function open(t, { load }) {
  const model = await load();
  t.after(() => model.dispose());
  return model;
}

/**
 * Writes texts at random in several contexts by turns, and the same with a model for each.
 * @param {{ context: Writer, alone: Writer }[]} pairs
 * @param {Prng} prng @param {Case} one @param {number} nSteps
 */
async function walk(pairs, prng, { nVocab, length }, nSteps) {
  const counts = { started: 0, reused: 0, aborted: 0, together: 0, pieces: 0 };
  const random = (/** @type {number} */ n) => Array.from({ length: n }, () => prng.int(3, nVocab - 1));
  const all = pairs.map((pair) => ({
    ...pair,
    past: random(4),
    runs: /** @type {Generation[]} */ ([]),
    abort: new AbortController(),
  }));
  /** @typedef {typeof all[0]} Place */
  const check = (/** @type {Place} */ { runs: [run, expected] }, /** @type {string} */ what) => {
    assert.deepEqual(run.tokens, expected.tokens, what);
    for (const [i, { token, logprob }] of run.logprobs.entries()) {
      assert.equal(token, expected.logprobs[i].token, what);
      assert.ok(Math.abs(logprob - expected.logprobs[i].logprob) < 1e-3, what);
    }
    assert.equal(run.stats.reusedTokens, expected.stats.reusedTokens, what);
  };
  const start = (/** @type {Place} */ place) => {
    const kept = prng.int(0, 2) > 0 ? place.past.length : prng.int(1, place.past.length);
    const more = prng.int(0, 5) === 0 ? Math.floor(length / 2) : prng.int(0, 6);
    const prompt = [...place.past.slice(0, kept), ...random(more)].slice(-(length - 12));
    place.abort = new AbortController();
    const drawn = { temperature: 1.2, topK: 0, seed: prng.int(0, 1000), repeatPenalty: 1.1 };
    /** @type {GenerateOptions} */
    const options = {
      ...(prng.int(0, 1) ? drawn : { temperature: 0 }),
      ...{ ignoreEnd: true, maxTokens: prng.int(1, 9), logprobs: prng.int(0, 1) ? 3 : undefined },
    };
    place.past = prompt;
    place.runs = [
      place.context.generate(prompt, { ...options, signal: place.abort.signal }),
      place.alone.generate(prompt, options),
    ];
    counts.started += 1;
  };
  const finish = (/** @type {Place} */ place) => {
    const [run] = place.runs;
    if (run.stats.reusedTokens > 0) counts.reused += 1;
    place.past = [...place.past, ...run.tokens].slice(0, length - 12);
    place.runs = [];
  };
  for (let step = 0; step < nSteps; step++) {
    const what = `step ${step}, seed ${SEED}`;
    const place = all[prng.int(0, all.length - 1)];
    const fate = prng.int(0, 19);
    if (place.runs.length === 0) start(place);
    const [run, expected] = place.runs;
    if (fate === 0) {
      // Two texts at the same time, the second of which is aborted somewhere.
      const other = all[(all.indexOf(place) + 1) % all.length];
      if (other.runs.length === 0) start(other);
      const reading = [place, other].map(({ runs }) => runs[0].text().catch((error) => String(error)));
      for (let wait = prng.int(0, 30); wait > 0; wait--) await null;
      other.abort.abort(new Error('interrupted'));
      await Promise.all(reading);
      await expected.text();
      check(place, what);
      finish(place);
      // Nobody knows how far it came.
      const [cut] = other.runs;
      while (other.runs[1].tokens.length < cut.tokens.length && !(await other.runs[1].next()).done);
      other.runs[1].cancel();
      other.past = [...other.past, ...cut.tokens].slice(0, length - 12);
      other.runs = [];
      for (const one of [other.context, other.alone]) await one.generate([1], { maxTokens: 1 }).text();
      counts.aborted += 1;
    } else if (fate === 1) {
      const busy = all.filter(({ runs }) => runs.length > 0);
      await Promise.all(busy.map(({ runs }) => runs[0].text()));
      for (const one of busy) {
        await one.runs[1].text();
        check(one, what);
        finish(one);
      }
      counts.together += 1;
    } else {
      const [got, wanted] = [await run.next(), await expected.next()];
      assert.equal(got.done, wanted.done, what);
      if (!got.done) assert.equal(got.value, wanted.value, what);
      counts.pieces += 1;
      check(place, what);
      if (got.done) finish(place);
      else if (fate === 2) {
        for (const one of place.runs) one.stop();
        finish(place);
      }
    }
  }
  return counts;
}

for (const one of CASES) {
  const { name, skip = false, length } = one;
  test(`contexts: texts by turns are those of separate models: ${name}`, { skip }, async (t) => {
    const model = await open(t, one);
    const writers = [model, await model.context(), await model.context({ contextLength: length })];
    const pairs = [];
    for (const context of writers) pairs.push({ context, alone: await open(t, one) });
    const counts = await walk(pairs, new Prng(SEED), one, name.startsWith('gemma3') ? 150 : 300);
    t.diagnostic(`ran: ${name}: ${JSON.stringify(counts)}`);
    for (const [what, n] of Object.entries(counts)) assert.ok(n > 2, `${what}: ${n}`);
  });
}

test('contexts: a text does not wait for those of other contexts, but for its own', async (t) => {
  const model = await open(t, CASES[0]);
  const context = await model.context({ contextLength: 64 });
  assert.equal(context.contextLength, 64);
  assert.deepEqual(context.tokens, []);
  const options = { ...GREEDY, maxTokens: 20 };
  const expected = await model.generate(PROMPT, options).text();
  const run = context.generate(PROMPT, options);
  const first = await run.next();
  assert.equal(await model.generate(PROMPT, options).text(), expected);
  const other = context.generate('The', options);
  await assert.rejects(other.next(), (error) => {
    assert.ok(error instanceof BusyError && error.holder === 'generate', String(error));
    assert.match(error.message, /busy with generate \(\d+ tokens\) in this context.*model\.context\(\)/);
    return true;
  });
  assert.throws(() => context.clear(), BusyError);
  const queued = context.generate('The', { ...options, queue: true }).text();
  const begun = String(first.value);
  assert.equal(begun + (await run.text()).slice(begun.length), expected);
  assert.equal(await queued, await model.generate('The', options).text());
  const stopped = context.generate(PROMPT, options);
  await stopped.next();
  model.stop();
  await stopped.next();
  context.stop();
  assert.equal(stopped.stats.finishReason, 'stopped');
});

test('contexts: its tokens are those that need not be computed again', async (t) => {
  const model = await open(t, CASES[0]);
  const context = await model.context();
  const prompt = model.tokenize(PROMPT);
  const run = context.generate(prompt, { ...GREEDY, maxTokens: 5 });
  await run.text();
  assert.deepEqual(context.tokens, [...prompt, ...run.tokens.slice(0, -1)]);
  const longer = context.generate([...context.tokens, 7], { ...GREEDY, maxTokens: 1 });
  await longer.text();
  assert.equal(longer.stats.reusedTokens, context.tokens.length - 1);
  context.tokens.length = 0;
  assert.ok(context.tokens.length > 0, 'it is a copy');
  context.clear();
  assert.deepEqual(context.tokens, []);
  const again = context.generate(prompt, { ...GREEDY, maxTokens: 5 });
  await again.text();
  assert.equal(again.stats.reusedTokens, 0);
  assert.deepEqual(again.tokens, run.tokens);
});

test('contexts: conversations side by side', async (t) => {
  const model = await open(t, CASES[0]);
  const options = { ...GREEDY, maxTokens: 8, template: 'chatml' };
  const messages = [{ role: /** @type {const} */ ('user'), content: 'a fox' }];
  const expected = await (await model.chat(messages, options)).text();
  const contexts = [await model.context(), await model.context({ contextLength: 60 })];
  const runs = await Promise.all(contexts.map((context) => context.chat(messages, options)));
  for (const text of await Promise.all(runs.map((run) => run.text()))) assert.equal(text, expected);
  const [, small] = contexts;
  const answer = { role: /** @type {const} */ ('assistant'), content: 'a dog' };
  const many = [...messages, answer, ...messages, answer];
  await assert.rejects(small.chat([...many, ...messages], options), { code: 'FM_CONTEXT', expected: 60 });
  const dropping = await small.chat([...many, ...messages], { ...options, overflow: 'drop-oldest' });
  assert.ok(dropping.droppedMessages > 0);
  await assert.rejects(
    small.chat(messages, /** @type {any} */ ({ maxToken: 3 })),
    /did you mean "maxTokens"/,
  );
  assert.throws(() => small.generate(Array(61).fill(5)), { code: 'FM_CONTEXT', got: 61, expected: 60 });
});

test('contexts: memory is counted, and comes back', async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const model = await Llama.load(TINY_TALES, { kernels: fm, contextLength: 128 });
  await model.generate(PROMPT, { ...GREEDY, maxTokens: 3 }).text();
  const loaded = fm.memory().inUse;
  const { kvCache, workspace } = model.info.memory;
  const context = await model.context({ contextLength: 64 });
  assert.equal(model.info.memory.kvCache, kvCache * 1.5);
  assert.equal(model.info.memory.workspace, workspace);
  assert.ok(fm.memory().inUse - loaded < kvCache / 2 + 4096);
  await context.generate(PROMPT, { ...GREEDY, maxTokens: 3 }).text();
  context.dispose();
  context.dispose();
  assert.equal(fm.memory().inUse, loaded);
  assert.equal(model.info.memory.kvCache, kvCache);
  const others = [await model.context(), await model.context()];
  model.dispose();
  assert.equal(fm.memory().tensors, 0);
  assert.ok(others.every(({ disposed }) => disposed));
});

test('contexts: one without room is a MemoryError, and the others go on', async (t) => {
  const backend = new ReferenceBackend({ ahead: 2 });
  const model = await Llama.loadTo(async () => backend, dense, { ...EXACT, contextLength: 64 });
  t.after(() => model.dispose());
  const run = model.generate([5, 6, 7], { ...GREEDY, maxTokens: 9 });
  await run.next();
  const { length } = backend.made;
  const none = t.mock.method(backend, 'fits', async () => 0);
  await assert.rejects(model.context(), (error) => {
    assert.ok(error instanceof MemoryError, String(error));
    return true;
  });
  none.mock.restore();
  assert.equal(backend.made.length, length);
  let left = 1;
  const { cache } = ReferenceBackend.prototype;
  const full = t.mock.method(backend, 'cache', (/** @type {any} */ ...args) => {
    if (left-- > 0) return cache.apply(backend, args);
    throw new MemoryError('full', { asked: 3, inUse: 2, limit: 4 });
  });
  await assert.rejects(model.context(), { code: 'FM_MEMORY', asked: 3 });
  full.mock.restore();
  assert.ok(backend.made.slice(length).every(({ freed }) => freed));
  await run.text();
  assert.equal(run.tokens.length, 9);
  assert.deepEqual((await model.context()).tokens, []);
});

test('contexts: what is disposed ends its texts, and is a HandleError', async (t) => {
  const model = await open(t, CASES[0]);
  const [context, other] = [await model.context(), await model.context()];
  const [run, late] = [context.generate(PROMPT, GREEDY), context.generate(PROMPT, GREEDY)];
  await run.next();
  context.dispose();
  const isDisposed = (/** @type {unknown} */ error) =>
    error instanceof HandleError && error.reason === 'disposed' && /this context is/.test(error.message);
  await assert.rejects(run.next(), isDisposed);
  await assert.rejects(late.next(), isDisposed);
  assert.throws(() => context.generate(PROMPT), isDisposed);
  await assert.rejects(context.chat([]), isDisposed);
  assert.throws(() => context.clear(), isDisposed);
  assert.throws(() => context.tokens, isDisposed);
  assert.equal(context.disposed, true);
  assert.equal((await other.generate(PROMPT, { maxTokens: 2 }).text()).length > 0, true);
  const last = other.generate(PROMPT, GREEDY);
  await last.next();
  model.dispose();
  await assert.rejects(last.next(), /this model is disposed/);
  assert.throws(() => other.generate(PROMPT), /this model is disposed/);
  await assert.rejects(model.context(), /this model is disposed/);
  other.dispose();
});

test('contexts: what cannot be made', async (t) => {
  const model = await open(t, CASES[0]);
  const refuses = async (/** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.rejects(model.context(options), (error) => {
      assert.ok(error instanceof ArgumentError && message.test(error.message), String(error));
      return true;
    });
  await refuses({ contextLength: 129 }, /contextLength must be an integer from 1 to 128, got 129/);
  await refuses({ contextLength: 0 }, /from 1 to 128, got 0/);
  await refuses({ contextlength: 5 }, /did you mean "contextLength"/);
  await refuses(null, /must be an object/);
  const { buffer } = makeModel({ causal: false, context: 32 }).bytes;
  const encoder = await Llama.loadTo(
    async () => new ReferenceBackend(),
    /** @type {ArrayBuffer} */ (buffer),
    EXACT,
  );
  await assert.rejects(
    encoder.context(),
    (error) => error instanceof ModelError && /use embed/.test(error.message),
  );
});

test('contexts: embeddings and logits beside texts', async (t) => {
  const model = await open(t, CASES[0]);
  const texts = ['a fox', 'the forest and the sun', 'a boat'];
  const tokens = [1, 5, 9, 30, 20];
  const expected = [await model.embed(texts), [await model.logits(tokens)]];
  const context = await model.context();
  const text = await context.generate(PROMPT, { ...GREEDY, maxTokens: 40 }).text();
  context.clear();
  // Every pass pauses wherever it may, so that other contexts would come in between.
  let now = 0;
  t.mock.method(performance, 'now', () => {
    now += 50;
    return now;
  });
  const run = context.generate(PROMPT, { ...GREEDY, maxTokens: 40 }).text();
  assert.deepEqual(await model.embed(texts), expected[0]);
  assert.deepEqual([await model.logits(tokens)], expected[1]);
  assert.equal(await run, text);
});
