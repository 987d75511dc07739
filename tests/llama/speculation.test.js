/**
 * Speculation: with any drafts, right or wrong, a text has the tokens and the log probabilities that it has
 * without, to the bit. The clock stands still in most tests, so that drafts are always worth a try.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, Llama, MemoryError } from '../../js/llama/index.js';
import { Lookup } from '../../js/llama/lookup.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { KvCache } from '../../js/wasm/kv-cache.js';
import { makeAdapter, shapesOf } from '../helpers/adapters.js';
import { DEEP, SEED, sampled } from '../helpers/drawn.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { TestContext } from 'node:test' */
/** @import { LlamaContext } from '../../js/llama/index.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */

const ONCE = 'Once upon a time, there was a little fox. The fox had a red ball. The fox had a red ball. The';
const SPECULATE = /** @type {const} */ ({ speculate: 'lookup' });
/** Ways to choose tokens that have nothing in common. @type {GenerateOptions[]} */
const WAYS = [
  { temperature: 0 },
  { temperature: 0.8, seed: 7 },
  { temperature: 1.4, seed: 3, topK: 0, topP: 1, minP: 0 },
  { temperature: 0, repeatPenalty: 1.2, frequencyPenalty: 0.3 },
  { temperature: 0.9, seed: 11, presencePenalty: 0.5, repeatWindow: 8 },
];

/** The way with the largest penalties. */
const PENALTIES = 3;

/** Stops the clock, so that all passes take the same time. @param {TestContext} t */
const stopClock = (t) => t.mock.method(performance, 'now', () => 1);

/**
 * Drafts that are right as often as asked for.
 * @param {TestContext} t
 * @param {readonly number[]} tokens  the whole text
 * @param {{ share: number, prng: Prng, nVocab: number }} how
 */
function draftFrom(t, tokens, { share, prng, nVocab }) {
  return t.mock.method(
    Lookup.prototype,
    'find',
    /** @this {Lookup} @param {number} most */
    function (most) {
      const rest = tokens.slice(this.length, this.length + most);
      while (rest.length < most) rest.push(prng.int(0, nVocab - 1));
      return { tokens: rest.map((id) => (prng.unit() < share ? id : prng.int(0, nVocab - 1))), matched: 8 };
    },
  );
}

/** @param {Llama | LlamaContext} model @param {any} prompt @param {GenerateOptions} options */
async function write(model, prompt, options) {
  // Otherwise the prompt would be known, and only its last token computed, with other bits.
  if (model instanceof Llama) await model.logits([2]);
  else model.clear();
  const run = model.generate(prompt, { ignoreEnd: true, ...options });
  const text = await run.text();
  return { text, tokens: run.tokens, logprobs: run.logprobs, stats: run.stats };
}

/** @param {Awaited<ReturnType<typeof write>>} got @param {Awaited<ReturnType<typeof write>>} expected @param {string} [what] */
function assertSame({ text, tokens, logprobs, stats }, expected, what) {
  assert.deepEqual(
    { text, tokens, logprobs, end: stats.finishReason },
    {
      text: expected.text,
      tokens: expected.tokens,
      logprobs: expected.logprobs,
      end: expected.stats.finishReason,
    },
    what,
  );
}

/** @param {Parameters<typeof makeModel>[0]} spec */
const bytesOf = (spec) => /** @type {ArrayBuffer} */ (makeModel(spec).bytes.buffer);

test('speculation: the longest match gives the draft, the latest of equal ones', () => {
  const found = (/** @type {number[]} */ tokens, most = 3) => new Lookup(tokens).find(most);
  assert.equal(found([]), undefined);
  assert.equal(found([1]), undefined);
  assert.equal(found([1, 2, 3, 2]), undefined);
  assert.deepEqual(found([1, 2, 3, 4, 5, 1, 2]), { tokens: [3, 4, 5], matched: 2 });
  // 9 1 2 is longer than the later 8 1 2.
  assert.deepEqual(found([9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2]), { tokens: [3, 8, 1], matched: 3 });
  assert.deepEqual(found([7, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2]), { tokens: [4, 9, 1], matched: 2 });
  // A repetition goes on behind the end.
  assert.deepEqual(found([6, 1, 2, 1, 2], 5), { tokens: [1, 2, 1, 2, 1], matched: 2 });
  assert.deepEqual(found([5, 5, 5, 5], 2), { tokens: [5, 5], matched: 3 });
});

