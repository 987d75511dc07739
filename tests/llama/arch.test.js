/**
 * Every architecture compared with llama.cpp, on small models with random weights in which every
 * setting shows (`arch` in the test data; its README has the limits). A model runs on one instruction
 * set, drawn by a seed; FM_ARCH_SEED sets the seed, FM_ARCH_ALL=1 runs all of them. FM_ARCH_DRAWN
 * sets how many models run; the same seed draws them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ARCHITECTURES } from '../../js/llama/architectures/names.js';
import { Llama, ModelError, types } from '../../js/llama/index.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import { MISTAKES } from '../helpers/arch-mistakes.js';
import { checkLikeLlama, distance, readReference } from '../helpers/llama.js';
import { draw, Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { dataPath, listData, skipWithout } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { AttentionPlan as Plan } from '../../js/llama/plan.js' */
/** @import { Activation } from '../../js/wasm/selftest.js' */
/** @import { KvType } from '../../js/wasm/kv-cache.js' */
/** @import { Prompt, Reference } from '../helpers/llama.js' */
/**
 * @typedef {Reference & { architecture: string, n_ctx: number,
 *   hyperparameters: Record<string, any> }} ArchReference
 */

const SEED = Number(process.env.FM_ARCH_SEED ?? 20261127);
const ALL = process.env.FM_ARCH_ALL === '1';
const BATCHES = [undefined, 3, 1];

/** @param {string} name */
function readModel(name) {
  const { reference, logits } = readReference(name, 'arch/logits');
  return { reference: /** @type {ArchReference} */ (reference), logits };
}

/** Why this model cannot run, or false. @param {ArchReference} reference */
function refusal({ architecture, tensor_types: used }) {
  if (!Object.hasOwn(ARCHITECTURES, architecture)) return `${architecture} is not supported`;
  const served = types.filter((type) => type.served).map(({ name }) => name);
  const unserved = Object.keys(used).filter((type) => !served.includes(type));
  return unserved.length > 0 && `no kernels for ${unserved.join(', ')}`;
}

const absent = skipWithout('arch/models') || skipWithout('arch/logits');
if (absent) test('arch: logits of every architecture', { skip: absent }, () => {});
const names = absent
  ? []
  : listData('arch/models')
      .map((file) => file.replace(/\.gguf$/, ''))
      // Models of embeddings have vectors instead of logits.
      .filter((name) => !skipWithout(`arch/logits/${name}.logits.f32`));
const found = names.map((name) => {
  const { reference, logits } = readModel(name);
  return { name, reference, logits, refused: refusal(reference) };
});
const models = found.filter(({ refused }) => !refused);

/**
 * @typedef {object} Run
 * @property {(typeof libraryVariants)[0]} variant
 * @property {Activation} [activation]
 * @property {KvType} [kvType]
 * @property {number} [batch]  tokens that are computed at a time
 * @property {(plan: Plan) => void} [change]  change of the plan before it runs
 */

/**
 * Loads a model as its reference was made: with the same context.
 * @param {(typeof models)[0]} model @param {Run} run
 */
function load({ name, reference }, { variant, activation = 'f32', kvType = 'F32', batch, change }) {
  const { isa, dot } = variant;
  const options = { activation, kvType, contextLength: reference.n_ctx };
  const open = async () => {
    const backend = await openWasmBackend(undefined, { isa, dot, threads: 1 }, options);
    const { sizes, lacks } = backend;
    if (batch)
      backend.sizes = (plan, settings) => ({ ...sizes.call(backend, plan, settings), batch, part: batch });
    backend.lacks = (plan, tensors, settings) => {
      change?.(/** @type {Plan} */ (plan));
      return lacks.call(backend, plan, tensors, settings);
    };
    return backend;
  };
  return Llama.loadTo(open, dataPath(`arch/models/${name}.gguf`), options);
}

/**
 * The differences at every position of some prompts.
 * @param {Llama} llama @param {(typeof models)[0]} model @param {Prompt[]} prompts
 */
async function differences(llama, { reference, logits }, prompts) {
  const n = reference.n_vocab;
  const positions = [];
  for (const prompt of prompts) {
    const [got, expected] = [await llama.logits(prompt.tokens), logits(prompt)];
    assert.equal(got.length, expected.length);
    for (let at = 0; at < got.length; at += n)
      positions.push(distance(got.subarray(at, at + n), expected.subarray(at, at + n)));
  }
  return positions;
}

/** @param {{ max: number }[]} positions */
const maxOf = (positions) => positions.reduce((most, { max }) => Math.max(most, max), 0);

/** llama.cpp takes GELU from a table with 16-bit values. @param {ArchReference} reference */
const limitOf = ({ architecture }) => (/^gemma/.test(architecture) ? 0.03 : 5e-4);

/**
 * Rounded activations can swap two experts that a router finds nearly equal. A position with a smaller
 * cosine has other experts.
 */
const OTHER_EXPERTS = 0.99;
/** So many of them may be in the prompts of a model. */
const MOST_OTHERS = 2;

