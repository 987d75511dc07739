/**
 * Steps of several contexts: those that generate at the same time share passes over the weights. Each
 * writes the tokens that it writes alone, whatever becomes of the others.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HandleError, Llama, MemoryError, NumericError } from '../../js/llama/index.js';
import { JoinedSteps } from '../../js/llama/joined-steps.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { TINY_TALES } from '../helpers/llama.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { TestContext } from 'node:test' */
/** @import { LlamaContext } from '../../js/llama/index.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */
/** @import { Pair, TensorSpec } from '../helpers/gguf-bytes.js' */

const EXACT = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
const GREEDY = { temperature: 0, ignoreEnd: true };
/** Its embedding is NaN; no text comes to it by itself. */
const BAD = 39;

/** @param {{ file: { pairs: Pair[], tensors: TensorSpec[] } }} made  untied */
function withBadToken({ file }) {
  const tensors = file.tensors.map((one) => {
    if (one.name !== 'token_embd.weight') return one;
    const values = new Float32Array(one.data.slice().buffer);
    const nEmbd = Number(one.shape[0]);
    values.fill(Number.NaN, BAD * nEmbd, (BAD + 1) * nEmbd);
    return { ...one, data: new Uint8Array(values.buffer) };
  });
  return /** @type {ArrayBuffer} */ (ggufBytes({ ...file, tensors }).bytes.buffer);
}

const never = (/** @type {Float32Array} */ row) => void row.fill(Number.NEGATIVE_INFINITY, BAD, BAD + 1);
const dense = withBadToken(makeModel({ nVocab: 40, context: 64 }));
const hybrid = withBadToken(makeHybrid([true, false, true], { nVocab: 40, context: 64, tied: false }));

/** @param {TestContext} t @param {ArrayBuffer} bytes @param {ReferenceBackend} [backend] */
async function open(t, bytes, backend) {
  const options = { ...EXACT, contextLength: 64 };
  const model = await (backend
    ? Llama.loadTo(async () => backend, bytes, options)
    : Llama.load(bytes, { ...options, threads: 1, isa: 'scalar' }));
  t.after(() => model.dispose());
  return model;
}

/** @param {Llama} model @param {number} n @returns {Promise<[Llama, ...LlamaContext[]]>} */
const writersOf = async (model, n) => [
  model,
  ...(await Promise.all(Array.from({ length: n - 1 }, () => model.context()))),
];

/** Prompts and options that differ in everything. @type {[number[], GenerateOptions][]} */
const TEXTS = [
  [[5, 6, 7, 8, 9], { ...GREEDY, maxTokens: 14 }],
  [[7], { ignoreEnd: true, seed: 3, temperature: 1.3, topK: 0, maxTokens: 11, logprobs: 2 }],
  [[30, 4, 4], { ignoreEnd: true, seed: 9, temperature: 0.8, repeatPenalty: 1.3, maxTokens: 17 }],
  [[11, 12, 13, 14, 15, 16, 17], { ...GREEDY, maxTokens: 5, logits: (row) => row.fill(row[20] + 3, 20, 21) }],
];
const PROMPTS = TEXTS.map(([prompt, { logits, ...options }]) => {
  const hook = (/** @type {Float32Array} */ row, /** @type {readonly number[]} */ tokens) => {
    logits?.(row, tokens);
    never(row);
  };
  return /** @type {[number[], GenerateOptions]} */ ([prompt, { ...options, logits: hook }]);
});

/** @param {Llama} model  what it writes alone */
async function aloneOf(model) {
  const all = [];
  for (const [prompt, options] of PROMPTS) {
    const run = model.generate(prompt, options);
    await run.text();
    all.push({ tokens: run.tokens, logprobs: run.logprobs });
  }
  return all;
}

