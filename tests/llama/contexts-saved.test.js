/**
 * Contexts that are saved and copied: whatever went before, what is restored goes on exactly as the
 * context that was saved. Bytes that are damaged or belong elsewhere are refused, and leave nothing.
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
  SavedContextError,
} from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { TestContext } from 'node:test' */
/** @import { KvType, LlamaContext } from '../../js/llama/index.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */

const SEED = Number(process.env.FM_TEST_SEED ?? 20261129);
const GREEDY = { temperature: 0, ignoreEnd: true };
const EXACT = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
const PROMPT = 'Once upon a time';
/** Bytes of a saved context before its header. */
const HEADER_FROM = 20;

const hybrid = makeHybrid([true, false, true], { context: 64 }).bytes.buffer;

/**
 * @typedef {{ name: string, load: (length?: number) => Promise<Llama>, nVocab: number, length: number,
 *   skip?: string | false }} Case
 */

/** @param {string} name @param {number} length @param {KvType} [kvType] @returns {Case} */
const real = (name, length, kvType = 'F16') => ({
  name: `${name}, ${kvType}`,
  nVocab: 512,
  length,
  skip: skipWithout(`arch/models/${name}.gguf`),
  load: (contextLength = length) =>
    Llama.load(dataPath(`arch/models/${name}.gguf`), { threads: 1, contextLength, kvType }),
});

/** @param {string} name @param {object} options @returns {Case} */
const recorded = (name, options) => ({
  name,
  nVocab: 40,
  length: 64,
  load: (contextLength = 64) =>
    Llama.loadTo(async () => new ReferenceBackend(options), hybrid, { ...EXACT, contextLength }),
});

/** @type {Case} */
const TINY = {
  name: 'tiny-tales',
  nVocab: 768,
  length: 128,
  load: (contextLength = 128) => Llama.load(TINY_TALES, { threads: 1, contextLength }),
};

/** @type {Case[]} */
const CASES = [
  TINY,
  real('lfm2-A', 96),
  real('qwen35-A', 96, 'F32'),
  real('falcon-h1-A', 96),
  real('granitehybrid-A', 96),
  // Longer than the window and a batch, so that positions leave the caches.
  real('gemma3-A', 700),
  real('gemma2-A', 700, 'Q8_0'),
  {
    ...TINY,
    name: 'two devices',
    load: (contextLength = 128) =>
      Llama.load(TINY_TALES, {
        threads: 1,
        contextLength,
        backend: [{ backend: 'cpu', layers: 2 }, { backend: 'cpu' }],
      }),
  },
  recorded('a device that queues its work', { batch: 5, part: 2 }),
  recorded('a device with tokens in flight', { ahead: 3 }),
];

/** @param {TestContext} t @param {Case} one @param {number} [length] */
async function open(t, { load }, length) {
  const model = await load(length);
  t.after(() => model.dispose());
  return model;
}

/** A text at random, some of which may break off. @param {Prng} prng @param {Case} one @param {readonly number[]} past */
function draw(prng, { nVocab, length }, past) {
  const random = (/** @type {number} */ n) => Array.from({ length: n }, () => prng.int(3, nVocab - 1));
  const kept = prng.int(0, 3) > 0 ? past.length : prng.int(0, past.length);
  const more = prng.int(0, 5) === 0 ? Math.floor(length / 2) : prng.int(1, 6);
  const prompt = [...past.slice(0, kept), ...random(more)].slice(-(length - 12));
  const drawn = { temperature: 1.2, topK: 0, seed: prng.int(0, 1000) };
  /** @type {GenerateOptions} */
  const options = { ...(prng.int(0, 1) ? drawn : { temperature: 0 }), logprobs: 2, ignoreEnd: true };
  return { prompt, options: { ...options, maxTokens: prng.int(1, 9) } };
}

/** @param {LlamaContext} context @param {ReturnType<typeof draw>} text */
async function write(context, { prompt, options }) {
  const run = context.generate(prompt, options);
  const text = await run.text();
  const { reusedTokens, finishReason } = run.stats;
  return { text, tokens: run.tokens, logprobs: run.logprobs, reusedTokens, finishReason };
}