test(`speculation: lookup against a plain search, seed ${SEED}`, () => {
  const prng = new Prng(SEED);
  for (let round = 0; round < 300; round++) {
    const tokens = Array.from({ length: prng.int(2, 40) }, () => prng.int(0, 4));
    const lookup = new Lookup(tokens.slice(0, tokens.length >> 1));
    for (const token of tokens.slice(tokens.length >> 1)) lookup.push(token);
    const end = tokens.length - 1;
    let [best, matched] = [0, 1];
    for (let at = end - 1; at > 0; at--) {
      let n = 0;
      while (n <= at && n < 32 && tokens[at - n] === tokens[end - n]) n += 1;
      if (n > matched) [best, matched] = [at, n];
    }
    const draft = lookup.find(4);
    assert.equal(draft?.matched ?? 1, matched, `${tokens}`);
    if (!draft) continue;
    const whole = [...tokens];
    for (let i = 0; i < 4; i++) whole.push(whole[best + 1 + i]);
    assert.deepEqual(draft.tokens, whole.slice(tokens.length), `${tokens}`);
  }
});

test('speculation: the same text with an adapter, on the embedding too', async (t) => {
  const adapter = makeAdapter({ shapes: await shapesOf(TINY_TALES), rank: 8, alpha: 1 });
  for (const activation of /** @type {const} */ (['f32', 'int16', 'int8'])) {
    const adapters = [{ source: adapter, scale: 0.5 }];
    const model = await Llama.load(TINY_TALES, { adapters, activation, threads: 1, contextLength: 160 });
    t.after(() => model.dispose());
    const options = { temperature: 0, maxTokens: 40, logprobs: 2 };
    const expected = await write(model, ONCE, options);
    const whole = [...model.tokenize(ONCE), ...expected.tokens];
    const clock = stopClock(t);
    const mock = draftFrom(t, whole, { share: 0.9, prng: new Prng(SEED), nVocab: 512 });
    const drafted = await write(model, ONCE, { ...options, ...SPECULATE });
    mock.mock.restore();
    clock.mock.restore();
    assert.ok(drafted.stats.acceptedTokens > 5, `${activation}: ${drafted.stats.acceptedTokens} accepted`);
    assertSame(drafted, expected, activation);
  }
});

for (const { isa, dot, label, skip } of libraryVariants) {
  for (const activation of /** @type {const} */ (['f32', 'int16', 'int8'])) {
    test(`speculation: ${label} ${activation}, the same text with right and wrong drafts, seed ${SEED}`, {
      skip,
    }, async (t) => {
      const model = await Llama.load(TINY_TALES, { isa, dot, activation, threads: 1, contextLength: 160 });
      t.after(() => model.dispose());
      stopClock(t);
      const prng = new Prng(SEED);
      const nVocab = 512;
      const ways = [...WAYS.entries()];
      for (const [i, way] of [
        ways[PENALTIES],
        ...sampled(
          ways.filter(([at]) => at !== PENALTIES),
          1,
        ),
      ]) {
        const options = { ...way, maxTokens: 48, logprobs: 2 };
        const expected = await write(model, ONCE, options);
        const whole = [...model.tokenize(ONCE), ...expected.tokens];
        const looked = await write(model, ONCE, { ...options, ...SPECULATE });
        assertSame(looked, expected, `way ${i}`);
        for (const share of [1, 0.7]) {
          const mock = draftFrom(t, whole, { share, prng, nVocab });
          const drafted = await write(model, ONCE, { ...options, ...SPECULATE });
          mock.mock.restore();
          assertSame(drafted, expected, `way ${i}, ${share} of the drafts right`);
          const { draftedTokens, acceptedTokens } = drafted.stats;
          assert.ok(draftedTokens >= 30, `${draftedTokens}`);
          if (share === 1) assert.ok(acceptedTokens >= 40, `${acceptedTokens} of ${draftedTokens}`);
          else assert.ok(acceptedTokens > 5 && acceptedTokens < draftedTokens, `${acceptedTokens}`);
        }
      }
    });
  }
}