/** Counts the passes over the first layer's feed-forward block. @param {TestContext} t */
function countPasses(t) {
  /** @type {number[]} */
  const rows = [];
  const { feed } = WasmBackend.prototype;
  t.mock.method(
    WasmBackend.prototype,
    'feed',
    /** @this {WasmBackend} @param {any} x @param {any} block @param {any} at */
    function (x, block, at) {
      if (block.layer === 0) rows.push(at.nTokens);
      return feed.call(this, x, block, at);
    },
  );
  return rows;
}

for (const [name, bytes] of /** @type {const} */ ([
  ['dense', dense],
  ['recurrent', hybrid],
])) {
  for (const isReference of [true, false]) {
    const where = isReference ? 'a device that queues its work' : 'the scalar kernels';
    test(`joined steps: ${name} texts on ${where} are exactly those alone, in fewer passes`, async (t) => {
      const rows = countPasses(t);
      const backend = isReference ? new ReferenceBackend({ batch: 16, part: 16 }) : undefined;
      const model = await open(t, bytes, backend);
      const expected = await aloneOf(model);
      const writers = await writersOf(model, 4);
      if (backend) backend.calls.length = 0;
      rows.length = 0;
      const runs = PROMPTS.map(([prompt, options], i) => writers[i].generate(prompt, options));
      await Promise.all(runs.map((run) => run.text()));
      for (const [i, { tokens, logprobs }] of runs.entries())
        assert.deepEqual({ tokens, logprobs }, expected[i]);
      // Prompts one by one; then as many steps as the longest text has, and a few to come together.
      const nPasses = backend ? backend.calls.filter((call) => call === 'embed').length : rows.length;
      t.diagnostic(`ran: ${nPasses} passes for 47 tokens and 4 prompts`);
      assert.ok(nPasses <= 4 + 17 + 2, `${nPasses}`);
      if (!backend) assert.ok(rows.filter((n) => n === 4).length >= 3, `${rows}`);
    });
  }

  test(`joined steps: what ends one ${name} text leaves the others as they are`, async (t) => {
    const model = await open(t, bytes);
    const expected = await aloneOf(model);
    const writers = await writersOf(model, 4);
    // Every pass pauses wherever it may, so that texts end in the middle of steps.
    let now = 0;
    t.mock.method(performance, 'now', () => {
      now += 50;
      return now;
    });
    /** @typedef {ReturnType<LlamaContext['generate']>} Run */
    /** @type {Record<string, (run: Run, abort: AbortController, i: number) => void>} */
    const ends = {
      stop: (run) => run.stop(),
      abort: (_, abort) => abort.abort(new Error('enough')),
      cancel: (run) => run.cancel(),
      again: (run, _, i) => {
        run.stop();
        // The context is used again at once, while the step that it was in goes on.
        again.push(writers[i].generate([...PROMPTS[i][0], 21, 22], { ...GREEDY, maxTokens: 3 }).text());
      },
    };
    /** @type {Promise<string>[]} */
    let again = [];
    const after = await model.generate([...PROMPTS[1][0], 21, 22], { ...GREEDY, maxTokens: 3 }).text();
    for (const [what, end] of Object.entries(ends)) {
      for (let wait = 20; wait < 60; wait += 7) {
        const abort = new AbortController();
        const runs = PROMPTS.map(([prompt, options], i) =>
          writers[i].generate(prompt, {
            ...options,
            signal: abort.signal && i === 1 ? abort.signal : undefined,
          }),
        );
        const texts = runs.map((run) => run.text().catch((error) => String(error)));
        for (let i = 0; i < wait; i++) await new Promise((resolve) => setImmediate(resolve));
        end(runs[1], abort, 1);
        await Promise.all(texts);
        for (const i of [0, 2, 3]) assert.deepEqual(runs[i].tokens, expected[i].tokens, `${what}, ${wait}`);
        const { length } = runs[1].tokens;
        assert.deepEqual(runs[1].tokens, expected[1].tokens.slice(0, length), `${what}, ${wait}`);
        for (const text of again) assert.equal(await text, after, `${what}, ${wait}`);
        again = [];
      }
    }
    // A context that goes away, and its memory with it.
    const runs = PROMPTS.map(([prompt, options], i) =>
      writers[i].generate(prompt, i === 1 ? { ...options, maxTokens: 40 } : options),
    );
    const texts = runs.map((run) => run.text().catch((error) => error));
    for (let i = 0; i < 40; i++) await new Promise((resolve) => setImmediate(resolve));
    /** @type {LlamaContext} */ (writers[1]).dispose();
    const [, gone] = await Promise.all(texts);
    assert.match(String(gone), /this context is disposed/);
    for (const i of [0, 2, 3]) assert.deepEqual(runs[i].tokens, expected[i].tokens);
  });

  test(`joined steps: a NaN in one ${name} text is its own error`, async (t) => {
    const model = await open(t, bytes);
    const expected = await aloneOf(model);
    const writers = await writersOf(model, 4);
    const [prompt] = PROMPTS[1];
    const spoilt = (/** @type {LlamaContext | Llama} */ writer) => {
      let n = 0;
      const logits = (/** @type {Float32Array} */ row) => {
        if (++n < 4) never(row);
        else row[BAD] = 1e6;
      };
      const run = writer.generate(prompt, { ...GREEDY, maxTokens: 20, logits });
      return { run, end: run.text().then(String, (error) => error) };
    };
    const alone = await spoilt(model).end;
    assert.ok(alone instanceof NumericError, String(alone));
    const rows = countPasses(t);
    const { run, end } = spoilt(writers[1]);
    const others = [0, 2, 3].map((i) => writers[i].generate(...PROMPTS[i]));
    await Promise.all(others.map((one) => one.text()));
    const error = await end;
    assert.equal(error.message, alone.message);
    assert.deepEqual({ ...error }, { ...alone });
    assert.equal(run.tokens.at(-1), BAD);
    for (const [at, i] of [0, 2, 3].entries()) assert.deepEqual(others[at].tokens, expected[i].tokens);
    assert.ok(rows.filter((n) => n === 4).length >= 3, `${rows}`);
    // The context of the wrong number can be used again.
    const again = writers[1].generate(...PROMPTS[1]);
    await again.text();
    assert.deepEqual(again.tokens, expected[1].tokens);
  });
}

