/**
 * Recurrent layers: their states follow whatever the context does. Random series of calls on one
 * model, some of which are aborted or fail in the middle of a pass, are compared with a model that
 * computes every text from its beginning.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { openGguf } from '../../js/gguf/index.js';
import { ARCHITECTURES } from '../../js/llama/architectures/names.js';
import { NumericError } from '../../js/llama/index.js';
import { planModel } from '../../js/llama/plan.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import { Prng } from '../helpers/prng.js';
import { CONTEXT, GREEDY, load, SEED, walk } from '../helpers/recurrent-walk.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { dataPath, listData, skipWithout } from '../helpers/test-data.js';

/** @import { Llama } from '../../js/llama/index.js' */
/** @import { Model } from '../helpers/recurrent-walk.js' */

/** @type {Model[]} */
const MODELS = [
  { name: 'convolutions and attention', isRecurrent: [true, false, true] },
  { name: 'convolutions alone', isRecurrent: [true, true] },
  { name: 'attention first', isRecurrent: [false, true] },
].map(({ name, isRecurrent }) => ({
  name,
  nVocab: 40,
  bytes: () => /** @type {ArrayBuffer} */ (makeHybrid(isRecurrent, { context: CONTEXT }).bytes.buffer),
}));

const absent = skipWithout('arch/models');
if (absent) test('recurrent: models of the test data', { skip: absent }, () => {});
for (const file of absent ? [] : listData('arch/models')) {
  const bytes = () => new Uint8Array(readFileSync(dataPath(`arch/models/${file}`))).buffer;
  const { metadata } = await openGguf(bytes());
  if (!Object.hasOwn(ARCHITECTURES, String(metadata['general.architecture']))) continue;
  if (!planModel(metadata).layers.some(({ recurrent }) => recurrent)) continue;
  MODELS.push({ name: file.replace(/\.gguf$/, ''), bytes, nVocab: 512 });
}

const SETTINGS = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
const onWasm = () => openWasmBackend(undefined, { isa: 'simd128', threads: 1 }, SETTINGS);

for (const model of MODELS) {
  for (const batch of [undefined, 3, 1]) {
    const label = batch ? `${batch} at a time` : 'at once';
    test(`recurrent: ${model.name}, ${label}: random calls, as from the beginning`, async (t) => {
      const one = await load(model, await onWasm(), batch ? { batch } : {});
      const { llama: fresh } = await load(model, await onWasm());
      t.after(() => [one.llama, fresh].forEach((llama) => void llama.dispose()));
      const prng = new Prng(SEED + (batch ?? 0));
      const counts = await walk(one, fresh, { prng, nVocab: model.nVocab, rounds: 80, limit: 1e-3 });
      t.diagnostic(`ran: ${model.name}, ${label}: ${JSON.stringify(counts)}`);
      for (const [what, n] of Object.entries(counts)) assert.ok(n > 3, `${what}: ${n}`);
    });
  }
}

test('recurrent: random calls on a backend that computes tokens ahead', async (t) => {
  for (const ahead of [undefined, 0, 3]) {
    const model = MODELS[0];
    const one = await load(model, new ReferenceBackend(ahead === undefined ? {} : { ahead }));
    const { llama: fresh } = await load(model, new ReferenceBackend());
    const prng = new Prng(SEED + (ahead ?? 9));
    const counts = await walk(one, fresh, { prng, nVocab: model.nVocab, rounds: 25, limit: 1e-9 });
    t.diagnostic(`ran: ${ahead} ahead: ${JSON.stringify(counts)}`);
    assert.ok(counts.checked > 20);
  }
});

