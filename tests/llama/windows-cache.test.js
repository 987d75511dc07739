/**
 * Layers with a window keep only the latest positions. Their results are compared with plain float64
 * JavaScript, which keeps all, over texts that are longer than what is kept.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cachedPositions } from '../../js/llama/cached-positions.js';
import { Llama } from '../../js/llama/index.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import { LARGEST_BATCH } from '../../js/wasm/fit.js';
import { LayerCache } from '../../js/wasm/layer-cache.js';
import { close } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

const WINDOW = 8;
const CONTEXT = 2000;
const N_VOCAB = 40;
const made = makeModel({ nVocab: N_VOCAB, context: CONTEXT, nEmbd: 32, nFf: 32, nHeads: 2 });

/** Loads the model with a window in its second layer. @param {any} backend */
function load(backend) {
  const { lacks } = backend;
  backend.lacks = (/** @type {any} */ plan, /** @type {any[]} */ ...more) => {
    plan.layers[1].attention.window = WINDOW;
    return lacks.call(backend, plan, ...more);
  };
  const options = /** @type {const} */ ({ activation: 'f32', kvType: 'F32', contextLength: CONTEXT });
  return Llama.loadTo(async () => backend, made.bytes.buffer, options);
}

const onWasm = async () =>
  load(
    await openWasmBackend(undefined, { isa: 'simd128', threads: 1 }, { activation: 'f32', kvType: 'F32' }),
  );

/** @param {Prng} prng @param {number} n */
const randomTokens = (prng, n) => Array.from({ length: n }, () => prng.int(3, N_VOCAB - 1));

test('windows: logits of a text that is longer than what is kept', async () => {
  const tokens = randomTokens(new Prng(1), 1300);
  const model = await onWasm();
  const reference = await load(new ReferenceBackend());
  close(await model.logits(tokens), await reference.logits(tokens), 1e-5, 'logits');
  model.dispose();
  reference.dispose();
});

test('windows: texts that go back to earlier ones, against a model that keeps everything', async () => {
  const prng = new Prng(2);
  const model = await onWasm();
  const reference = await load(new ReferenceBackend());
  let text = [1, ...randomTokens(prng, 700)];
  const reused = [];
  for (let round = 0; round < 12; round++) {
    const kept = round % 3 === 0 ? text.length : prng.int(1, text.length - 1);
    text = [...text.slice(0, kept), ...randomTokens(prng, prng.int(1, 40))];
    const options = { maxTokens: prng.int(1, 30), temperature: 0, ignoreEnd: true };
    const [run, expected] = [model.generate(text, options), reference.generate(text, options)];
    await run.text();
    await expected.text();
    assert.deepEqual(run.tokens, expected.tokens, `round ${round}, ${kept} of the text kept`);
    reused.push({ kept, tokens: run.stats.reusedTokens });
    text = [...text, ...run.tokens];
  }
  // Both happened: what is needed was there, and it was not.
  assert.ok(reused.some(({ kept, tokens }) => tokens >= kept - 1 && kept > 1));
  assert.ok(reused.some(({ kept, tokens }) => tokens === 0 && kept > 1));
  model.dispose();
  reference.dispose();
});

test('windows: which layers keep fewer positions', () => {
  const of = (/** @type {number} */ window, causal = true) => cachedPositions({ window, causal }, 32768, 512);
  assert.equal(of(0), 32768);
  assert.equal(of(512), 1024);
  assert.equal(of(40000), 32768);
  // A token sees later ones too: all are needed at once.
  assert.equal(of(512, false), 32768);
});

test('windows: a position that is gone is an error, not another position', () => {
  /** @type {number[][]} */
  const moves = [];
  const part = { nPositions: 20, keep: (/** @type {number[]} */ ...range) => moves.push(range) };
  const [keys, values] = /** @type {any[]} */ ([{ ...part }, { ...part }]);
  const cache = new LayerCache(keys, values, 4);
  assert.equal(cache.rowFor(0, 16), 0);
  assert.equal(cache.rowFor(16, 16), 3);
  assert.equal(cache.first, 13);
  assert.deepEqual(moves, [
    [13, 16],
    [13, 16],
  ]);
  assert.equal(cache.rowFor(16, 1), 3);
  assert.throws(() => cache.rowFor(15, 1), /position 12 is not in the cache any more; it begins at 13/);
  assert.equal(cache.rowFor(0, 1), 0);
});

const absent = skipWithout('arch/models/gemma3-A.gguf');

test('windows: memory of gemma3 at 32768 positions', { skip: absent }, async () => {
  const path = dataPath('arch/models/gemma3-A.gguf');
  const model = await Llama.load(path, { contextLength: 32768, threads: 1 });
  const { nLayers, nKvHeads, headSize, memory } = model.info;
  const full = nLayers * 32768 * 2 * nKvHeads * headSize * 2;
  assert.ok(memory.kvCache <= full / 4, `${memory.kvCache} of ${full} bytes`);
  // One layer sees all positions, the others the window of 8 and a batch.
  assert.equal(memory.kvCache, (full / nLayers) * (1 + ((nLayers - 1) * (8 + LARGEST_BATCH)) / 32768));
  assert.ok(memory.linear < full / 2);
  model.dispose();
});