test('joined steps: a NaN behind a recurrent layer has its own position', async (t) => {
  const model = await open(t, hybrid);
  const [[prompt, options], [short]] = PROMPTS;
  const expected = (await aloneOf(model))[0].tokens;
  const context = await model.context();
  const { feed } = WasmBackend.prototype;
  /** @type {number[]} */
  const rows = [];
  // Only the text with the short prompt comes to position 3 in a step of single tokens.
  t.mock.method(
    WasmBackend.prototype,
    'feed',
    /** @this {WasmBackend} @param {any} x @param {any} block @param {any} at */
    function (x, block, at) {
      feed.call(this, x, block, at);
      const { position, start } = at.texts?.find((/** @type {any} */ one) => one.position === 3) ?? at;
      if (block.layer !== 0 || position !== 3) return;
      rows.push(at.nTokens);
      this.write(x, start, new Float32Array(x.nCols).fill(Number.NaN));
    },
  );
  const failing = (/** @type {Llama | LlamaContext} */ one) =>
    one
      .generate(short, { ...GREEDY, logits: never, maxTokens: 9 })
      .text()
      .then(String, (error) => error);
  const alone = await failing(model);
  const other = model.generate(prompt, options);
  const [error] = await Promise.all([failing(context), other.text()]);
  assert.deepEqual(rows, [1, 2]);
  assert.equal(error.message, alone.message);
  assert.deepEqual({ ...error }, { ...alone });
  assert.equal(error.position, 3);
  assert.deepEqual(other.tokens, expected);
});

