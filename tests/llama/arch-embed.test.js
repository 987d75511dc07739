/**
 * The embedding models of the test data (`arch`), compared with llama.cpp: every instruction set, and
 * float64 JavaScript. Each setting that is ignored or mistaken must show in the vectors.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import {
  ABSENT,
  checkVectors,
  distances,
  embeddingModels,
  limitOf,
  maxOf,
  RARE_BIASES,
} from '../helpers/arch-embed.js';
import { changedGguf, floats } from '../helpers/changed-gguf.js';
import { checkLikeLlama, distance } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { dataPath } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { AttentionLayer, AttentionPlan as Plan } from '../../js/llama/plan.js' */
/** @import { Activation } from '../../js/wasm/selftest.js' */
/** @import { Model } from '../helpers/arch-embed.js' */

const absent = ABSENT;
if (absent) test('arch: embeddings of every architecture', { skip: absent }, () => {});
const models = embeddingModels();

/**
 * @param {Model} model
 * @param {{ variant: (typeof libraryVariants)[0], activation?: Activation,
 *   change?: (plan: Plan) => void }} run
 */
function load({ name }, { variant: { isa, dot }, activation = 'f32', change }) {
  const options = { activation, kvType: /** @type {const} */ ('F32') };
  const open = async () => {
    const backend = await openWasmBackend(undefined, { isa, dot, threads: 1 }, options);
    const { lacks } = backend;
    backend.lacks = (plan, tensors, settings) => {
      change?.(/** @type {Plan} */ (plan));
      return lacks.call(backend, plan, tensors, settings);
    };
    return backend;
  };
  return Llama.loadTo(open, dataPath(`arch/models/${name}.gguf`), options);
}

for (const model of models) {
  const { name, reference } = model;
  for (const variant of libraryVariants) {
    const { skip, label } = variant;
    test(`arch: embeddings of ${name}, ${label}`, { skip }, async (t) => {
      const llama = await load(model, { variant });
      t.after(() => llama.dispose());
      const max = await checkVectors(llama, model);
      t.diagnostic(`ran: ${name}: largest difference ${max.toExponential(1)}`);
    });
    test(`arch: embeddings of ${name}, int8, ${label}`, { skip }, async (t) => {
      const llama = await load(model, { variant, activation: 'int8' });
      t.after(() => llama.dispose());
      const theirs = reference.quantized_run;
      const found = await distances(llama, model);
      t.diagnostic(`ran: ${name}, int8: largest difference ${maxOf(found).toExponential(1)}`);
      checkLikeLlama(found, theirs, reference.tensor_types, variant.isa);
      assert.ok(maxOf(found) <= 1.5 * theirs.max_abs, `largest difference ${maxOf(found)}`);
    });
  }
  test(`arch: embeddings of ${name}, float64 JavaScript`, async (t) => {
    const open = async () => new ReferenceBackend();
    const llama = await Llama.loadTo(open, dataPath(`arch/models/${name}.gguf`), {});
    t.after(() => llama.dispose());
    await checkVectors(llama, model);
  });
}

test('arch: biases that few files have, against float64', { skip: absent }, async (t) => {
  const present = libraryVariants.filter(({ skip }) => !skip);
  const { isa, dot } = present.find((one) => one.isa === 'simd128') ?? present[0];
  for (const [i, [name, tensor, length]] of RARE_BIASES.entries()) {
    const prng = new Prng(i + 1);
    const tensors = [
      floats(
        tensor,
        [length],
        Array.from({ length }, () => prng.gaussian()),
      ),
    ];
    const bytes = await changedGguf(dataPath(`arch/models/${name}.gguf`), { tensors });
    const options = { activation: /** @type {const} */ ('f32'), kvType: /** @type {const} */ ('F32') };
    const llama = await Llama.load(bytes, { ...options, isa, dot, threads: 1 });
    const reference = await Llama.loadTo(async () => new ReferenceBackend(), bytes, {});
    const model = models.find((one) => one.name === name) ?? assert.fail(`${name} is missing`);
    const { text } = model.reference.texts[1];
    const got = await llama.embed(text, { normalize: false });
    const { max } = distance(got, await reference.embed(text, { normalize: false }));
    const change = distance(got, model.vector(1)).max;
    llama.dispose();
    reference.dispose();
    t.diagnostic(`ran: ${name} with ${tensor}: changes ${change.toExponential(1)}`);
    assert.ok(max < 2e-5 && change > 0.05, `${tensor}: off by ${max}, changes ${change}`);
  }
});

/** @param {(attention: AttentionLayer['attention'], feed: AttentionLayer['feed']) => void} change */
const inLayers = (change) => (/** @type {Plan} */ plan) => {
  for (const { attention, feed } of plan.layers) change(attention, feed);
};
/** Gives the tensors of a role another one, as if the role were unknown. @param {RegExp} role */
const without = (role) => (/** @type {Plan} */ plan) => {
  for (const tensor of plan.tensors) if (role.test(tensor.role)) tensor.role = `unknown.${tensor.role}`;
};
const windows = (/** @type {(window: number) => number} */ change) =>
  inLayers((attention) => {
    attention.window = change(attention.window);
  });