test('recurrent: the same prompt again costs one token, its continuation only what is new', async (t) => {
  const { llama, seen } = await load(MODELS[0], await onWasm());
  t.after(() => llama.dispose());
  const prompt = [5, 9, 30, 12, 7, 7, 21, 33];
  const run = async (/** @type {number[]} */ tokens, maxTokens = 4) => {
    seen.passes = [];
    const generation = llama.generate(tokens, { ...GREEDY, maxTokens });
    await generation.text();
    return { passes: seen.passes, tokens: generation.tokens };
  };
  const first = await run(prompt);
  assert.deepEqual(first.passes, [8, 1, 1, 1]);
  const again = await run(prompt);
  assert.deepEqual(again, { passes: [1, 1, 1, 1], tokens: first.tokens });
  // The last token of an answer is not computed yet.
  const longer = [...prompt, ...first.tokens, 14, 15];
  assert.deepEqual((await run(longer, 1)).passes, [3]);
  // In the middle of what was seen there is no state.
  assert.deepEqual((await run([...prompt, 3], 1)).passes, [9]);
  assert.deepEqual((await run(prompt.slice(0, 5), 1)).passes, [5]);
});

test('recurrent: a copy of another text is no place to go on', async (t) => {
  const { llama, seen } = await load(MODELS[0], await onWasm());
  const { llama: fresh } = await load(MODELS[0], await onWasm());
  t.after(() => [llama, fresh].forEach((one) => void one.dispose()));
  const run = async (/** @type {Llama} */ model, /** @type {number[]} */ tokens, maxTokens = 1) => {
    seen.passes = [];
    const generation = model.generate(tokens, { ...GREEDY, maxTokens });
    await generation.text();
    return generation.tokens;
  };
  // The copy of this prompt has seen 4 tokens.
  await run(llama, [5, 9, 30, 12, 7]);
  // A text that grows one token at a time makes no copy.
  const written = await run(llama, [11], 6);
  const prompt = [11, ...written.slice(0, 3), 38];
  const tokens = await run(llama, prompt, 5);
  assert.equal(seen.passes[0], 5, 'nothing is left of the first prompt');
  assert.deepEqual(tokens, await run(fresh, prompt, 5));
});

test('recurrent: texts side by side give the vectors of each alone', async (t) => {
  const model = MODELS[0];
  for (const backend of [await onWasm(), new ReferenceBackend({ batch: 30, part: 30 })]) {
    const { llama } = await load(model, backend);
    t.after(() => llama.dispose());
    const letters = (/** @type {number[]} */ ids) => String.fromCharCode(...ids.map((id) => 0x4e00 + id));
    const texts = [[5, 9, 30], [7], [12, 12, 4, 33, 8], [21, 6]].map(letters);
    const together = await llama.embed(texts);
    for (const [i, text] of texts.entries()) {
      const alone = await llama.embed(text);
      const far = alone.findIndex((value, at) => Math.abs(value - together[i][at]) > 1e-5);
      assert.equal(far, -1, `text ${i}, value ${far}`);
    }
  }
});

test('recurrent: a NaN is reported with its layer, and nothing of it is left', async (t) => {
  const model = MODELS[0];
  const backend = await onWasm();
  const { llama, seen } = await load(model, backend);
  const { llama: fresh } = await load(model, await onWasm());
  t.after(() => [llama, fresh].forEach((one) => void one.dispose()));
  const { recur } = backend;
  let isBroken = true;
  backend.recur = (x, block, state, at) => {
    if (isBroken && block.layer === 2) {
      const weights = { ...block.weights, norm: broken };
      return recur.call(backend, x, { ...block, weights }, state, at);
    }
    return recur.call(backend, x, block, state, at);
  };
  const broken = backend.tensor({ nRows: 1, nCols: 32 });
  broken.set(new Float32Array(32).fill(Number.NaN));
  const prompt = [5, 9, 30];
  const options = { ...GREEDY, maxTokens: 3 };
  await assert.rejects(llama.generate(prompt, options).text(), (error) => {
    assert.ok(error instanceof NumericError, String(error));
    assert.deepEqual([error.part, error.layer], ['recurrent', 2]);
    return true;
  });
  isBroken = false;
  const [run, expected] = [llama.generate(prompt, options), fresh.generate(prompt, options)];
  assert.equal(await run.text(), await expected.text());
  assert.ok(seen.chosen.length > 0);
  // After the first tokens, where no state of that position is left to look again.
  isBroken = true;
  await assert.rejects(llama.generate([...prompt, ...run.tokens, 8], options).text(), (error) => {
    assert.ok(error instanceof NumericError, String(error));
    assert.deepEqual([error.part, error.layer], ['recurrent', 2]);
    return true;
  });
});
