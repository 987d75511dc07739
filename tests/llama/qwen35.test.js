/**
 * The plan of Qwen 3.5: which layers have which block, defaults, the blocks that are left out, and
 * what is refused by name.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lacks as lacksOfGpu } from '../../js/gpu/fit.js';
import { lacks } from '../../js/wasm/fit.js';
import { planOf as planOfFile, refusal } from '../helpers/plan-of.js';

/** @import { MetadataValue } from '../../js/gguf/index.js' */
/** @import { DeltaSettings } from '../../js/llama/plan.js' */

/** Keys in addition to those of every small model. */
const KEYS = {
  'attention.key_length': 128,
  'attention.value_length': 128,
  'rope.dimension_count': 32,
  'rope.dimension_sections': [11, 11, 10, 0],
  'ssm.conv_kernel': 4,
  'ssm.inner_size': 192,
  'ssm.state_size': 64,
  'ssm.time_step_rank': 6,
  'ssm.group_count': 2,
};

/** @param {Record<string, MetadataValue | undefined>} [changes]  of the keys */
const planOf = (changes = {}) => planOfFile('qwen35', { ...KEYS, ...changes }).plan;

test('qwen35: every fourth layer has attention unless the file says otherwise', () => {
  const kinds = (/** @type {Record<string, MetadataValue>} */ keys) =>
    planOf(keys)
      .layers.map(({ attention, recurrent }) => (attention ? 'a' : recurrent?.kind[0]))
      .join('');
  assert.equal(kinds({}), 'dddaddda');
  assert.equal(kinds({ full_attention_interval: 3 }), 'ddaddadd');
  assert.equal(kinds({ full_attention_interval: 1 }), 'aaaaaaaa');
  assert.throws(() => planOf({ full_attention_interval: 0 }), refusal(/full_attention_interval.*got 0/));
});

test('qwen35: settings and tensors of both kinds of layers', () => {
  const { layers, tensors, shared } = planOf();
  const { nKeyHeads, nValueHeads, keySize, valueSize, length, headNorm } = /** @type {DeltaSettings} */ (
    layers[0].recurrent
  );
  assert.deepEqual([nKeyHeads, nValueHeads, keySize, valueSize, length], [2, 6, 64, 32, 4]);
  assert.equal(headNorm.eps, 1e-5);
  const { attention } = layers[3];
  assert.deepEqual(
    [attention?.outputGate, attention?.rope?.nDims, attention?.rope?.pairing],
    [true, 32, 'halves'],
  );
  const find = (/** @type {string} */ name) => tensors.find((one) => one.name === name);
  const query = find('blk.3.attn_q.weight');
  assert.deepEqual([query?.role, query?.nRows, query?.alternating], ['layers.3.attention.qGate', 1024, 128]);
  assert.deepEqual(shared['layers.3.attention.gate'], { of: query?.role, start: 512, nRows: 512 });
  assert.equal(find('blk.0.attn_qkv.weight')?.nRows, 2 * 2 * 64 + 192);
  assert.equal(find('blk.0.post_attention_norm.weight')?.role, 'layers.0.feed.norm');
  for (const absent of ['blk.0.attn_q.weight', 'blk.3.attn_qkv.weight', 'blk.0.ffn_norm.weight'])
    assert.equal(find(absent), undefined, absent);
});

test('qwen35: blocks that guess further tokens are left out, their tensors are not loaded', () => {
  const { layers, tensors } = planOf({ nextn_predict_layers: 1 });
  assert.equal(layers.length, 7);
  const last = tensors.filter(({ name, use }) => name.startsWith('blk.7.') && use !== 'factor');
  for (const { name, use, optional } of last) assert.deepEqual([use, optional], ['none', true], name);
  for (const name of ['attn_q', 'ffn_down', 'post_attention_norm', 'nextn.eh_proj', 'nextn.enorm'])
    assert.ok(
      last.some((one) => one.name === `blk.7.${name}.weight`),
      name,
    );
  assert.equal(planOf({ nextn_predict_layers: 0 }).layers.length, 8);
  for (const n of [8, -1, 0.5])
    assert.throws(
      () => planOf({ nextn_predict_layers: n }),
      refusal(/nextn_predict_layers.* is .*, the file has 8 blocks/),
    );
});

test('qwen35: heads that do not fit are refused by name', () => {
  assert.throws(() => planOf({ 'ssm.time_step_rank': 5 }), refusal(/5 value heads.*2 key heads/));
  assert.throws(() => planOf({ 'ssm.inner_size': 190 }), refusal(/ssm\.inner_size" is 190.*6 heads/));
  assert.throws(() => planOf({ 'ssm.conv_kernel': undefined }), refusal(/ssm\.conv_kernel/));
  assert.deepEqual(lacks(planOf(), []), []);
  assert.match(lacks(planOf({ 'ssm.state_size': 60 }), []).join(), /delta nets with heads of 60 values/);
  assert.match(lacks(planOf({ 'ssm.state_size': 512 }), []).join(), /heads of 512 values.*256 at most/);
  assert.match(lacks(planOf({ 'ssm.conv_kernel': 40 }), []).join(), /convolutions of length 40/);
});

test('qwen35: the GPU names the heads that it does not compute', () => {
  const settings = { contextLength: 64, kvType: /** @type {const} */ ('F32') };
  const reasonsOf = (/** @type {Parameters<typeof planOf>[0]} */ change) =>
    lacksOfGpu(planOf(change), [], settings, { bindingBytes: 2 ** 30 });
  assert.deepEqual(reasonsOf({}), []);
  assert.match(
    reasonsOf({ 'ssm.state_size': 60 }).join(),
    /delta nets with heads of 60 values .* on the GPU/,
  );
});