/** Dense, windowed, with experts, latent attention, sinks, and inputs of layers. */
const MODELS = ['qwen3-A', 'gemma3-A', 'qwen3moe-A', 'gpt-oss-A', 'deepseek2-A', 'gemma4-A'];
for (const name of MODELS) {
  const skip = skipWithout(`arch/models/${name}.gguf`);
  for (const activation of DEEP
    ? /** @type {const} */ (['f32', 'int16', 'int8'])
    : sampled(/** @type {const} */ (['f32', 'int16', 'int8']), 1)) {
    test(`speculation: ${name} ${activation}, seed ${SEED}`, { skip }, async (t) => {
      const file = dataPath(`arch/models/${name}.gguf`);
      const model = await Llama.load(file, { activation, threads: 1, contextLength: 128 });
      t.after(() => model.dispose());
      stopClock(t);
      const prng = new Prng(SEED);
      const prompt = Array.from({ length: 40 }, (_, i) => 50 + (i % 20));
      for (const [i, way] of WAYS.slice(0, 2).entries()) {
        const options = { ...way, maxTokens: 60, logprobs: 1 };
        const expected = await write(model, prompt, options);
        assertSame(await write(model, prompt, { ...options, ...SPECULATE }), expected, `way ${i}`);
        const mock = draftFrom(t, [...prompt, ...expected.tokens], { share: 0.8, prng, nVocab: 300 });
        const drafted = await write(model, prompt, { ...options, ...SPECULATE });
        mock.mock.restore();
        assertSame(drafted, expected, `way ${i}, drafts`);
        assert.ok(drafted.stats.acceptedTokens > 20, `${drafted.stats.acceptedTokens}`);
      }
    });
  }
}

test('speculation: random models in several types, on one thread and on three', async (t) => {
  stopClock(t);
  for (const [seed, type] of ['Q4_0', 'Q8_0', 'F16', 'Q5_1', 'IQ4_NL'].entries()) {
    const bytes = bytesOf({ type, qkType: type, seed, nVocab: 64, nEmbd: 128, nFf: 320, context: 96 });
    for (const threads of [1, 3]) {
      const model = await Llama.load(bytes, { threads, contextLength: 96 });
      for (let first = 5; first < 60; first += 25) {
        const options = { temperature: 0, maxTokens: 80, logprobs: 0 };
        const expected = await write(model, [first, 4, first], options);
        const drafted = await write(model, [first, 4, first], { ...options, ...SPECULATE });
        assertSame(drafted, expected, `${type}, ${threads} threads, ${first}`);
      }
      model.dispose();
    }
  }
});