for (const one of CASES) {
  const { name, skip = false, length } = one;
  test(`saved contexts: what is restored goes on as if nothing had happened: ${name}`, {
    skip,
  }, async (t) => {
    const prng = new Prng(SEED);
    const [model, other] = [await open(t, one), await open(t, one)];
    const counts = { saved: 0, reused: 0, empty: 0, broken: 0 };
    let [context, nTokens] = [await model.context(), 0];
    for (let round = 0; round < 24; round++) {
      const what = `round ${round}, seed ${SEED}`;
      const first = draw(prng, one, context.tokens);
      if (prng.int(0, 5) === 0) context.clear();
      else if (prng.int(0, 2) > 0) await write(context, first);
      else {
        // Left in the middle: tokens may be on their way.
        const run = context.generate(first.prompt, first.options);
        for (let i = prng.int(0, 3); i > 0; i--) await run.next();
        run.cancel();
        counts.broken += 1;
      }
      const bytes = await context.save();
      const { tokens } = context;
      if (tokens.length === 0) counts.empty += 1;
      const copies = [
        await model.restoreContext(bytes),
        await other.restoreContext(new Uint8Array([1, ...bytes]).subarray(1)),
        await context.fork(),
      ];
      const all = [context, ...copies];
      for (const copy of all) {
        assert.deepEqual(copy.tokens, tokens, what);
        assert.equal(copy.contextLength, length);
        assert.deepEqual(await copy.save(), bytes, what);
      }
      for (let i = 0; i < 2; i++) {
        const text = draw(prng, one, context.tokens);
        const results = [];
        for (const copy of all) results.push(await write(copy, text));
        for (const result of results) assert.deepEqual(result, results[0], what);
        if (results[0].reusedTokens > 0) counts.reused += 1;
      }
      nTokens = Math.max(nTokens, context.tokens.length);
      // Another one goes on.
      const next = prng.int(0, 3) === 0 ? all[1] : all[prng.int(0, 1) * 3];
      for (const copy of all) if (copy !== next) copy.dispose();
      context = next;
      counts.saved += 1;
    }
    t.diagnostic(`ran: ${name}: ${nTokens} tokens, ${JSON.stringify(counts)}`);
    assert.ok(nTokens > length / 2 && counts.reused > 10 && counts.empty > 0 && counts.broken > 1);
  });
}

/** @param {Promise<unknown>} promise @param {string} what */
async function refusal(promise, what) {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof SavedContextError, `${what}: ${error}`);
    assert.equal(error.code, 'FM_SAVED_CONTEXT');
    return error;
  }
  return assert.fail(`${what} was taken`);
}

/** CRC-32, bit by bit. @param {Uint8Array} bytes */
function crc(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}

/** @param {Uint8Array} bytes @param {(header: any) => void} change  of the header; the checksum is put right */
function resealed(bytes, change) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const end = HEADER_FROM + view.getUint32(16, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(HEADER_FROM, end)));
  change(header);
  const text = new TextEncoder().encode(JSON.stringify(header));
  const out = Uint8Array.from([...bytes.subarray(0, HEADER_FROM), ...text, ...bytes.subarray(end)]);
  const to = new DataView(out.buffer);
  to.setUint32(16, text.length, true);
  to.setUint32(12, crc(out.subarray(16)), true);
  return out;
}

/** @param {TestContext} t @param {ArrayBufferLike} source @param {KvType} [kvType] */
async function small(t, source, kvType = 'F32') {
  const fm = await createKernels({ threads: 1 });
  const options = /** @type {const} */ ({ activation: 'f32' });
  const model = await Llama.load(/** @type {ArrayBuffer} */ (source), {
    ...options,
    kvType,
    kernels: fm,
    contextLength: 40,
  });
  t.after(() => {
    model.dispose();
    fm.dispose();
  });
  return { fm, model };
}

const TOKENS = [1, 17, 5, 30, 9, 9, 22];

