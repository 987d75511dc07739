/**
 * The settings that each architecture reads from the metadata of a file, with the values that apply
 * where a file has no such key.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lacks as lacksOnGpu } from '../../js/gpu/fit.js';
import { PLANS } from '../../js/llama/architectures/index.js';
import { architectures } from '../../js/llama/index.js';
import { lacks } from '../../js/wasm/fit.js';
import { planOf, refusal } from '../helpers/plan-of.js';

/** @import { Plan } from '../../js/llama/plan.js' */

test('plans: each architecture of the package has one', () => {
  assert.deepEqual(Object.keys(PLANS).sort(), Object.keys(architectures).sort());
});

test('plans: granite has scales, of which 0 means none, and may have no rotation', () => {
  const given = { embedding_scale: 12, residual_scale: 0.25, 'attention.scale': 0.5, logit_scale: 4 };
  const { plan, attention, feed } = planOf('granite', given);
  assert.deepEqual([plan.embedding.scale, plan.head.scale, attention[3].scale], [12, 0.25, 0.5]);
  assert.deepEqual([attention[3].residualScale, feed.residualScale], [0.25, 0.25]);
  assert.equal(attention[3].rope?.pairing, 'adjacent');
  const zeros = { embedding_scale: 0, residual_scale: 0, 'attention.scale': 0, logit_scale: 1 };
  const none = planOf('granite', zeros);
  assert.deepEqual(
    [none.plan.embedding.scale, none.feed.residualScale, none.attention[0].scale],
    [1, 1, 0.125],
  );
  const off = planOf('granite', { logit_scale: 1, 'rope.scaling.finetuned': false });
  assert.ok(off.attention.every(({ rope }) => rope === undefined));
  assert.throws(
    () => planOf('granite'),
    refusal(/granite.logit_scale" must be a number over 0, got undefined/),
  );
});

test('plans: encoders have no mask, norms of the sums or windows to both sides', () => {
  const eps = { 'attention.layer_norm_epsilon': 1e-5, 'attention.head_count_kv': undefined };
  const bert = planOf('bert', { ...eps, context_length: 64 }, 64);
  assert.deepEqual(
    [bert.attention[3].causal, bert.attention[3].norm, bert.feed.kind],
    [false, undefined, 'plain'],
  );
  assert.deepEqual([bert.attention[3].sumNorm?.kind, bert.plan.head.norm], ['layer', undefined]);
  assert.equal(bert.plan.tensors.find(({ role }) => role === 'embedding.positions')?.nRows, 64);
  assert.throws(
    () => planOf('bert', { ...eps, context_length: 64 }, 65),
    refusal(/a context of 65 positions is more than the 64 that the model has learned/),
  );
  const nomic = planOf('nomic-bert', { ...eps, 'rope.freq_base': 1000 });
  assert.deepEqual(
    [nomic.bases[0], nomic.attention[0].rope?.pairing, nomic.feed.activation],
    [1000, 'halves', 'silu'],
  );
  assert.deepEqual(nomic.plan.shared['layers.1.attention.vBias'], {
    of: 'layers.1.attention.qkvBias',
    start: 512,
    nRows: 256,
  });
  const modern = planOf('modern-bert', { ...eps, 'attention.sliding_window': 128, 'rope.freq_base': 160000 });
  assert.deepEqual(modern.windows, [0, 128, 128, 0, 128, 128, 0, 128]);
  assert.deepEqual(modern.bases.slice(0, 4), [160000, 10000, 10000, 160000]);
  assert.deepEqual([modern.attention[0].norm, modern.attention[1].norm?.kind], [undefined, 'layer']);
  assert.ok(
    !modern.names.includes('blk.0.attn_norm.weight') && modern.names.includes('blk.1.attn_norm.weight'),
  );
  assert.equal(modern.feed.activation, 'gelu');
  assert.equal(planOf('modern-bert', { ...eps, hidden_activation: 'silu' }).feed.activation, 'silu');
  assert.throws(
    () => planOf('modern-bert', { ...eps, hidden_activation: 'relu' }),
    refusal(/hidden_activation" is "relu"; supported are gelu, silu/),
  );
  const gemma = planOf('gemma-embedding', {
    'attention.sliding_window': 512,
    dense_2_feat_in: 256,
    dense_2_feat_out: 768,
  });
  assert.ok(gemma.attention.every(({ causal }) => !causal));
  assert.deepEqual([gemma.windows.slice(4, 7), gemma.plan.dense], [[512, 0, 512], [768]]);
  for (const [name, why] of [
    ['nomic-bert-moe', 'mixtures of experts'],
    ['jina-bert-v2', 'ALiBi'],
  ])
    assert.throws(() => planOf(name), refusal(new RegExp(`"${name}" is not supported: .*${why}`)));
});

test('plans: smollm3 has no rotation in every fourth layer', () => {
  const { attention } = planOf('smollm3');
  const turns = attention.map(({ rope }) => rope !== undefined);
  assert.deepEqual(turns, [true, true, true, false, true, true, true, false]);
});

test('plans: gemma2 has a window in every second layer, and soft caps', () => {
  const { plan, attention, feed, windows, names } = planOf('gemma2');
  assert.deepEqual(windows, [4096, 0, 4096, 0, 4096, 0, 4096, 0]);
  assert.deepEqual([attention[1].softcap, plan.head.softcap, plan.embedding.scale], [50, 30, 16]);
  assert.deepEqual([feed.activation, feed.kind, feed.postNorm?.eps], ['gelu', 'gated', 1e-5]);
  assert.ok(
    names.includes('blk.7.post_attention_norm.weight') && names.includes('blk.7.post_ffw_norm.weight'),
  );
  const given = {
    'attention.sliding_window': 8,
    attn_logit_softcapping: 2.5,
    final_logit_softcapping: 6,
    'rope.freq_base_swa': 500,
  };
  const other = planOf('gemma2', given);
  assert.deepEqual(other.windows.slice(0, 2), [8, 0]);
  assert.deepEqual(other.bases.slice(0, 2), [500, 10000]);
  assert.deepEqual([other.attention[0].softcap, other.plan.head.softcap], [2.5, 6]);
  // The largest model scales scores by the values of the embedding for a head.
  const sizes = { 'attention.head_count': 8, 'attention.key_length': 128, 'attention.value_length': 128 };
  assert.equal(planOf('gemma2', { ...sizes, block_count: 42 }).attention[0].scale, 1 / Math.sqrt(128));
  assert.equal(planOf('gemma2', { ...sizes, block_count: 46 }).attention[0].scale, 1 / Math.sqrt(32));
});

test('plans: gemma3 has windows and a rotation of their own in five of six layers', () => {
  const given = { 'attention.sliding_window': 512, 'rope.freq_base': 1e6, 'rope.scaling.factor': 8 };
  const { plan, attention, windows, bases } = planOf('gemma3', given);
  assert.deepEqual(windows, [512, 512, 512, 512, 512, 0, 512, 512]);
  assert.deepEqual(bases, [1e4, 1e4, 1e4, 1e4, 1e4, 1e6, 1e4, 1e4]);
  assert.deepEqual(
    attention.map(({ rope }) => rope?.linearScale),
    [1, 1, 1, 1, 1, 8, 1, 1],
  );
  assert.deepEqual([plan.head.softcap, attention[0].softcap], [0, 0]);
  assert.deepEqual(attention[0].qkNorm, { kind: 'rms', eps: 1e-5, span: 'head', afterRope: false });
  const third = { ...given, 'attention.sliding_window_pattern': 3, 'rope.freq_base_swa': 700 };
  assert.deepEqual(planOf('gemma3', third).windows, [512, 512, 0, 512, 512, 0, 512, 512]);
  assert.equal(planOf('gemma3', third).bases[0], 700);
  for (const window of [0, undefined]) {
    const full = planOf('gemma3', { ...given, 'attention.sliding_window': window });
    assert.deepEqual([...new Set(full.windows), ...new Set(full.bases)], [0, 1e6]);
  }
  const sizes = { 'attention.head_count': 8, 'attention.key_length': 128, 'attention.value_length': 128 };
  assert.equal(
    planOf('gemma3', { ...given, ...sizes, block_count: 48 }).attention[0].scale,
    1 / Math.sqrt(128),
  );
  assert.equal(
    planOf('gemma3', { ...given, ...sizes, block_count: 62 }).attention[0].scale,
    1 / Math.sqrt(32),
  );
});

test('plans: olmo2 stretches positions only in layers without a window', () => {
  const given = {
    'rope.scaling.type': 'yarn',
    'rope.scaling.factor': 8,
    'rope.scaling.original_context_length': 1024,
    'rope.scaling.attn_factor': 1.5,
  };
  const { attention, windows, names } = planOf('olmo2', given);
  assert.ok(windows.every((window) => window === 0));
  assert.ok(attention.every(({ norm, postNorm, rope }) => !norm && postNorm && rope?.divisors));
  assert.equal(attention[0].qkNorm?.span, 'row');
  assert.ok(!names.includes('blk.0.attn_norm.weight') && !names.includes('blk.0.ffn_norm.weight'));
  const local = planOf('olmo2', { ...given, 'attention.sliding_window': 64 });
  assert.deepEqual(local.windows, [64, 64, 64, 0, 64, 64, 64, 0]);
  const [first, , , fourth] = local.attention.map(({ rope }) => rope);
  assert.deepEqual([first?.divisors, first?.magnitude], [undefined, 1]);
  assert.equal(fourth?.divisors?.length, 32);
  assert.ok(Math.abs((fourth?.magnitude ?? 0) - 1.5 * (1 + 0.1 * Math.log(8))) < 1e-12);
});

test('plans: exaone4 has windows in the large model only', () => {
  const small = planOf('exaone4', { block_count: 30, 'attention.sliding_window': 64 });
  assert.ok(small.attention.every(({ window, rope }) => window === 0 && rope));
  const large = planOf('exaone4', { block_count: 64 });
  assert.deepEqual(large.windows.slice(0, 5), [4096, 4096, 4096, 0, 4096]);
  assert.deepEqual(large.bases.slice(0, 5), [10000, 10000, 10000, 0, 10000]);
  const list = Array.from({ length: 64 }, (_, i) => i % 2 === 0);
  const listed = planOf('exaone4', { block_count: 64, 'attention.sliding_window_pattern': list });
  assert.deepEqual(listed.windows.slice(0, 4), [4096, 0, 4096, 0]);
  const short = { block_count: 64, 'attention.sliding_window_pattern': list.slice(1) };
  assert.throws(
    () => planOf('exaone4', short),
    refusal(/sliding_window_pattern" has 63 values for 64 layers/),
  );
});

test('plans: hunyuan-dense raises the base by alpha, and normalises after the rotation', () => {
  const { attention, bases } = planOf('hunyuan-dense', {
    'rope.scaling.alpha': 1000,
    'rope.freq_base': 20000,
  });
  assert.ok(Math.abs(bases[0] / (20000 * 1000 ** (64 / 62)) - 1) < 1e-12);
  assert.equal(attention[0].qkNorm?.afterRope, true);
  assert.equal(planOf('hunyuan-dense').bases[0], 10000);
});

test('plans: phi3 shares matrices, and takes the frequency factors of its context', () => {
  const given = {
    'rope.dimension_count': 48,
    'rope.scaling.original_context_length': 4096,
    'rope.scaling.attn_factor': 1.19,
    'attention.sliding_window': 12,
  };
  const { plan, attention, windows } = planOf('phi3', given, 4096);
  assert.deepEqual([attention[0].rope?.nDims, attention[0].rope?.magnitude, windows[0]], [48, 1.19, 0]);
  assert.deepEqual(plan.shared['layers.2.attention.v'], {
    of: 'layers.2.attention.qkv',
    start: 384,
    nRows: 128,
  });
  assert.deepEqual(plan.shared['layers.2.feed.up'], { of: 'layers.2.feed.gateUp', start: 128, nRows: 128 });
  const factors = (/** @type {number | undefined} */ context, keys = given) =>
    planOf('phi3', keys, context).plan.shared['rope.factors'].of;
  assert.equal(factors(4096), 'rope.shortFactors');
  assert.equal(factors(4097), 'rope.longFactors');
  assert.equal(factors(undefined), 'rope.shortFactors', 'the default is a context of 4096');
  assert.equal(
    factors(undefined, { ...given, 'rope.scaling.original_context_length': 64 }),
    'rope.longFactors',
  );
});

test('plans: glm4 shares gate and up only, and has norms on both sides', () => {
  const { plan, attention, feed, names } = planOf('glm4', { 'rope.dimension_count': 32 });
  assert.deepEqual([attention[0].rope?.nDims, attention[0].rope?.pairing], [32, 'adjacent']);
  assert.deepEqual([attention[0].norm, feed.norm], [attention[0].postNorm, feed.postNorm]);
  assert.deepEqual(plan.shared['layers.2.feed.up'], { of: 'layers.2.feed.gateUp', start: 128, nRows: 128 });
  assert.ok(names.includes('blk.0.attn_q.bias') && !names.includes('blk.0.attn_qkv.weight'));
});

test('plans: falcon-h1 has both blocks in every layer, which share a norm', () => {
  const keys = {
    'ssm.inner_size': 512,
    'ssm.time_step_rank': 8,
    'ssm.group_count': 2,
    'ssm.state_size': 16,
    'ssm.conv_kernel': 4,
  };
  const { plan, names } = planOf('falcon-h1', keys);
  for (const { attention, recurrent } of plan.layers) {
    assert.deepEqual(recurrent, {
      ...{ kind: 'scan', nHeads: 8, headSize: 64, nGroups: 2, stateSize: 16, length: 4 },
      ...{ norm: attention.norm, gateNorm: attention.norm, postNorm: undefined, residualScale: 1 },
    });
  }
  assert.deepEqual(plan.shared['layers.1.recurrent.norm'], { of: 'layers.1.attention.norm' });
  const rows = ['z', 'x', 'dt'].map((part) => plan.shared[`layers.1.recurrent.${part}`]);
  assert.deepEqual(
    rows.map(({ start, nRows }) => [start, nRows]),
    [
      [0, 512],
      [512, 576],
      [1088, 8],
    ],
  );
  assert.equal(plan.tensors.find(({ name }) => name === 'blk.0.ssm_in.weight')?.nRows, 1096);
  assert.ok(names.includes('blk.7.ffn_norm') && !names.includes('blk.7.ffn_norm.weight'));
  assert.throws(
    () => planOf('falcon-h1'),
    refusal(/ssm.inner_size" must be an integer over 0, got undefined/),
  );
});

test('plans: granitehybrid has Mamba-2 where a layer has no KV heads, and experts if there are any', () => {
  const keys = {
    'ssm.inner_size': 512,
    'ssm.time_step_rank': 8,
    'ssm.group_count': 1,
    'ssm.state_size': 16,
    'ssm.conv_kernel': 4,
    'attention.head_count_kv': [0, 2, 0, 0, 0, 2, 0, 0],
    residual_scale: 0.25,
    logit_scale: 4,
    'rope.scaling.finetuned': false,
  };
  const { plan, names } = planOf('granitehybrid', keys);
  for (const [i, { attention, recurrent, feed }] of plan.layers.entries()) {
    const isRecurrent = i !== 1 && i !== 5;
    assert.deepEqual([!attention, recurrent?.kind === 'scan'], [isRecurrent, isRecurrent], `layer ${i}`);
    assert.deepEqual([(attention ?? recurrent)?.residualScale, feed.residualScale], [0.25, 0.25]);
    assert.equal(attention?.rope, undefined);
    assert.deepEqual([feed.kind, feed.experts], ['gated', undefined]);
  }
  assert.ok(names.includes('blk.0.ssm_in.weight') && !names.includes('blk.0.attn_q.weight'));
  assert.ok(names.includes('blk.1.attn_q.weight') && !names.includes('blk.1.ssm_in.weight'));
  assert.ok(names.includes('blk.0.attn_norm.weight') && names.includes('blk.1.attn_norm.weight'));
  const experts = { expert_count: 4, expert_used_count: 2, expert_shared_feed_forward_length: 64 };
  const { feed } = planOf('granitehybrid', { ...keys, ...experts });
  assert.deepEqual([feed.kind, feed.nFf, feed.experts?.shared], ['experts', 128, { nFf: 64, gated: false }]);
  const alone = planOf('granitehybrid', { ...keys, ...experts, expert_shared_feed_forward_length: 0 });
  assert.equal(alone.feed.experts?.shared, undefined);
});

test('plans: mistral3 has a temperature from the original context on', () => {
  const given = { 'attention.temperature_scale': 0.1, 'rope.scaling.original_context_length': 1024 };
  assert.deepEqual(planOf('mistral3', given).attention[7].temperature, { scale: 0.1, length: 1024 });
  const without = { 'attention.temperature_scale': 0.1 };
  assert.deepEqual(planOf('mistral3', without).attention[0].temperature, { scale: 0.1, length: 8192 });
  assert.equal(planOf('mistral3').attention[0].temperature, undefined);
});

test('plans: lfm2 has convolutions where a layer has no KV heads', () => {
  const heads = [0, 2, 0, 0, 2, 0, 2, 0];
  const keys = { 'attention.head_count_kv': heads, 'shortconv.l_cache': 3 };
  const plan = /** @type {Plan} */ (planOf('lfm2', { ...keys, 'attention.sliding_window': 16 }, 64).plan);
  assert.deepEqual(
    plan.layers.map(({ attention, recurrent }) => [attention?.nKvHeads, attention?.window, recurrent?.kind]),
    heads.map((n) => (n > 0 ? [2, 16, undefined] : [undefined, undefined, 'convolution'])),
  );
  const names = plan.tensors.map(({ name }) => name);
  const has = (/** @type {string} */ name) => names.includes(name);
  assert.ok(
    has('blk.0.shortconv.conv.weight') && has('blk.0.attn_norm.weight') && has('token_embd_norm.weight'),
  );
  assert.ok(has('blk.1.attn_q_norm.weight') && !has('blk.1.shortconv.conv.weight'));
  assert.ok(!has('blk.0.attn_q.weight') && !has('output_norm.weight'));
  const { shared } = plan;
  assert.deepEqual(shared['layers.2.recurrent.x'], { of: 'layers.2.recurrent.in', start: 512, nRows: 256 });
  assert.ok(!Object.keys(shared).some((role) => role.startsWith('layers.0.attention')));
  const whole = planOf('lfm2');
  assert.equal(whole.windows[0], 0);
  const refused = (/** @type {any} */ list, /** @type {RegExp} */ message) =>
    assert.throws(() => planOf('lfm2', { ...keys, 'attention.head_count_kv': list }), refusal(message));
  refused([0, 2], /head_count_kv.*2 values for 8 layers/);
  refused([0, 2, 0, 0, 4, 0, 2, 0], /2 and with 4 KV heads/);
  refused([0, 2, 0, 0, 1.5, 0, 2, 0], /integers/);
  refused([0, 3, 0, 0, 3, 0, 3, 0], /4 heads are no multiple of the 3/);
  assert.throws(() => planOf('lfm2', { ...keys, 'shortconv.l_cache': undefined }), refusal(/l_cache/));
});

test('plans: lfm2moe has experts after the first layers', () => {
  const keys = { ...MIXTURE, expert_feed_forward_length: 96, leading_dense_block_count: 2 };
  const { plan } = planOf('lfm2moe', keys);
  assert.deepEqual(
    plan.layers.map(({ feed }) => [feed.kind, feed.nFf]),
    plan.layers.map((_, i) => (i < 2 ? ['gated', 128] : ['experts', 96])),
  );
  assert.deepEqual(plan.layers[7].feed.experts?.router, {
    ...{ scores: 'sigmoid', over: 'all', normalize: true, scale: 1, nGroups: 1, nGroupsUsed: 1 },
  });
  assert.equal(planOf('lfm2moe', { ...keys, leading_dense_block_count: 0 }).feed.kind, 'experts');
  assert.throws(
    () => planOf('lfm2moe', { ...keys, leading_dense_block_count: 8 }),
    refusal(/leading_dense_block_count.* is 8, the model has 8 layers/),
  );
});

test('plans: arcee has no gate', () => {
  const { feed, names } = planOf('arcee');
  assert.deepEqual([feed.kind, feed.activation], ['plain', 'relu2']);
  assert.ok(!names.includes('blk.0.ffn_gate.weight'));
});

test('plans: YaRN divides slow frequencies by the factor, and keeps fast ones', () => {
  const given = {
    'rope.scaling.type': 'yarn',
    'rope.scaling.factor': 8,
    'rope.scaling.original_context_length': 1024,
  };
  const rope = (/** @type {object} */ keys, architecture = 'llama') =>
    planOf(architecture, { ...given, ...keys }).attention[0].rope ?? assert.fail('no rotation');
  const { divisors, magnitude, linearScale } = rope({});
  // Turns of each of the 32 pairs within the original context.
  const turns = Array.from({ length: 32 }, (_, pair) => (1024 * 10000 ** (-pair / 32)) / (2 * Math.PI));
  const first = turns.findIndex((value) => value < 32) - 1;
  const last = turns.findIndex((value) => value < 1);
  for (const [pair, divisor] of (divisors ?? []).entries()) {
    const part = Math.min(1, Math.max(0, (pair - first) / (last - first)));
    assert.ok(Math.abs(1 / divisor - (1 - part + part / 8)) < 1e-12, `pair ${pair}: ${divisor}`);
  }
  assert.deepEqual([divisors?.length, divisors?.[0], divisors?.[31], linearScale], [32, 1, 8, 1]);
  const m = (/** @type {number} */ multiplier) => 1 + 0.1 * multiplier * Math.log(8);
  assert.ok(Math.abs(magnitude - m(1)) < 1e-12);
  assert.ok(Math.abs(rope({ 'rope.scaling.attn_factor': 0.5 }).magnitude - 0.5 * m(1)) < 1e-12);
  assert.equal(rope({ 'rope.scaling.factor': 0.5 }).magnitude, 1);
  const multiplier = { 'rope.scaling.yarn_log_multiplier': 0.7 };
  assert.ok(Math.abs(rope(multiplier, 'mistral3').magnitude - m(1) / m(0.7)) < 1e-12);
  assert.equal(rope({}, 'mistral3').magnitude, m(1));
  const betas = { 'rope.scaling.yarn_beta_fast': 1000, 'rope.scaling.yarn_beta_slow': 500 };
  // As in llama.cpp, the first pair is kept though it turns less often.
  assert.deepEqual(rope(betas).divisors, [1, ...Array(31).fill(8)]);
  assert.deepEqual(rope({ 'rope.scaling.type': 'longrope' }).divisors, undefined);
  assert.equal(rope({ 'rope.scaling.type': 'longrope' }).linearScale, 8);
});

const MIXTURE = { expert_count: 8, expert_used_count: 2 };

test('plans: experts have a width, a router, and in some architectures a shared one', () => {
  const qwen = planOf('qwen3moe', { ...MIXTURE, expert_feed_forward_length: 96 });
  const { experts, nFf, kind } = qwen.feed;
  assert.deepEqual([kind, nFf, experts?.nExperts, experts?.nUsed], ['experts', 96, 8, 2]);
  assert.deepEqual(experts?.router, {
    ...{ scores: 'softmax', over: 'all', normalize: true, scale: 1, nGroups: 1, nGroupsUsed: 1 },
  });
  assert.deepEqual([experts?.shared, qwen.names.includes('blk.0.ffn_gate.weight')], [undefined, false]);
  const of = (/** @type {string} */ name) => qwen.plan.tensors.find((tensor) => tensor.name === name);
  assert.deepEqual(
    [of('blk.7.ffn_up_exps.weight')?.nRows, of('blk.7.ffn_down_exps.weight')?.nRows],
    [768, 2048],
  );
  // The width of all experts in use, where the file has none for one.
  assert.equal(planOf('qwen2moe', MIXTURE).feed.nFf, 64);
  assert.deepEqual(planOf('qwen2moe', MIXTURE).feed.experts?.shared, { nFf: 128, gated: true });
  const scaled = planOf('olmoe', { ...MIXTURE, expert_weights_scale: 2.5 });
  const { router: own } = scaled.feed.experts ?? {};
  assert.deepEqual([scaled.feed.nFf, own?.normalize, own?.scale], [128, false, 2.5]);
  const granite = { ...MIXTURE, logit_scale: 4 };
  assert.equal(planOf('granitemoe', granite).feed.experts?.shared, undefined);
  const shared = planOf('granitemoe', {
    ...granite,
    expert_shared_feed_forward_length: 32,
    residual_scale: 2,
  });
  assert.deepEqual(shared.feed.experts?.shared, { nFf: 32, gated: false });
  assert.deepEqual([shared.feed.residualScale, shared.plan.head.scale], [2, 0.25]);
  assert.equal(planOf('llama', MIXTURE).feed.experts?.router.normalize, true);
  assert.equal(planOf('llama').feed.kind, 'gated');
  assert.throws(
    () => planOf('qwen3moe', { expert_count: 2, expert_used_count: 3 }),
    refusal(/expert_used_count" is 3, the file has 2 experts/),
  );
  const grouped = { ...MIXTURE, expert_group_count: 4, expert_group_used_count: 2 };
  const router = planOf('qwen3moe', grouped).feed.experts?.router;
  assert.deepEqual([router?.nGroups, router?.nGroupsUsed], [4, 2]);
  for (const wrong of [{ expert_group_count: 3 }, { expert_group_used_count: 5 }])
    assert.throws(() => planOf('qwen3moe', { ...grouped, ...wrong }), refusal(/expert_group_count.* for 8/));
  // The function of the scores is that of the architecture.
  planOf('qwen3moe', { ...MIXTURE, expert_gating_func: 1 });
  planOf('lfm2moe', { ...MIXTURE, expert_gating_func: 2 });
  planOf('gpt-oss', { ...MIXTURE, expert_gating_func: 3 });
  assert.throws(
    () => planOf('qwen3moe', { ...MIXTURE, expert_gating_func: 2 }),
    refusal(/expert_gating_func" is 2 \(sigmoid over all\); supported is 1 \(softmax over all\)/),
  );
  assert.throws(
    () => planOf('qwen3moe', { expert_count: 8, expert_used_count: 3 }),
    refusal(/a width of 128 is not divisible by 3 experts/),
  );
  for (const name of ['qwen3', 'bert'])
    assert.throws(() => planOf(name, MIXTURE), refusal(/not supported for the architecture .*8 experts/));
});

test('plans: gpt-oss has windows in every second layer, clamped gates, sinks and biases', () => {
  const { plan, windows, feed, names } = planOf('gpt-oss', { ...MIXTURE, 'attention.sliding_window': 128 });
  assert.deepEqual(windows.slice(0, 4), [128, 0, 128, 0]);
  assert.deepEqual([feed.activation, feed.experts?.router.over], ['clamped', 'chosen']);
  assert.equal(plan.tensors.find(({ role }) => role === 'layers.3.attention.sinks')?.nCols, 4);
  assert.equal(plan.tensors.find(({ role }) => role === 'layers.3.feed.downBias')?.nRows, 8);
  assert.deepEqual(
    ['blk.0.post_attention_norm.weight', 'blk.0.ffn_norm.weight'].map((name) => names.includes(name)),
    [true, false],
  );
});

test('plans: too many experts are refused by the CPU and by the GPU', () => {
  const { plan } = planOf('olmoe', MIXTURE);
  const run = /** @type {const} */ ({ contextLength: 64, kvType: 'F16' });
  assert.deepEqual(lacksOnGpu(plan, [], run, { bindingBytes: 2 ** 27 }), []);
  assert.deepEqual(lacks(plan, []), []);
  const many = planOf('olmoe', { ...MIXTURE, expert_count: 1025 }).plan;
  assert.deepEqual(lacks(many, []), ['blocks of 1025 experts are not supported; 1024 at most']);
  assert.deepEqual(lacksOnGpu(many, [], run, { bindingBytes: 2 ** 27 }), [
    'blocks of 1025 experts are not supported on the GPU: 1024 at most',
  ]);
});
