/**
 * Tokens in flight: a backend that queues its work computes tokens ahead of the one that is read.
 * Whatever ends a text, the model is as if they had been computed one by one. The backend is plain
 * float64 JavaScript.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama, NumericError } from '../../js/llama/index.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { GenerateOptions } from '../../js/llama/options.js' */
/** @import { Spec } from '../helpers/synthetic-llama.js' */

const SEED = Number(process.env.FM_TEST_SEED ?? 23);
const SMALL = { nEmbd: 16, nFf: 24, nHeads: 2, nKvHeads: 1, nLayers: 2, context: 32 };
const PROMPT = [1, 17, 5, 30];
const GREEDY = { temperature: 0, ignoreEnd: true };

/**
 * @param {Spec} spec
 * @param {ConstructorParameters<typeof ReferenceBackend>[0]} [options]
 */
async function open(spec, options) {
  const backend = new ReferenceBackend(options);
  const model = await Llama.loadTo(async () => backend, makeModel(spec).bytes.buffer);
  return { backend, model };
}

/** A text as a model without flight writes it. @param {Spec} spec @param {readonly number[]} prompt @param {GenerateOptions} options */
async function expected(spec, prompt, options) {
  const { model } = await open(spec);
  const run = model.generate(prompt, options);
  const text = await run.text();
  return { text, tokens: run.tokens, finish: run.stats.finishReason };
}

/** A number of turns of the loop, as a device takes them. @param {Prng} prng */
const lateBy = (prng) => async () => {
  for (let left = prng.int(0, 2); left > 0; left--) await new Promise((resolve) => setImmediate(resolve));
};

test('flight: the same text for any number of tokens ahead, and none computed that cannot be needed', async () => {
  const whole = await expected(SMALL, PROMPT, { ...GREEDY, maxTokens: 100 });
  assert.equal(whole.finish, 'context');
  assert.equal(whole.tokens.length, SMALL.context - PROMPT.length + 1);
  for (const ahead of [0, 1, 2, 7, 50]) {
    const { backend, model } = await open(SMALL, { ahead });
    for (const maxTokens of [1, 2, 9, 100]) {
      const run = model.generate(PROMPT, { ...GREEDY, maxTokens });
      backend.calls.length = 0;
      await run.text();
      const n = Math.min(maxTokens, whole.tokens.length);
      assert.deepEqual(run.tokens, whole.tokens.slice(0, n), `${ahead} ahead`);
      assert.equal(run.stats.tokens, n);
      assert.ok(run.stats.promptMs <= run.stats.timeToFirstToken);
      const passes = backend.calls.filter((name) => name === 'embed').length;
      const ofPrompt = Math.ceil((PROMPT.length - run.stats.reusedTokens) / 3);
      assert.equal(passes, ofPrompt + n - 1, `${ahead} ahead, ${maxTokens} tokens`);
    }
  }
});

test('flight: passes are queued before the first token is read', async () => {
  const { backend, model } = await open(SMALL, { ahead: 3 });
  const run = model.generate(PROMPT, { ...GREEDY, maxTokens: 20 });
  await run.next();
  const picks = () => backend.calls.filter((name) => name === 'pick').length;
  assert.equal(picks(), 4);
  await run.next();
  assert.equal(picks(), 5);
  run.cancel();
});

