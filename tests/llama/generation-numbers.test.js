/**
 * Wrong numbers end a computation with an error that says where they came from: NaN and infinity in
 * any weight, and keys and values that the KV cache cannot store. No text, logits or vector is made
 * of them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, FmError, Llama, NumericError } from '../../js/llama/index.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Spec } from '../helpers/synthetic-llama.js' */

const TOKENS = [1, 5, 6, 7];
const TEXT = String.fromCharCode(0x4e05, 0x4e06, 0x4e07);
const N_EMBD = 64;

/**
 * Changes one F32 tensor.
 * @param {string} name @param {(values: Float32Array) => void} edit @returns {Spec['change']}
 */
const changing = (name, edit) => (tensors) =>
  tensors.map((tensor) => {
    if (tensor.name !== name) return tensor;
    const values = new Float32Array(Uint8Array.from(tensor.data).buffer);
    edit(values);
    return { ...tensor, data: new Uint8Array(values.buffer) };
  });

/**
 * Every way to compute with a model.
 * @param {Llama} model @returns {[string, () => Promise<unknown>][]}
 */
const calls = (model) => [
  ['generate', () => model.generate(TOKENS, { temperature: 0, maxTokens: 4, ignoreEnd: true }).text()],
  ['logits', () => model.logits(TOKENS)],
  ['embed', () => model.embed(TEXT)],
];

/**
 * @param {string} name  a tensor's name
 * @param {number} bad
 * @param {Partial<NumericError>} where  fields that the error must have
 * @param {string[]} [unharmed]  calls that do not use the tensor and must succeed
 * @param {number} [column]
 */
function badWeight(name, bad, where, unharmed = [], column = 7) {
  test(`numbers: ${bad} in ${name}`, async (t) => {
    const kernels = await createKernels();
    t.after(() => kernels.dispose());
    for (const [activation, kvType] of /** @type {const} */ ([
      ['f32', 'F32'],
      ['int16', 'Q8_0'],
      ['int8', 'F16'],
    ])) {
      const change = changing(name, (values) => {
        values[column] = bad;
      });
      const made = makeModel({ headSize: 32, nLayers: 3, change });
      const model = await Llama.load(made.bytes.buffer, { kernels, activation, kvType });
      for (const [call, run] of calls(model)) {
        if (unharmed.includes(call)) {
          await run();
          continue;
        }
        await assert.rejects(run(), (/** @type {any} */ error) => {
          assert.ok(error instanceof NumericError && error instanceof FmError, `${call}: ${error}`);
          const { part, layer, position, value, code } = error;
          assert.deepEqual({ part, layer, position, code }, { position, code: 'FM_NUMERIC', ...where }, call);
          assert.ok(!Number.isFinite(value), `${call}: ${value}`);
          if (layer !== undefined)
            assert.match(error.message, new RegExp(`layer ${layer} \\(blk\\.${layer}\\)`));
          assert.match(error.message, /another copy of the file/);
          assert.equal(/activation: 'f32'/.test(error.message), activation !== 'f32');
          assert.equal(/kvType: 'F32'/.test(error.message), kvType !== 'F32');
          return true;
        });
      }
      model.dispose();
    }
  });
}

for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
  badWeight(
    'token_embd.weight',
    bad,
    { part: 'embedding', layer: undefined, position: 2 },
    [],
    6 * N_EMBD + 3,
  );
  badWeight('blk.1.attn_norm.weight', bad, { part: 'queries', layer: 1, position: 0 });
  badWeight('blk.0.attn_q.weight', bad, { part: 'queries', layer: 0, position: 0 });
  badWeight('blk.1.attn_k.weight', bad, { part: 'keys', layer: 1, position: 0 });
  badWeight('blk.2.attn_v.weight', bad, { part: 'values', layer: 2, position: 0 });
  badWeight('blk.1.attn_output.weight', bad, { part: 'attention', layer: 1, position: 0 });
  badWeight('blk.1.ffn_norm.weight', bad, { part: 'feed-forward', layer: 1, position: 0 });
  badWeight('blk.2.ffn_up.weight', bad, { part: 'feed-forward', layer: 2, position: 0 });
  badWeight('blk.0.ffn_down.weight', bad, { part: 'feed-forward', layer: 0, position: 0 });
  badWeight('output_norm.weight', bad, { part: 'output', layer: undefined });
  badWeight('output.weight', bad, { part: 'output', layer: undefined }, ['embed']);
}
badWeight('blk.1.ffn_gate.weight', Number.NaN, { part: 'feed-forward', layer: 1, position: 0 });

/**
 * Only token 5 has a value in this column, and it has no other. No other token has large keys or
 * values.
 */
const COLUMN = 9;
/**
 * @param {string} matrix  attn_k or attn_v
 * @param {number} size  magnitude of the keys or values of token 5
 * @param {number} [sign]
 * @returns {Spec}
 */