test('saved contexts: damaged bytes are refused, wherever they are damaged, and leave nothing', async (t) => {
  const { fm, model } = await small(t, hybrid);
  const context = await model.context();
  const text = { prompt: TOKENS, options: { ...GREEDY, maxTokens: 5 } };
  const expected = await write(context, text);
  const bytes = await context.save();
  const { inUse } = fm.memory();
  const header = HEADER_FROM + new DataView(bytes.buffer).getUint32(16, true);
  const prng = new Prng(SEED);
  const places = Array.from({ length: header }, (_, i) => i);
  for (let i = 0; i < 200; i++) places.push(prng.int(header, bytes.length - 1));
  places.push(bytes.length - 1);
  for (const at of places) {
    const changed = bytes.slice();
    changed[at] ^= at % 3 === 0 ? 1 << prng.int(0, 7) : prng.int(1, 255);
    const { reason } = await refusal(model.restoreContext(changed), `a changed byte ${at}`);
    assert.equal(reason, at >= 8 && at < 12 ? 'version' : 'damaged');
  }
  const lengths = [...Array(header + 40).keys(), bytes.length - 1];
  for (let i = 0; i < 50; i++) lengths.push(prng.int(header, bytes.length - 1));
  for (const length of lengths) {
    const { reason } = await refusal(model.restoreContext(bytes.slice(0, length)), `${length} bytes`);
    assert.equal(reason, 'damaged');
  }
  await refusal(model.restoreContext(Uint8Array.from([...bytes, 0])), 'a byte more');
  /** @type {[string, (header: any) => void][]} */
  const changes = [
    ['no tokens', (h) => delete h.nTokens],
    ['fewer tokens', (h) => (h.nTokens -= 1)],
    ['negative tokens', (h) => (h.nTokens = -1)],
    ['a context of no length', (h) => (h.contextLength = 0)],
    ['more tokens than its length', (h) => (h.contextLength = 3)],
    ['no parts', (h) => (h.parts = [])],
    ['parts that are none', (h) => (h.parts = 5)],
    ['part of nothing', (h) => (h.parts[0] = null)],
    ['a size', (h) => (h.parts[0].size = 1e9)],
    [
      'sizes that add up',
      (h) => {
        h.parts[0].size -= 4;
        h.parts[1].size += 4;
      },
    ],
    ['parts in another order', (h) => h.parts.unshift(h.parts.pop())],
    ['no positions', (h) => (h.parts[1].at = [])],
    ['a negative position', (h) => (h.parts[1].at = [-1])],
    ['a later position', (h) => (h.parts[1].at = [3])],
    ['a broken position', (h) => (h.parts[0].at = [1.5, 0])],
    ['one position of a state', (h) => (h.parts[0].at = [2])],
    ['a part twice', (h) => h.parts.push({ at: [0], size: 0 })],
  ];
  for (const [what, change] of changes) {
    const { reason } = await refusal(model.restoreContext(resealed(bytes, change)), what);
    assert.equal(reason, 'damaged', what);
  }
  const token = resealed(bytes, () => {});
  assert.deepEqual(token, bytes, 'the checksum is that of zlib');
  new DataView(token.buffer).setUint32(header, 40, true);
  assert.match(
    (await refusal(model.restoreContext(resealed(token, () => {})), 'a token')).message,
    /token 40 of a vocabulary of 40/,
  );
  assert.equal(fm.memory().inUse, inUse, 'nothing is left');
  assert.deepEqual({ ...(await write(context, text)), reusedTokens: 0 }, expected);
  assert.deepEqual((await model.restoreContext(bytes)).tokens.length, TOKENS.length + 4);
});

test('saved contexts: those of other models, types and versions are refused by name', async (t) => {
  const { model } = await small(t, hybrid);
  const context = await model.context();
  await write(context, { prompt: TOKENS, options: { ...GREEDY, maxTokens: 5 } });
  const bytes = await context.save();
  const wide = await small(t, hybrid, 'F16');
  const type = await refusal(wide.model.restoreContext(bytes), 'another type');
  assert.equal(type.reason, 'type');
  assert.match(type.message, /type "F32", the model was loaded with kvType F16/);
  const shorter = makeHybrid([true, true, false], { context: 64 }).bytes.buffer;
  const dense = makeModel({ nVocab: 40, context: 64 }).bytes.buffer;
  for (const [source, what] of /** @type {[ArrayBufferLike, RegExp][]} */ ([
    [shorter, /its layers is \d+, that of this model \d+/],
    [dense, /its architecture is "lfm2", that of this model "llama"/],
  ])) {
    const other = await small(t, source);
    const error = await refusal(other.model.restoreContext(bytes), 'another model');
    assert.equal(error.reason, 'model');
    assert.match(error.message, what);
  }
  for (const name of ['metadata', 'tensors', 'nEmbd', 'nVocab', 'nLayers']) {
    const error = await refusal(
      model.restoreContext(resealed(bytes, (header) => (header.model[name] += 1))),
      name,
    );
    assert.equal(error.reason, 'model');
    assert.ok(error.message.includes(`its ${name} is`));
  }
  const newer = bytes.slice();
  newer[8] = 2;
  const version = await refusal(model.restoreContext(newer), 'another version');
  assert.equal(version.reason, 'version');
  assert.match(version.message, /version 2, expected 1/);
});

