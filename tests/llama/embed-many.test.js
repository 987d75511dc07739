/**
 * Embeddings of lists of texts, computed side by side, and vectors that are cut short. The reference
 * is each text alone; that one is compared with float64 in embed.test.js.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ArgumentError,
  BusyError,
  ContextError,
  createWorkerLlama,
  Llama,
  NumericError,
} from '../../js/llama/index.js';
import { distance } from '../helpers/llama.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { Pooling } from '../../js/llama/index.js' */
/** @import { Spec } from '../helpers/synthetic-llama.js' */

const exact = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });

/** @type {Record<string, import('../helpers/gguf-bytes.js').Pair>} */
const noBos = { 'tokenizer.ggml.add_bos_token': ['tokenizer.ggml.add_bos_token', 'bool', false] };

/** @param {number[]} letters  token ids in the synthetic vocabulary */
const textOf = (letters) => String.fromCharCode(...letters.map((token) => 0x4e00 + token));
/** Texts of these lengths, all different. @param {number[]} lengths */
const textsOf = (lengths) =>
  lengths.map((n, at) => textOf(Array.from({ length: n }, (_, i) => 3 + ((i * i + 7 * at + i) % 37))));

/** @param {import('node:test').TestContext} t @param {Spec} spec @param {object} [options] */
async function open(t, spec, options) {
  const model = await Llama.load(makeModel(spec).bytes.buffer, { ...exact, ...options });
  t.after(() => model.dispose());
  return model;
}

for (const causal of [true, false]) {
  const name = causal ? 'causal' : 'not causal';
  test(`embed: a list gives what each text gives alone, ${name}`, async (t) => {
    for (const kvType of ['F32', 'F16']) {
      const model = await open(t, { causal, context: 700, headSize: 32, nLayers: 3 }, { kvType });
      // More than one group, a text longer than a group, and the same text twice.
      const texts = textsOf([9, 1, 300, 2, 550, 40, 7, 200, 5, 120]);
      texts.push(texts[3]);
      for (const pooling of /** @type {Pooling[]} */ (['mean', 'cls', 'last', 'none'])) {
        const list = await model.embed(texts, { pooling });
        assert.equal(list.length, texts.length);
        for (const [i, text] of texts.entries()) {
          const { max } = distance(list[i], await model.embed(text, { pooling }));
          assert.ok(max < 2e-6, `${kvType}, ${pooling}, text ${i}: ${max}`);
        }
      }
      // A conversation after that begins anew.
      if (causal) {
        const fresh = await open(t, { causal, context: 700, headSize: 32, nLayers: 3 }, { kvType });
        const tokensOf = async (/** @type {Llama} */ of) => {
          const run = of.generate(texts[0], { maxTokens: 8, temperature: 0, ignoreEnd: true });
          await run.text();
          return run.tokens;
        };
        assert.deepEqual(await tokensOf(model), await tokensOf(fresh));
      }
      assert.deepEqual(await model.embed([]), []);
      assert.deepEqual(await model.embed([texts[1]]), [await model.embed(texts[1])]);
    }
  });

  test(`embed: short texts share forward passes, ${name}`, async (t) => {
    const backend = new ReferenceBackend({ batch: 16, part: 16 });
    const open = async () => backend;
    const model = await Llama.loadTo(open, makeModel({ causal, context: 64 }).bytes.buffer, {});
    t.after(() => model.dispose());
    const passes = () => backend.calls.filter((call) => call === 'embed').length;
    const texts = textsOf([3, 14, 2, 3, 30, 1]);
    const list = await model.embed(texts);
    // With BOS 2, 3, 4 and 4 tokens together, 15 alone, and 31 in one pass or in two.
    assert.equal(passes(), causal ? 4 : 3);
    backend.packs = false;
    for (const [i, vector] of (await model.embed(texts)).entries())
      assert.ok(distance(vector, list[i]).max < 1e-6, `text ${i}`);
    assert.equal(passes(), (causal ? 4 : 3) + (causal ? 7 : 6));
  });
}