const prng = new Prng(SEED);
const present = libraryVariants.filter(({ skip }) => !skip);
const chosen = new Set(draw(models, Number(process.env.FM_ARCH_DRAWN ?? models.length), SEED));
for (const model of models) {
  const { name, reference } = model;
  const limit = limitOf(reference);
  const drawn = present[Math.floor(prng.unit() * present.length)];
  if (!chosen.has(model)) continue;
  for (const variant of ALL ? libraryVariants : [drawn]) {
    const { skip } = variant;
    test(`arch: ${name}, ${variant.label}`, { skip }, async (t) => {
      for (const batch of BATCHES) {
        const llama = await load(model, { variant, batch });
        t.after(() => llama.dispose());
        for (const { text, tokens } of reference.prompts) assert.deepEqual(llama.tokenize(text), tokens);
        const max = maxOf(await differences(llama, model, reference.prompts));
        const what = batch ? `${batch} at a time` : 'at once';
        t.diagnostic(`ran: ${name}, ${what}, seed ${SEED}: largest difference ${max.toExponential(1)}`);
        assert.ok(max <= limit, `${what}: largest difference ${max}`);
        if (batch) continue;
        // The continuation is known up to the first choice that the limit leaves open.
        const { tokens, margins } = reference.greedy;
        const open = margins.findIndex((margin) => margin < 2 * limit);
        const maxTokens = open === -1 ? tokens.length : open;
        const options = { temperature: 0, maxTokens, ignoreEnd: true };
        const run = llama.generate(reference.prompts[0].tokens, options);
        await run.text();
        assert.deepEqual(run.tokens, tokens.slice(0, maxTokens));
      }
    });
    test(`arch: ${name}, int8, ${variant.label}`, { skip }, async (t) => {
      const llama = await load(model, { variant, activation: 'int8' });
      t.after(() => llama.dispose());
      const theirs = reference.quantized_run;
      const all = await differences(llama, model, reference.prompts);
      const isMixture = reference.hyperparameters.expert_count > 0;
      const positions = all.filter(({ cosine }) => !isMixture || cosine >= OTHER_EXPERTS);
      assert.ok(
        all.length - positions.length <= MOST_OTHERS,
        `other experts at ${all.length - positions.length} positions`,
      );
      const max = maxOf(positions);
      t.diagnostic(`ran: ${name}, int8: largest difference ${max.toExponential(1)}`);
      assert.ok(max <= Math.max(1.5 * theirs.max_abs, 0.5), `largest difference ${max}`);
      checkLikeLlama(positions, theirs, reference.tensor_types, variant.isa);
    });
    test(`arch: ${name}, 16-bit cache, ${variant.label}`, { skip }, async (t) => {
      const llama = await load(model, { variant, kvType: 'F16' });
      t.after(() => llama.dispose());
      const max = maxOf(await differences(llama, model, reference.prompts));
      assert.ok(max <= Math.max(2 * reference.reference.kv_f16.max_abs, 0.05), `largest difference ${max}`);
    });
  }
}

for (const model of models) {
  const { name, reference } = model;
  test(`arch: ${name}, float64 JavaScript`, async (t) => {
    const options = { contextLength: reference.n_ctx };
    const open = async () => new ReferenceBackend();
    const llama = await Llama.loadTo(open, dataPath(`arch/models/${name}.gguf`), options);
    t.after(() => llama.dispose());
    const max = maxOf(await differences(llama, model, reference.prompts.slice(0, 1)));
    t.diagnostic(`ran: ${name}, float64: largest difference ${max.toExponential(1)}`);
    assert.ok(max <= limitOf(reference), `largest difference ${max}`);
  });
}

test('arch: a setting that is ignored or mistaken shows in the logits', { skip: absent }, async (t) => {
  const variant = present.find(({ isa }) => isa === 'simd128') ?? present[0];
  for (const [name, what, change] of MISTAKES) {
    const model = models.find((one) => one.name === name) ?? assert.fail(`${name} is missing`);
    const llama = await load(model, { variant, change });
    const max = maxOf(await differences(llama, model, model.reference.prompts.slice(0, 1)));
    llama.dispose();
    t.diagnostic(`ran: ${name} without ${what}: largest difference ${max.toExponential(1)}`);
    assert.ok(max > 2 * limitOf(model.reference), `${name} without ${what}: only ${max}`);
  }
});

test('arch: what is not supported is refused by name', { skip: absent }, async () => {
  const list = Object.keys(ARCHITECTURES).join(', ');
  for (const { name, reference, refused } of found) {
    if (!refused) continue;
    const { architecture } = reference;
    await assert.rejects(
      Llama.load(dataPath(`arch/models/${name}.gguf`)),
      (error) => {
        assert.ok(error instanceof ModelError, `${name}: ${error}`);
        if (Object.hasOwn(ARCHITECTURES, architecture)) return true;
        const message = `the architecture "${architecture}" is not supported; supported are ${list}`;
        assert.equal(error.message, message);
        return true;
      },
      name,
    );
  }
});
