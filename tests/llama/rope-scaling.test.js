/** RoPE scaling: every form of it in the metadata, and forms that are refused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama, ModelError } from '../../js/llama/index.js';
import { distance } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { Pair } from '../helpers/gguf-bytes.js' */

const TOKENS = [1, 17, 5, 30, 9, 9, 22, 3, 38, 12];

/**
 * @param {Record<string, unknown>} keys  names after `rope.`, with values
 * @param {string} [architecture]
 * @returns {Promise<{ scale: number, logits: Float32Array }>}
 */
async function load(keys, architecture = 'llama') {
  /** @type {Record<string, Pair>} */
  const pairs = {};
  for (const [name, value] of Object.entries(keys)) {
    const key = `${architecture}.rope.${name}`;
    pairs[key] = [
      key,
      typeof value === 'number' ? 'f32' : typeof value === 'boolean' ? 'bool' : 'string',
      value,
    ];
  }
  const model = await Llama.load(makeModel({ architecture, pairs }).bytes.buffer, {
    ...{ activation: 'f32', kvType: 'F32', threads: 1 },
  });
  try {
    return { scale: model.info.rope.linearScale, logits: await model.logits(TOKENS) };
  } finally {
    model.dispose();
  }
}

/** @type {[keys: Record<string, unknown>, scale: number][]} */
const SPELLINGS = [
  [{}, 1],
  [{ 'scaling.type': 'linear', 'scaling.factor': 4 }, 4],
  [{ 'scaling.factor': 4 }, 4],
  [{ 'scaling.factor': 0.5 }, 0.5],
  [{ scale_linear: 4 }, 4],
  [{ 'scaling.type': 'linear', scale_linear: 4 }, 4],
  [{ 'scaling.factor': 4, scale_linear: 2 }, 4],
  [{ 'scaling.type': 'linear' }, 1],
  [{ 'scaling.type': 'linear', 'scaling.factor': 0 }, 1],
  [{ 'scaling.type': 'linear', 'scaling.factor': 1 }, 1],
  [{ 'scaling.factor': 0 }, 1],
  [{ 'scaling.factor': 1 }, 1],
  [{ 'scaling.factor': 0, scale_linear: 4 }, 1],
  [{ scale_linear: 0 }, 1],
  [{ scale_linear: 1 }, 1],
  [{ 'scaling.type': 'none' }, 1],
  [{ 'scaling.type': 'none', 'scaling.factor': 4 }, 1],
  [{ 'scaling.type': 'none', scale_linear: 4 }, 1],
  [{ 'scaling.factor': 4, 'scaling.attn_factor': 1, 'scaling.original_context_length': 16 }, 4],
  [{ 'scaling.finetuned': true }, 1],
];

test('RoPE scaling: every spelling, in what the model computes', async () => {
  for (const architecture of ['llama', 'qwen2', 'qwen3']) {
    for (const [keys, scale] of SPELLINGS) {
      const { scale: got, logits } = await load(keys, architecture);
      assert.equal(got, scale, JSON.stringify(keys));
      if (architecture !== 'llama') continue;
      const expected = makeModel({ linear: scale }).logits(TOKENS);
      const { max, size } = distance(logits, expected);
      assert.ok(max <= 1e-4 * size, `${JSON.stringify(keys)}: ${max} of ${size}`);
    }
  }
  const [one, four] = [1, 4].map((linear) => makeModel({ linear }).logits(TOKENS));
  assert.ok(distance(four, one).max > 0.01 * distance(four, one).size, 'the scale matters');
});

test('RoPE scaling: what is not supported is refused by name', async () => {
  const refused = (/** @type {Record<string, unknown>} */ keys, /** @type {RegExp} */ message) =>
    assert.rejects(load(keys), (error) => {
      assert.ok(error instanceof ModelError, `${error}`);
      assert.match(error.message, message);
      return true;
    });
  for (const type of ['dynamic', 'Linear', '']) {
    const message = new RegExp(`type "${type}" is not supported; supported are none, linear, yarn, longrope`);
    await refused({ 'scaling.type': type }, message);
    await refused({ 'scaling.type': type, 'scaling.factor': 4 }, message);
    await refused({ 'scaling.type': type, 'scaling.factor': 1 }, message);
  }
  await refused({ 'scaling.type': 3 }, /type 3 is not supported/);
  await refused({ 'scaling.factor': -2 }, /llama.rope.scaling.factor" must be a number over 0, got -2/);
  await refused({ 'scaling.factor': Number.NaN }, /scaling.factor" must be a number over 0, got NaN/);
  await refused({ 'scaling.factor': '4' }, /scaling.factor" must be a number over 0, got "4"/);
  await refused(
    { scale_linear: Number.POSITIVE_INFINITY },
    /scale_linear" must be a number over 0, got Infinity/,
  );
  await refused(
    { 'scaling.attn_factor': -1.5 },
    /llama.rope.scaling.attn_factor" must be a number over 0, got -1.5/,
  );
});