test('embed: dimensions cut the vector before it is scaled', async (t) => {
  const model = await open(t, { nEmbd: 64 });
  const [text] = textsOf([5]);
  const raw = await model.embed(text, { normalize: false });
  assert.deepEqual(await model.embed(text, { normalize: false, dimensions: 10 }), raw.subarray(0, 10));
  const length = Math.hypot(...raw.subarray(0, 10));
  const cut = await model.embed(text, { dimensions: 10 });
  assert.ok(
    distance(
      cut,
      raw.subarray(0, 10).map((value) => value / length),
    ).max < 1e-6,
  );
  assert.ok(Math.abs(Math.hypot(...cut) - 1) < 1e-6);
  const rows = await model.embed(text, { pooling: 'none', normalize: false });
  const first = await model.embed(text, { pooling: 'none', normalize: false, dimensions: 3 });
  assert.equal(first.length, (rows.length / 64) * 3);
  assert.deepEqual(first.subarray(3, 6), rows.subarray(64, 67));
  for (const dimensions of [0, 65, 2.5, '8'])
    await assert.rejects(
      model.embed(text, { dimensions: /** @type {any} */ (dimensions) }),
      (error) =>
        error instanceof ArgumentError && /dimensions must be an integer from 1 to 64/.test(error.message),
    );
});

test('embed: wrong texts of a list are named', async (t) => {
  const model = await open(t, { context: 16, pairs: noBos });
  const bad = (/** @type {any} */ texts, /** @type {any} */ type, /** @type {RegExp} */ message) =>
    assert.rejects(
      model.embed(texts),
      (/** @type {any} */ error) => error instanceof type && message.test(error.message),
    );
  const [text, long] = textsOf([3, 17]);
  await bad([text, 5], ArgumentError, /texts\[1\] must be a string, got 5/);
  await bad({ length: 1, 0: text }, ArgumentError, /texts must be a string or a list of strings/);
  await bad([text, text, ''], ArgumentError, /texts\[2\] has no tokens/);
  await bad([text, long], ContextError, /texts\[1\] has 17 tokens, the context has room for 16/);
  const aborted = AbortSignal.abort(new Error('enough'));
  await assert.rejects(model.embed([text], { signal: aborted }), /enough/);
  const [one, other] = [model.embed([text, text]), model.embed(text)];
  await assert.rejects(other, (error) => error instanceof BusyError && error.holder === 'embed');
  assert.equal((await one).length, 2);
  const controller = new AbortController();
  const stopped = model.embed(Array(500).fill(text), { signal: controller.signal });
  setTimeout(() => controller.abort(new Error('stop')), 5);
  await assert.rejects(stopped, /stop/);
  assert.equal((await model.embed(text)).length, 64, 'the model is free again');
});

test('embed: a number that is none is reported at its place in its own text', async (t) => {
  // The embedding of token 20 is NaN.
  const model = await open(t, {
    change: (tensors) =>
      tensors.map((tensor) => {
        if (tensor.name !== 'token_embd.weight') return tensor;
        const data = tensor.data.slice();
        new Float32Array(data.buffer).fill(Number.NaN, 20 * 64, 21 * 64);
        return { ...tensor, data };
      }),
  });
  const texts = [textOf([5, 6, 7]), textOf([8, 9, 20, 10]), textOf([5])];
  await assert.rejects(
    model.embed(texts),
    (error) => error instanceof NumericError && error.position === 3 && error.part === 'embedding',
  );
});

test('embed: a worker takes lists too', async (t) => {
  const { bytes } = makeModel({ causal: false });
  const here = await Llama.load(bytes.buffer, { ...exact, threads: 1 });
  t.after(() => here.dispose());
  const there = await createWorkerLlama(bytes.buffer, { ...exact, threads: 1 });
  t.after(() => there.dispose());
  const texts = textsOf([4, 2, 9]);
  const options = { dimensions: 8 };
  assert.deepEqual(await there.embed(texts, options), await here.embed(texts, options));
  assert.deepEqual(await there.embed(texts[0]), await here.embed(texts[0]));
  await assert.rejects(there.rank('a', ['b']), /no ranking head/);
});