test('joined steps: errors of hooks and full contexts are those of their texts', async (t) => {
  const model = await open(t, dense);
  const expected = await aloneOf(model);
  const small = await model.context({ contextLength: 9 });
  const writers = [model, small, await model.context(), await model.context()];
  let n = 0;
  const failing = writers[3].generate([5, 5], {
    ...GREEDY,
    logits: () => {
      if (++n === 5) throw new Error('my own');
    },
  });
  const full = small.generate([7], { ...PROMPTS[1][1], maxTokens: 50 });
  const others = [0, 2].map((i) => writers[i].generate(...PROMPTS[i]));
  const [error] = await Promise.all([
    failing.text().catch((reason) => reason.message),
    ...[full, ...others].map((one) => one.text()),
  ]);
  assert.equal(error, 'my own');
  assert.equal(failing.tokens.length, 4);
  assert.equal(full.stats.finishReason, 'context');
  assert.deepEqual(full.tokens, expected[1].tokens.slice(0, 9));
  for (const [at, i] of [0, 2].entries()) assert.deepEqual(others[at].tokens, expected[i].tokens);
});

test('joined steps: texts that follow schemas, and texts that begin later', async (t) => {
  const model = await Llama.load(TINY_TALES, { ...EXACT, threads: 1, isa: 'scalar', contextLength: 64 });
  t.after(() => model.dispose());
  const writers = await writersOf(model, 3);
  const schema = { type: 'array', items: { enum: ['fox', 'owl'] }, minItems: 2, maxItems: 3 };
  const responseFormat = /** @type {any} */ ({ type: 'json_schema', schema });
  const make = (/** @type {Llama | LlamaContext} */ one, /** @type {number} */ i) =>
    one.generate(
      ['Once upon a time', 'A list:', 'The fox'][i],
      i === 1 ? { temperature: 1, seed: 5, maxTokens: 24, responseFormat } : { ...GREEDY, maxTokens: 20 },
    );
  const expected = [];
  for (const i of writers.keys()) expected.push(await make(model, i).text());
  assert.ok(JSON.parse(expected[1]).length >= 2);
  const rows = countPasses(t);
  const [first, second, third] = writers.map(make);
  for (let i = 0; i < 4; i++) await first.next();
  const [a, b] = [first.text(), second.text()];
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(await Promise.all([a, b, third.text()]), expected);
  assert.ok(rows.includes(2) && rows.includes(3), `${rows}`);
});

test('joined steps: a text that is alone takes as many turns of the loop as without contexts', async (t) => {
  const model = await open(t, /** @type {ArrayBuffer} */ (makeModel({}).bytes.buffer));
  const ticksOf = async () => {
    const run = model.generate([5, 6], { ...GREEDY, maxTokens: 12 });
    let ticks = 0;
    let isOver = false;
    const reading = (async () => {
      for await (const _ of run);
      isOver = true;
    })();
    for (; !isOver && ticks < 1e5; ticks++) await null;
    await reading;
    return ticks;
  };
  await ticksOf();
  // No pass takes so long that it pauses.
  t.mock.method(performance, 'now', () => 1);
  const immediate = t.mock.method(globalThis, 'setImmediate');
  const joined = t.mock.method(JoinedSteps.prototype, 'next');
  const before = await ticksOf();
  const context = await model.context();
  assert.equal(await ticksOf(), before);
  await context.generate([5], { ...GREEDY, maxTokens: 2 }).text();
  assert.equal(await ticksOf(), before);
  assert.deepEqual([immediate.mock.callCount(), joined.mock.callCount()], [0, 0]);
});