test('saved contexts: a model with a context of another length takes them as far as they fit', async (t) => {
  const [model, longer, shorter] = [await open(t, TINY), await open(t, TINY, 200), await open(t, TINY, 24)];
  const context = await model.context({ contextLength: 60 });
  const text = { prompt: model.tokenize(PROMPT), options: { ...GREEDY, maxTokens: 14 } };
  await write(context, text);
  const bytes = await context.save();
  const nTokens = context.tokens.length;
  const more = { prompt: [...context.tokens, 17], options: { ...GREEDY, maxTokens: 5 } };
  const expected = await write(context, more);
  for (const [restored, length] of /** @type {[LlamaContext, number][]} */ ([
    [await longer.restoreContext(bytes), 60],
    [await longer.restoreContext(bytes, { contextLength: 200 }), 200],
    [await longer.restoreContext(bytes, { contextLength: nTokens + 6 }), nTokens + 6],
    [await shorter.restoreContext(bytes), 24],
  ])) {
    assert.equal(restored.contextLength, length);
    assert.deepEqual(await write(restored, more), expected);
  }
  await assert.rejects(model.restoreContext(bytes, { contextLength: nTokens - 1 }), {
    code: 'FM_CONTEXT',
    got: nTokens,
    expected: nTokens - 1,
  });
  await assert.rejects(shorter.restoreContext(bytes, { contextLength: 25 }), ArgumentError);
  await assert.rejects(model.restoreContext(bytes, /** @type {any} */ ({ length: 25 })), ArgumentError);
  for (const wrong of [undefined, 'bytes', bytes.buffer, [...bytes]])
    await assert.rejects(model.restoreContext(/** @type {any} */ (wrong)), /must be a Uint8Array, got/);
});

test('saved contexts: a system prompt is computed once', async (t) => {
  const absent = skipWithout('arch/models/lfm2-A.gguf');
  if (absent) return t.skip(absent);
  const model = await open(t, real('lfm2-A', 96));
  const system = model.tokenize('a prompt that all conversations begin with');
  const first = await model.context();
  await first.generate(system, { maxTokens: 1 }).text();
  for (const token of [30, 31, 32]) {
    const [fork, alone] = [await first.fork(), await model.context()];
    const text = { prompt: [...system, token, 7], options: { ...GREEDY, maxTokens: 6 } };
    const [got, expected] = [await write(fork, text), await write(alone, text)];
    assert.equal(got.reusedTokens, system.length);
    assert.deepEqual(got.tokens, expected.tokens);
    fork.dispose();
    alone.dispose();
  }
  assert.deepEqual(first.tokens, system);
});

test('saved contexts: one call at a time, aborts, what is disposed, and memory', async (t) => {
  const { fm, model } = await small(t, hybrid);
  const context = await model.context();
  const run = context.generate(TOKENS, { ...GREEDY, maxTokens: 5 });
  await run.next();
  await assert.rejects(context.save(), (error) => error instanceof BusyError && error.holder === 'generate');
  await assert.rejects(context.fork(), BusyError);
  const [waiting, forking] = [context.save({ queue: true }), context.fork({ queue: true })];
  await run.text();
  const [bytes, fork] = [await waiting, await forking];
  assert.deepEqual(fork.tokens, context.tokens);
  assert.deepEqual(await fork.save(), bytes);
  const saving = context.save();
  await assert.rejects(
    context.generate(TOKENS).next(),
    (error) => error instanceof BusyError && error.holder === 'save',
  );
  await saving;
  const aborted = AbortSignal.abort(new Error('no more'));
  await assert.rejects(context.save({ signal: aborted }), /no more/);
  await assert.rejects(context.fork({ signal: aborted }), /no more/);
  await assert.rejects(model.restoreContext(bytes, { signal: aborted }), /no more/);
  await assert.rejects(context.save(/** @type {any} */ ({ sginal: 1 })), /did you mean "signal"/);
  const { inUse } = fm.memory();
  const late = new AbortController();
  const stopped = [
    context.fork({ signal: late.signal }),
    model.restoreContext(bytes, { signal: late.signal }),
  ];
  late.abort(new Error('too late'));
  for (const one of stopped) await assert.rejects(one, /too late/);
  assert.equal(fm.memory().inUse, inUse);
  const none = t.mock.method(fm, 'kvCache', () => {
    throw new MemoryError('full', { asked: 3, inUse: 2, limit: 4 });
  });
  await assert.rejects(context.fork(), MemoryError);
  await assert.rejects(model.restoreContext(bytes), MemoryError);
  none.mock.restore();
  assert.equal(fm.memory().inUse, inUse);
  fork.dispose();
  await assert.rejects(fork.save(), HandleError);
  await assert.rejects(fork.fork(), HandleError);
  const last = context.save();
  model.dispose();
  await assert.rejects(last, /this model is disposed/);
  await assert.rejects(model.restoreContext(bytes), /this model is disposed/);
});
