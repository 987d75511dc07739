/**
 * The GPU kernels in Chromium and Firefox on a Vulkan driver that computes on the processor: drawn
 * weight types against float64, in a page with the optional features that there are, and in a worker
 * without any. tests/gpu has every type.
 */
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { activations } from '../helpers/activations.js';
import { makeWeights } from '../helpers/blocks.js';
import { ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { DEEP, SEED, sampled, softwareVulkan } from '../helpers/gpu.js';
import { GPU_TYPES } from '../helpers/gpu-weights.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';
import { CHROMIUM_FLAGS, CHROMIUM_GPU_FLAGS, skipWithoutChromium } from './helpers.js';
import { CHROMIUM, FIREFOX, openSelfDriven, StartError } from './self-driven.js';

/** @import { ReferenceType } from '../helpers/reference.js' */
/** @import { Engine, Opened } from './self-driven.js' */

const PAGE = 'tests/browser/fixtures/gpu.html';
/** Weights that are drawn for each engine and place; no two get the same. */
const DRAWN = 2;
const u = 2 ** -24;
const driver = softwareVulkan();

/** @type {Engine} */
const CHROMIUM_GPU = {
  ...CHROMIUM,
  async command(folder) {
    const words = await CHROMIUM.command(folder);
    return [...words.filter((word) => !CHROMIUM_FLAGS.includes(word)), ...CHROMIUM_GPU_FLAGS];
  },
};

/** @type {Engine} */
const FIREFOX_GPU = {
  ...FIREFOX,
  settings: {
    'dom.webgpu.enabled': true,
    'dom.webgpu.workers.enabled': true,
    'gfx.webgpu.ignore-blocklist': true,
    'gfx.webrender.software': true,
    // The driver is a file that the sandbox of Firefox's GPU process does not know.
    'security.sandbox.gpu.level': 0,
  },
  ...('skip' in driver ? {} : { environment: driver.environment }),
};

/**
 * Rows that fill no tile, and products by each kind of kernel: for one token, for a few and for many. The second shape has sums
 * over parts of its columns.
 * @type {{ names: string[], nRows: number, nCols: number, tokens: number[] }[]}
 */
const SHAPES = [
  {
    names: GPU_TYPES,
    nRows: 19,
    nCols: 512,
    tokens: [1, 5, 40],
  },
  { names: ['Q4_K'], nRows: 6, nCols: 2048, tokens: [1] },
];

const base64 = (/** @type {ArrayBufferView} */ { buffer, byteOffset, byteLength }) =>
  Buffer.from(buffer, byteOffset, byteLength).toString('base64');
const floats = (/** @type {string} */ text) =>
  new Float32Array(Uint8Array.from(Buffer.from(text, 'base64')).buffer);

const CASES = SHAPES.flatMap(({ names, ...shape }) => names.map((name) => ({ name, ...shape })));

/** @param {typeof CASES[0]} shape */
function makeCase({ name, nRows, nCols, tokens }) {
  const type = /** @type {ReferenceType} */ (referenceByName.get(name));
  const prng = new Prng(4000 + type.id);
  const bytes = makeWeights(type, 'natural', nRows, nCols, prng);
  const weight = new ReferenceWeight(type, bytes, nRows, nCols);
  const batches = tokens.map((nTokens) => activations.gaussian(nTokens, nCols, prng));
  return {
    what: `${name} ${nRows}x${nCols}`,
    weight,
    products: batches.map((x, i) => new ReferenceProduct(weight, x, tokens[i])),
    sent: { type: name, nRows, nCols, weights: base64(bytes), batches: batches.map(base64) },
  };
}

/** @param {ReturnType<typeof makeCase>} expected @param {{ values: string, products: string[] }} answer */
function check({ what, weight: { values, masses }, products }, answer) {
  for (const [i, product] of products.entries()) {
    const of = `${what} for ${product.nTokens}`;
    product.check(floats(answer.products[i]), { activation: 0, what: of });
  }
  const got = floats(answer.values);
  assert.equal(got.length, values.length);
  for (const [i, value] of got.entries()) {
    // d * scale, times the code, d * min, their difference: four roundings, of terms whose sum is the mass.
    const bound = 4 * u * masses[i] * (1 + 8 * u);
    const error = Math.abs(value - values[i]);
    assert.ok(error <= bound, `${what}: value ${i} is ${value}, float64 gives ${values[i]}, bound ${bound}`);
  }
}

/** @param {Engine} engine */
function skipOf({ name, version, lacks }) {
  if (name === 'Chromium') return skipWithoutChromium();
  if (!version) return lacks;
  return 'skip' in driver ? driver.skip : false;
}

/** @type {{ place: 'page' | 'worker', what: string, features?: string[] }[]} */
const PLACES = [
  { place: 'page', what: 'with the optional features that there are' },
  { place: 'worker', what: 'without optional features', features: [] },
];

const ENGINES = [CHROMIUM_GPU, FIREFOX_GPU];
const drawn = sampled(CASES, DRAWN * PLACES.length * ENGINES.length);

for (const [e, engine] of ENGINES.entries()) {
  const { name, version } = engine;

  describe(`WebGPU in ${name}`, { skip: skipOf(engine) }, () => {
    /** @type {Opened | undefined} */
    let opened;
    /** @type {Error | undefined} */
    let failure;

    before(async () => {
      try {
        opened = await openSelfDriven(engine, { folder: projectRoot, page: PAGE });
      } catch (error) {
        failure = /** @type {Error} */ (error);
      }
    });
    after(() => opened?.close());

    for (const [p, { place, what, features }] of PLACES.entries()) {
      const first = DRAWN * (PLACES.length * e + p);
      const shapes = DEEP ? drawn : drawn.slice(first, first + DRAWN);
      const names = shapes.map(({ name: type, nRows, nCols }) => `${type} ${nRows}x${nCols}`).join(', ');
      const which = DEEP ? 'all weights' : `${names}, seed ${SEED},`;
      test(`WebGPU in ${name}, ${place}: ${which} against float64, ${what}`, async (t) => {
        if (failure instanceof StartError) return t.skip(failure.message.split('\n')[0]);
        if (failure) throw failure;
        const call = (/** @type {string} */ method, /** @type {unknown} */ argument = {}) =>
          opened?.evaluate(`return gpuCall('${place}', '${method}', ${JSON.stringify(argument)});`);
        const { info, lacks } = await call('open', features && { features });
        if (lacks) return t.skip(`${name} ${version}, ${place}: ${lacks}`);
        assert.equal(info.software, true);
        if (features) assert.deepEqual(info.features, features);
        for (const shape of shapes) {
          const made = makeCase(shape);
          check(made, await call('multiply', made.sent));
        }
        const { lost, left } = await call('close');
        assert.deepEqual([lost, left], [undefined, 0]);
        const used = info.features.join(', ') || 'no optional features';
        t.diagnostic(`ran: GPU kernels in ${name} ${version}, ${place}: ${info.adapter.name}, ${used}`);
      });
    }

    test(`WebGPU in ${name}: a model writes what it writes on the CPU`, async (t) => {
      if (failure instanceof StartError) return t.skip(failure.message.split('\n')[0]);
      if (failure) throw failure;
      const call = (/** @type {string} */ method, /** @type {unknown} */ argument = {}) =>
        opened?.evaluate(`return gpuCall('page', '${method}', ${JSON.stringify(argument)});`);
      const { lacks } = await call('open');
      if (lacks) return t.skip(`${name} ${version}: ${lacks}`);
      const prompt = 'Once upon a time';
      const options = { temperature: 0, maxTokens: 24, ignoreEnd: true };
      const url = `/${path.relative(projectRoot, TINY_TALES)}`;
      const { tokens, ms } = await call('generate', { url, prompt, options, skip: 12 });
      await call('close');
      const model = await Llama.load(TINY_TALES, { threads: 1, activation: 'f32' });
      const run = model.generate(prompt, options);
      await run.text();
      model.dispose();
      assert.deepEqual(tokens, run.tokens);
      t.diagnostic(`ran: a model on a GPU in ${name} ${version}, ${ms.toFixed(1)} ms a token`);
    });

    test(`WebGPU in ${name}: nothing of this was reported on the console`, (t) => {
      if (!opened) return t.skip('it did not start');
      assert.deepEqual(opened.problems, []);
    });
  });
}