test('speculation: hooks, schemas, stop texts and ends see the same tokens', async (t) => {
  const model = await Llama.load(TINY_TALES, { threads: 1, contextLength: 128 });
  t.after(() => model.dispose());
  stopClock(t);
  const schema = { type: 'array', items: { enum: ['fox', 'fox and owl'] }, minItems: 4, maxItems: 6 };
  /** @type {number[][]} */
  const seen = [[], []];
  const hookOf =
    (/** @type {number} */ i) =>
    (/** @type {Float32Array} */ row, /** @type {readonly number[]} */ tokens) => {
      seen[i].push(tokens.length, row[5]);
      row[tokens[tokens.length - 2]] += 0.5;
    };
  /** @type {((i: number) => GenerateOptions)[]} */
  const cases = [
    (i) => ({ temperature: 0, maxTokens: 40, logits: hookOf(i) }),
    (i) => ({ temperature: 0.8, seed: 4, maxTokens: 40, logits: hookOf(i), logprobs: 1 }),
    () => ({
      temperature: 1,
      seed: 5,
      maxTokens: 60,
      ignoreEnd: false,
      responseFormat: { type: 'json_schema', schema },
    }),
    () => ({ temperature: 0, maxTokens: 60, stop: 'ball. The' }),
    () => ({ temperature: 0.8, seed: 2, maxTokens: 90, ignoreEnd: false }),
    () => ({ temperature: 0, maxTokens: 500 }),
  ];
  for (const [i, options] of cases.entries()) {
    const expected = await write(model, ONCE, options(0));
    // The context holds the text afterwards, which goes on without being computed again.
    const again = [...model.tokenize(ONCE), ...expected.tokens].slice(0, 100);
    const after = async () => {
      const run = model.generate(again, { temperature: 0, maxTokens: 8, ignoreEnd: true, logprobs: 0 });
      await run.text();
      return { tokens: run.tokens, logprobs: run.logprobs, reused: run.stats.reusedTokens };
    };
    const plain = await after();
    const drafted = await write(model, ONCE, { ...options(1), ...SPECULATE });
    assertSame(drafted, expected, `case ${i}`);
    assert.ok(drafted.stats.draftedTokens > 0 || i === 4, `case ${i}`);
    assert.deepEqual(await after(), plain, `after case ${i}`);
    assert.ok(plain.reused > 20, `after case ${i}: ${plain.reused}`);
  }
  assert.deepEqual(seen[1], seen[0]);
});

test('speculation: fewer passes where a text repeats itself', async (t) => {
  const model = await Llama.load(TINY_TALES, { threads: 1, contextLength: 256 });
  t.after(() => model.dispose());
  stopClock(t);
  /** @type {number[]} */
  const rows = [];
  const { feed } = WasmBackend.prototype;
  t.mock.method(
    WasmBackend.prototype,
    'feed',
    /** @this {WasmBackend} @param {any} x @param {any} block @param {any} at */ function (x, block, at) {
      if (block.layer === 0) rows.push(at.nTokens);
      return feed.call(this, x, block, at);
    },
  );
  const prompt = 'The fox had a red ball. '.repeat(6);
  const always = (/** @type {Float32Array} */ row, /** @type {readonly number[]} */ tokens) => {
    row[tokens[tokens.length - 8]] += 100;
  };
  const { tokens, stats } = await write(model, prompt, {
    temperature: 0,
    maxTokens: 80,
    logits: always,
    ...SPECULATE,
  });
  t.diagnostic(`ran: ${rows.length} passes for ${tokens.length} tokens: ${rows}`);
  // One for the start from scratch and one for the prompt; then the passes that 78 tokens take if drafts
  // are right, and some single tokens before the text repeats itself.
  assert.ok(rows.length <= 2 + Math.ceil(78 / 16) + 6, `${rows}`);
  assert.equal(
    stats.draftedTokens,
    rows.slice(2).reduce((sum, n) => sum + n - 1, 0),
  );
  assert.ok(stats.acceptedTokens >= 60, `${stats.acceptedTokens}`);
});

test('speculation: what cannot draft says so, and writes as ever', async (t) => {
  stopClock(t);
  const options = { temperature: 0, maxTokens: 20 };
  const hybrid = /** @type {ArrayBuffer} */ (
    makeHybrid([true, false], { nVocab: 40, context: 64, tied: false }).bytes.buffer
  );
  const recurrent = await Llama.load(hybrid, { threads: 1, isa: 'scalar' });
  t.after(() => recurrent.dispose());
  const queued = await Llama.loadTo(
    async () => new ReferenceBackend({ batch: 16, part: 16 }),
    bytesOf({}),
    {},
  );
  t.after(() => queued.dispose());
  const full = await Llama.load(bytesOf({}), { threads: 1, isa: 'scalar' });
  t.after(() => full.dispose());
  for (const [model, reason] of /** @type {const} */ ([
    [recurrent, 'recurrent'],
    [queued, 'device'],
    [full, 'memory'],
  ])) {
    const expected = await write(model, [5, 6, 5, 6, 5], options);
    assert.equal(expected.stats.notDrafted, undefined);
    if (model === full)
      t.mock.method(WasmBackend.prototype, 'tensor', () => {
        throw new MemoryError('full', { asked: 3, inUse: 2, limit: 4 });
      });
    const got = await write(model, [5, 6, 5, 6, 5], { ...options, ...SPECULATE });
    assertSame(got, expected, reason);
    assert.equal(got.stats.notDrafted, reason);
    assert.equal(got.stats.draftedTokens, 0);
  }
  assert.throws(
    () => full.generate([5], { speculate: /** @type {any} */ ('draft') }),
    (error) =>
      error instanceof ArgumentError && /speculate must be 'lookup', got "draft"/.test(error.message),
  );
});