test('joined steps: without memory for logits, and with more contexts than a step takes', async (t) => {
  const backend = new ReferenceBackend({ batch: 16, part: 16 });
  const model = await open(t, dense, backend);
  const expected = await aloneOf(model);
  const writers = await writersOf(model, 4);
  const { tensor } = backend;
  const full = t.mock.method(backend, 'tensor', () => {
    throw new MemoryError('full', { asked: 3, inUse: 2, limit: 4 });
  });
  const all = async (/** @type {readonly (Llama | LlamaContext)[]} */ some) => {
    const runs = some.map((one, i) => one.generate(...PROMPTS[i % 4]));
    await Promise.all(runs.map((run) => run.text()));
    for (const [i, run] of runs.entries()) assert.deepEqual(run.tokens, expected[i % 4].tokens);
  };
  await all(writers);
  full.mock.restore();
  assert.equal(backend.tensor, tensor);
  const { workspace } = model.info.memory;
  backend.calls.length = 0;
  await all([...writers, ...(await Promise.all(Array.from({ length: 15 }, () => model.context())))]);
  const nPasses = backend.calls.filter((call) => call === 'embed').length;
  assert.ok(nPasses <= 19 + 2 * 17 + 8, `${nPasses}`);
  assert.equal(model.info.memory.workspace, workspace + 4 * 16 * 40);
});

/** Dense, windowed, recurrent, experts, latent attention, and inputs of layers. */
const MODELS = ['qwen3-A', 'gemma3-A', 'lfm2-A', 'qwen35-A', 'falcon-h1-A', 'qwen3moe-A', 'gpt-oss-A'];
for (const name of [...MODELS, 'deepseek2-A', 'gemma4-A']) {
  const skip = skipWithout(`arch/models/${name}.gguf`);
  test(`joined steps: ${name}`, { skip }, async (t) => {
    const model = await Llama.load(dataPath(`arch/models/${name}.gguf`), {
      ...EXACT,
      ...{ threads: 1, contextLength: 96 },
    });
    t.after(() => model.dispose());
    const prompts = [[5, 6, 7, 8, 9], [100], Array.from({ length: 40 }, (_, i) => 50 + i), [300, 4, 300]];
    const options = { ...GREEDY, maxTokens: 12 };
    const expected = [];
    for (const prompt of prompts) {
      const run = model.generate(prompt, options);
      await run.text();
      expected.push(run.tokens);
    }
    const writers = await writersOf(model, 4);
    const rows = countPasses(t);
    const runs = prompts.map((prompt, i) => writers[i].generate(prompt, options));
    await Promise.all(runs.map((run) => run.text()));
    assert.deepEqual(
      runs.map(({ tokens }) => tokens),
      expected,
    );
    assert.ok(rows.filter((n) => n === 4).length >= 8, `${rows}`);
  });
}

test('joined steps: a model that is disposed at any moment ends all its texts', async (t) => {
  for (let ticks = 0; ticks < 24; ticks++) {
    const model = await open(t, ticks % 2 ? hybrid : dense);
    const runs = (await writersOf(model, 4)).map((one, i) => one.generate(...PROMPTS[i]));
    const ends = runs.map((run) => run.text().then(String, (error) => error));
    for (let i = 0; i < ticks; i++) await new Promise((resolve) => setImmediate(resolve));
    model.dispose();
    for (const [i, end] of (await Promise.all(ends)).entries()) {
      if (typeof end === 'string') continue;
      assert.ok(end instanceof HandleError, `text ${i} after ${ticks}: ${end}`);
      assert.match(end.message, /this (model|context) is disposed/, `text ${i} after ${ticks}`);
    }
  }
});

test('joined steps: more contexts than the hidden states have rows', async (t) => {
  const options = /** @type {const} */ ({ ...EXACT, contextLength: 8, threads: 1, isa: 'scalar' });
  const model = await Llama.load(dense, options);
  t.after(() => model.dispose());
  const make = (/** @type {Llama | LlamaContext} */ one) => one.generate([5, 6], { ...GREEDY, maxTokens: 5 });
  const alone = make(model);
  await alone.text();
  const runs = (await writersOf(model, 10)).map(make);
  await Promise.all(runs.map((run) => run.text()));
  for (const { tokens } of runs) assert.deepEqual(tokens, alone.tokens);
});
