/** The most memory that loading takes in Chromium: the weights and 16 MB, as in Node (tests/wasm/load-peak.test.js). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedBytes, ggufBytes } from '../helpers/gguf-bytes.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { peakOf, skipWithoutPeaks } from './peak.js';

const MB = 2 ** 20;
const LIMIT = 16 * MB;
const WEIGHTS = 128 * MB;
const skip = skipWithoutPeaks();

/** A little tensor, and those that count. */
function modelBytes() {
  const tensors = [{ name: 'little', typeId: 0, shape: [256, 256], data: countedBytes(256 * 1024) }];
  const large = { typeId: 0, shape: [256, 16 * 1024], data: countedBytes(16 * MB) };
  for (let i = 0; i < WEIGHTS / (16 * MB); i++) tensors.push({ ...large, name: `t${i}` });
  return ggufBytes({ tensors }).bytes;
}

/** What is made once, such as compiled code, is no part of it. */
const LOADING = `
  const { create, from } = Object.fromEntries(new URLSearchParams(location.search));
  const library = await import('/js/index.js');
  const fm = await library[create]();
  const whole = from === 'blob' && (await (await fetch('/model.gguf', { cache: 'no-store' })).blob());
  const gguf = await library.openGguf(whole || '/model.gguf', { cache: from === 'cache' });
  const [first, ...names] = gguf.tensors.keys();
  (await fm.loadWeight(gguf, first)).free();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await say('ready');
  const weights = await fm.loadWeights(gguf, names);
  await say({ loaded: weights.reduce((n, w) => n + w.byteLength, 0), cached: gguf.cached });`;

/** @type {{ title: string, create: string, from: string, headers?: Record<string, string>, rate?: number, visits?: number }[]} */
const CASES = [
  { title: 'at 40 MB a second', create: 'createKernels', from: 'url', rate: 20 },
  { title: 'at 40 MB a second, in a worker', create: 'createWorkerKernels', from: 'url', rate: 20 },
  {
    title: 'as fast as can be, of what is not to be stored',
    create: 'createKernels',
    from: 'url',
    headers: { 'cache-control': 'no-store' },
  },
  { title: 'from a Blob', create: 'createKernels', from: 'blob' },
  { title: 'from the cache', create: 'createKernels', from: 'cache', visits: 2 },
];

/**
 * The least of a few measurements: where the machine is busy the page falls behind the network, and Chromium keeps what comes.
 * @param {number} limit  where it ends early
 * @param {() => Promise<number>} measure
 */
async function least(limit, measure) {
  let found = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3 && found > limit; i++) found = Math.min(found, await measure());
  return found;
}

for (const { title, create, from, headers, rate, visits } of CASES) {
  test(`loading ${title} takes the weights and 16 MB at most`, { skip }, async (t) => {
    const over = await least(LIMIT, async () => {
      const { loaded, cached, error, before, now, peak } = await peakOf(t, {
        body: LOADING,
        search: `?create=${create}&from=${from}`,
        bytes: modelBytes(),
        headers,
        behaviour: { rate },
        visits,
      });
      assert.equal(error, undefined);
      assert.equal(loaded, WEIGHTS);
      if (from === 'cache') assert.ok((cached?.hits ?? 0) >= WEIGHTS, `only ${cached?.hits} from the cache`);
      const grown = now - before;
      assert.ok(grown >= 0.9 * WEIGHTS, `only ${grown / MB} MB more: the weights are not counted`);
      return peak - before - WEIGHTS;
    });
    t.diagnostic(`ran: loading ${title}: MB beyond the weights ${(over / MB).toFixed(1)}`);
    assert.ok(over <= LIMIT, `${over / MB} MB beyond the weights`);
  });
}

/** Text from a model as wide as one of a billion parameters, the library and its threads included. */
const WRITING = `
  const whole = await (await fetch('/model.gguf', { cache: 'no-store' })).blob();
  await new Promise((resolve) => setTimeout(resolve, 2000));
  await say('ready');
  const { Llama } = await import('/js/llama/index.js');
  const model = await Llama.load(whole);
  const prompt = Array.from({ length: 300 }, (_, i) => 3 + (i % 97));
  for await (const _ of model.generate(prompt, { maxTokens: 32, ignoreEnd: true, seed: 1 }));
  await say(model.info.memory);`;

test('a page that writes text takes file, KV cache and 32 MB', { skip }, async (t) => {
  const wide = { nEmbd: 2048, nFf: 5632, nLayers: 1, nHeads: 32, nKvHeads: 8, nVocab: 2000, context: 512 };
  const { bytes } = makeModel({ ...wide, type: 'Q4_K', qkType: 'Q4_K' });
  const limit = 32e6;
  const over = await least(limit, async () => {
    const { weights, kvCache, error, before, peak } = await peakOf(t, { body: WRITING, bytes });
    assert.equal(error, undefined);
    assert.ok(weights > 25 * MB, `${weights} bytes of weights`);
    return peak - before - bytes.length - kvCache;
  });
  t.diagnostic(`ran: a page that writes: MB beyond file and KV cache ${(over / 1e6).toFixed(1)}`);
  assert.ok(over <= limit, `${over / 1e6} MB beyond file and KV cache`);
});