/** @type {[model: string, what: string, change: (plan: Plan) => void][]} */
const MISTAKES = [
  ['bert-A', 'learned positions', without(/^embedding\.positions/)],
  ['bert-A', 'token types', without(/^embedding\.types/)],
  ['bert-A', 'norm of the embeddings', ({ embedding }) => Object.assign(embedding, { norm: undefined })],
  ['bert-A', 'bias of that norm', without(/^embedding\.normBias/)],
  ['bert-A', 'bias of queries', without(/qBias/)],
  ['bert-A', 'bias of values', without(/vBias/)],
  ['bert-A', 'bias of the output', without(/outputBias/)],
  ['bert-A', 'bias of up', without(/upBias/)],
  ['bert-A', 'bias of down', without(/downBias/)],
  ['bert-A', 'norm after attention', inLayers((one) => Object.assign(one, { sumNorm: undefined }))],
  ['bert-A', 'norm after feed', inLayers((_, feed) => Object.assign(feed, { sumNorm: undefined }))],
  ['bert-A', 'bias of the norms', without(/sumNormBias/)],
  ['bert-A', 'mean in the norms', inLayers(({ sumNorm }) => Object.assign(sumNorm ?? {}, { kind: 'rms' }))],
  ['bert-A', 'GELU', inLayers((_, feed) => Object.assign(feed, { activation: 'silu' }))],
  ['bert-A', 'no mask', inLayers((attention) => Object.assign(attention, { causal: true }))],
  ['nomic-bert-A', 'rotation', inLayers((attention) => Object.assign(attention, { rope: undefined }))],
  ['nomic-bert-A', 'base', inLayers(({ rope }) => Object.assign(rope ?? {}, { base: 10000 }))],
  [
    'nomic-bert-A',
    'pairs of halves',
    inLayers(({ rope }) => Object.assign(rope ?? {}, { pairing: 'adjacent' })),
  ],
  ['nomic-bert-A', 'norm after feed', inLayers((_, feed) => Object.assign(feed, { sumNorm: undefined }))],
  ['nomic-bert-A', 'token types', without(/^embedding\.types/)],
  ['modern-bert-A', 'windows', windows(() => 0)],
  ['modern-bert-A', 'windows a position wider', windows((window) => window && window + 2)],
  ['modern-bert-A', 'full layers', windows(() => 8)],
  [
    'modern-bert-A',
    'base of the local layers',
    inLayers(({ rope }) => Object.assign(rope ?? {}, { base: 16000 })),
  ],
  [
    'modern-bert-A',
    'norm of the embeddings',
    ({ embedding }) => Object.assign(embedding, { norm: undefined }),
  ],
  ['modern-bert-A', 'final norm', ({ head }) => Object.assign(head, { norm: undefined })],
  [
    'modern-bert-A',
    'norm before attention',
    (plan) => Object.assign(plan.layers[1].attention, { norm: undefined }),
  ],
  ['modern-bert-A', 'norm before feed', (plan) => Object.assign(plan.layers[0].feed, { norm: undefined })],
  [
    'modern-bert-A',
    'mean in the norms',
    inLayers((_, { norm }) => Object.assign(norm ?? {}, { kind: 'rms' })),
  ],
  ['modern-bert-A', 'GELU', inLayers((_, feed) => Object.assign(feed, { activation: 'silu' }))],
  ['gemma-embedding-A', 'windows', windows(() => 0)],
  ['gemma-embedding-A', 'windows a position wider', windows((window) => window && window + 2)],
  ['gemma-embedding-A', 'no mask', inLayers((attention) => Object.assign(attention, { causal: true }))],
  [
    'gemma-embedding-A',
    'base of the local layers',
    inLayers(({ rope }) => Object.assign(rope ?? {}, { base: 3e5 })),
  ],
  ['gemma-embedding-A', 'products after the pooling', ({ dense }) => dense.splice(0)],
];

test('arch: a setting that is ignored or mistaken shows in the embeddings', { skip: absent }, async (t) => {
  const present = libraryVariants.filter(({ skip }) => !skip);
  const variant = present.find(({ isa }) => isa === 'simd128') ?? present[0];
  for (const [name, what, change] of MISTAKES) {
    const model = models.find((one) => one.name === name) ?? assert.fail(`${name} is missing`);
    const llama = await load(model, { variant, change });
    const max = maxOf(await distances(llama, model));
    llama.dispose();
    t.diagnostic(`ran: ${name} without ${what}: largest difference ${max.toExponential(1)}`);
    assert.ok(max > 2 * limitOf(model), `${name} without ${what}: only ${max}`);
  }
});