test('flight: whatever ends a text, the next one is that of a new model', async () => {
  const prng = new Prng(SEED);
  const whole = await expected(SMALL, PROMPT, { ...GREEDY, maxTokens: 12 });
  // An end token and stop strings that come in the middle of what is in flight.
  const spec = {
    ...SMALL,
    pairs: {
      'tokenizer.ggml.eos_token_id': /** @type {[string, 'u32', number]} */ ([
        'tokenizer.ggml.eos_token_id',
        'u32',
        whole.tokens[7],
      ]),
    },
  };
  const { model } = await open(spec, { ahead: 3, late: lateBy(prng) });
  /** @type {Record<string, number>} */
  const ends = {};
  let prompt = PROMPT;
  for (let i = 0; i < 60; i++) {
    /** @type {GenerateOptions} */
    const options = { temperature: 0, maxTokens: prng.int(1, 12), ignoreEnd: prng.unit() < 0.5 };
    const how = prng.pick(['read', 'stop', 'cancel', 'break', 'abort', 'cancel while reading']);
    const controller = new AbortController();
    const should = await expected(spec, prompt, options);
    if (how === 'stop' && should.text) options.stop = prng.pick([...should.text]);
    const stopped = options.stop ? await expected(spec, prompt, options) : should;
    const run = model.generate(prompt, { ...options, signal: controller.signal });
    const where = `round ${i}, ${how}, seed ${SEED}`;
    const pieces = prng.int(0, 3);
    if (how === 'read' || how === 'stop') {
      assert.equal(await run.text(), stopped.text, where);
      assert.deepEqual(run.tokens, stopped.tokens, where);
      assert.equal(run.stats.finishReason, stopped.finish, where);
      ends[String(run.stats.finishReason)] = (ends[String(run.stats.finishReason)] ?? 0) + 1;
    } else if (how === 'break') {
      let n = 0;
      for await (const _ of run) if (n++ === pieces) break;
    } else {
      for (let n = 0; n < pieces; n++) await run.next();
      const reading = how === 'cancel' ? undefined : run.text();
      await lateBy(prng)();
      if (how === 'abort') controller.abort(new Error('enough'));
      else run.cancel();
      reading?.catch(() => {});
      // The next one begins while the read is pending.
      const next = model.generate(PROMPT, { ...GREEDY, maxTokens: 5 });
      await next.text();
      assert.deepEqual(next.tokens, whole.tokens.slice(0, 5), where);
      await reading?.catch(() => {});
    }
    const { tokens } = run;
    assert.deepEqual(tokens, should.tokens.slice(0, tokens.length), where);
    // The next prompt goes on from here, or from somewhere before, or differs.
    const all = [...prompt, ...tokens];
    const kept = all.slice(0, prng.int(1, all.length));
    prompt = kept.length > 16 || prng.unit() < 0.2 ? PROMPT : [...kept, ...(prng.unit() < 0.5 ? [9] : [])];
  }
  for (const end of ['stop', 'end', 'length']) assert.ok(ends[end] > 0, `${end} was tried`);
});

test('flight: a NaN is found where it is, and only where a text comes to it', async () => {
  const whole = await expected(SMALL, PROMPT, { ...GREEDY, maxTokens: 12 });
  const at = whole.tokens.findIndex((token, i) => i > 3 && whole.tokens.indexOf(token) === i);
  const bad = whole.tokens[at];
  assert.ok(at > 0 && !PROMPT.includes(bad));
  /** @type {Spec} */
  const spec = {
    ...SMALL,
    change: (tensors) => {
      const table = tensors.find(({ name }) => name === 'token_embd.weight');
      const { data } = /** @type {NonNullable<typeof table>} */ (table);
      new DataView(data.buffer, data.byteOffset).setFloat32(4 * bad * SMALL.nEmbd, Number.NaN, true);
      return tensors;
    },
  };
  for (const ahead of [0, 1, 4]) {
    const { model } = await open(spec, { ahead, late: lateBy(new Prng(SEED)) });
    const run = model.generate(PROMPT, { ...GREEDY, maxTokens: 12 });
    await assert.rejects(run.text(), (error) => {
      assert.ok(error instanceof NumericError, String(error));
      assert.equal(error.part, 'embedding', `${ahead} ahead`);
      assert.equal(error.position, PROMPT.length + at);
      return true;
    });
    assert.deepEqual(run.tokens, whole.tokens.slice(0, at + 1));
    // A text that ends just before has computed it, perhaps, and nobody hears of it.
    const before = model.generate(PROMPT, { ...GREEDY, maxTokens: 30, stop: model.detokenize([bad]) });
    await before.text();
    assert.equal(before.stats.finishReason, 'stop');
    const again = model.generate(PROMPT, { ...GREEDY, maxTokens: at + 1 });
    await again.text();
    assert.deepEqual(again.tokens, whole.tokens.slice(0, at + 1));
  }
});

test('flight: the time of a token is that of the device, not of the reader', async () => {
  const sleep = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const [device, n] = [20, 8];
  let busy = Promise.resolve();
  const late = () => {
    busy = busy.then(async () => void (await sleep(device)));
    return busy;
  };
  for (const reader of [0, 60]) {
    const { model } = await open(SMALL, { ahead: 2, late });
    const run = model.generate(PROMPT, { ...GREEDY, maxTokens: n });
    const start = performance.now();
    for await (const _ of run) if (reader > 0) await sleep(reader);
    const wall = performance.now() - start;
    const { tokens, decodeMs, decodeTokensPerSecond } = run.stats;
    assert.equal(tokens, n);
    // Timers may be a millisecond early, and late by any time.
    assert.ok(decodeMs > (n - 1) * (device - 2), `${decodeMs} ms`);
    assert.ok(decodeMs <= wall, `${decodeMs} of ${wall} ms`);
    if (reader > 0)
      assert.ok(decodeMs < wall - ((n - 1) * (reader - device)) / 2, `${decodeMs} of ${wall} ms`);
    assert.ok(Math.abs(decodeTokensPerSecond - (1000 * (n - 1)) / decodeMs) < 1e-9);
  }
});