test('speculation: wrong numbers of a wrong draft are no error', async (t) => {
  stopClock(t);
  const BAD = 39;
  const change = (/** @type {any[]} */ tensors) =>
    tensors.map((one) => {
      if (one.name !== 'token_embd.weight') return one;
      const values = new Float32Array(one.data.slice().buffer);
      values.fill(Number.NaN, BAD * 64, (BAD + 1) * 64);
      return { ...one, data: new Uint8Array(values.buffer) };
    });
  const model = await Llama.load(bytesOf({ nVocab: 40, change }), { threads: 1, isa: 'scalar' });
  t.after(() => model.dispose());
  const logits = (/** @type {Float32Array} */ row) => void row.fill(Number.NEGATIVE_INFINITY, BAD);
  const options = { temperature: 0, maxTokens: 30, logits };
  const expected = await write(model, [5, 6, 7], options);
  t.mock.method(Lookup.prototype, 'find', (/** @type {number} */ most) => ({
    tokens: Array(most).fill(BAD),
    matched: 9,
  }));
  const got = await write(model, [5, 6, 7], { ...options, ...SPECULATE });
  assertSame(got, expected);
  assert.equal(got.stats.acceptedTokens, 0);
});

test('speculation: contexts that write at the same time, and one that is aborted', async (t) => {
  const model = await Llama.load(TINY_TALES, { threads: 1, contextLength: 128 });
  t.after(() => model.dispose());
  stopClock(t);
  const writers = [model, await model.context(), await model.context()];
  const prompts = [ONCE, `${ONCE} fox`, 'A red ball, a red ball, a'];
  const options = { temperature: 0, maxTokens: 40, ignoreEnd: true, ...SPECULATE };
  const expected = [];
  for (const prompt of prompts)
    expected.push((await write(model, prompt, { temperature: 0, maxTokens: 40 })).tokens);
  const runs = writers.map((one, i) => one.generate(prompts[i], options));
  // The first begins alone.
  for (let i = 0; i < 6; i++) await runs[0].next();
  await Promise.all(runs.map((run) => run.text()));
  for (const [i, run] of runs.entries()) assert.deepEqual(run.tokens, expected[i], `${i}`);
  const abort = new AbortController();
  const ended = writers[1].generate(prompts[0], { ...options, signal: abort.signal });
  for (let i = 0; i < 5; i++) await ended.next();
  abort.abort(new Error('enough'));
  await assert.rejects(ended.text(), /enough/);
  assertSame(await write(writers[1], prompts[0], options), await write(model, prompts[0], options));
});

test('speculation: a window whose cache moves below drafts', async (t) => {
  const name = 'arch/models/gemma3-A.gguf';
  if (skipWithout(name)) return t.skip(String(skipWithout(name)));
  const model = await Llama.load(dataPath(name), { threads: 1, contextLength: 700 });
  t.after(() => model.dispose());
  stopClock(t);
  const prompt = Array.from({ length: 500 }, (_, i) => 50 + (i % 37));
  const options = { temperature: 0, maxTokens: 120, logprobs: 0 };
  const expected = await write(model, prompt, options);
  const prng = new Prng(5);
  const moved = t.mock.method(KvCache.prototype, 'keep');
  const mock = draftFrom(t, [...prompt, ...expected.tokens], { share: 0.9, prng, nVocab: 300 });
  assertSame(await write(model, prompt, { ...options, ...SPECULATE }), expected);
  mock.mock.restore();
  assert.ok(moved.mock.callCount() > 0);
});