const overflowing = (matrix, size, sign = 1) => ({
  headSize: 32,
  change: (tensors) => {
    const embedding = changing('token_embd.weight', (values) => {
      for (let i = COLUMN; i < values.length; i += N_EMBD) values[i] = 0;
      values.fill(0, 5 * N_EMBD, 6 * N_EMBD);
      values[5 * N_EMBD + COLUMN] = 1;
    });
    const norm = changing('blk.0.attn_norm.weight', (values) => {
      values[COLUMN] = 1;
    });
    // A hidden state with a single value that is not 0 has sqrt(N_EMBD) there after the norm.
    const large = changing(`blk.0.${matrix}.weight`, (values) => {
      for (let i = COLUMN; i < values.length; i += N_EMBD) values[i] = (sign * size) / Math.sqrt(N_EMBD);
    });
    return [embedding, norm, large].reduce((all, change) => change?.(all) ?? all, tensors);
  },
});

for (const { isa, dot, label, skip } of libraryVariants) {
  for (const [matrix, part] of /** @type {const} */ ([
    ['attn_k', 'keys'],
    ['attn_v', 'values'],
  ])) {
    test(`numbers: ${part} that a cache cannot store, ${label}`, { skip }, async (t) => {
      const kernels = await createKernels({ isa, dot, threads: 1 });
      t.after(() => kernels.dispose());
      // RoPE rotates pairs of equal values: one of the two grows, by up to sqrt(2).
      for (const [kvType, size, limit] of /** @type {const} */ ([
        ['F16', 1e5, 65504],
        ['Q8_0', 2e7, 8319008],
      ])) {
        for (const sign of [1, -1]) {
          const made = makeModel(overflowing(matrix, size, sign));
          const model = await Llama.load(made.bytes.buffer, { kernels, activation: 'f32', kvType });
          for (const [call, run] of calls(model)) {
            await assert.rejects(run(), (/** @type {any} */ error) => {
              assert.ok(error instanceof NumericError, `${call}: ${error}`);
              assert.deepEqual([error.part, error.layer, error.position], [part, 0, 1], call);
              assert.ok(Math.abs(error.value) > limit && Math.abs(error.value) < 2 * size);
              assert.match(error.message, new RegExp(`${kvType} cache .*${limit}.*kvType: 'F32'`));
              return true;
            });
          }
          // The model continues with harmless tokens in the same context.
          assert.ok((await model.logits([1, 6, 7])).every(Number.isFinite));
          model.dispose();
          const remedy = await Llama.load(made.bytes.buffer, { kernels, activation: 'f32', kvType: 'F32' });
          for (const [, run] of calls(remedy)) await run();
          remedy.dispose();
        }
        // Half of the limit can be stored.
        const fitting = makeModel(overflowing(matrix, limit / 2));
        const model = await Llama.load(fitting.bytes.buffer, { kernels, activation: 'f32', kvType });
        for (const [, run] of calls(model)) await run();
        model.dispose();
      }
    });
  }
}

test('numbers: a key that comes to be too large in the middle of a text', async (t) => {
  const spec = overflowing('attn_k', 1e5);
  // Every token is as likely as any other, so token 5 will come.
  const uniform = changing('output.weight', (values) => values.fill(0));
  const change = (/** @type {any} */ tensors) => uniform?.(spec.change?.(tensors) ?? []) ?? [];
  const model = await Llama.load(makeModel({ ...spec, change }).bytes.buffer, { activation: 'f32' });
  t.after(() => model.dispose());
  const drawn = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 4, maxTokens: 60, ignoreEnd: true };
  const run = model.generate([1, 6], drawn);
  const isNumeric = (/** @type {any} */ error) => error instanceof NumericError && error.part === 'keys';
  await assert.rejects(run.text(), isNumeric);
  await assert.rejects(run.text(), isNumeric, 'again');
  const { tokens } = run;
  assert.equal(tokens.at(-1), 5);
  assert.ok(tokens.length > 1, `${tokens}`);
  assert.equal(run.written, model.detokenize(tokens));
  assert.equal(run.stats.finishReason, undefined);
  assert.equal((await model.logits([1, 6])).length, 2 * 40, 'the model is free');
});

test('numbers: batches of a long text say the position in the text', async (t) => {
  const spec = { ...overflowing('attn_k', 1e5), context: 700, nFf: 32, nLayers: 1 };
  for (const causal of [true, false]) {
    const model = await Llama.load(makeModel({ ...spec, causal }).bytes.buffer, { activation: 'f32' });
    t.after(() => model.dispose());
    const tokens = Array.from({ length: 650 }, (_, i) => (i === 600 ? 5 : 6 + (i % 30)));
    await assert.rejects(
      model.logits(tokens),
      (error) => error instanceof NumericError && error.position === 600,
    );
  }
});
