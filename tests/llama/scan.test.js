/**
 * Mamba-2 blocks with settings that no small model of the test data has: groups with norms of their
 * own, no norm and no bias of the convolution. The CPU is compared with float64. Also the metadata
 * that is refused.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama, ModelError } from '../../js/llama/index.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import { distance, peakOf } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { TensorSpec } from '../helpers/gguf-bytes.js' */

/** As in architectures.test.js. */
const RELATIVE = 3e-5;
const [N_EMBD, N_LAYERS] = [32, 2];
const SHAPE = { nHeads: 6, headSize: 8, nGroups: 1, stateSize: 5, hasNorm: true, hasBias: true };
const TOKENS = Array.from({ length: 39 }, (_, i) => 3 + ((i * 7) % 30));

/** @param {Partial<typeof SHAPE>} changes @param {Record<string, number>} [keys] */
function makeFile(changes, keys = {}) {
  const { nHeads, headSize, nGroups, stateSize, hasNorm, hasBias } = { ...SHAPE, ...changes };
  const inner = nHeads * headSize;
  const nChannels = inner + 2 * nGroups * stateSize;
  const prng = new Prng(71);
  const floats = (/** @type {string} */ name, /** @type {number[]} */ shape, scale = 1, mean = 0) => {
    const values = Float32Array.from(
      { length: shape[0] * (shape[1] ?? 1) },
      () => mean + scale * prng.gaussian(),
    );
    return { name, typeId: 0, shape, data: new Uint8Array(values.buffer) };
  };
  /** @param {TensorSpec[]} tensors */
  const change = (tensors) => [
    ...tensors.map((one) => ({ ...one, name: one.name.replace('ffn_norm.weight', 'ffn_norm') })),
    ...Array.from({ length: N_LAYERS }, (_, i) => {
      const added = [
        floats(`blk.${i}.ssm_in.weight`, [N_EMBD, inner + nChannels + nHeads], 0.3),
        floats(`blk.${i}.ssm_conv1d.weight`, [4, nChannels], 0.5),
        floats(`blk.${i}.ssm_dt.bias`, [nHeads]),
        floats(`blk.${i}.ssm_a`, [1, nHeads], 0.3, -1),
        floats(`blk.${i}.ssm_d`, [1, nHeads]),
        floats(`blk.${i}.ssm_out.weight`, [inner, N_EMBD], 0.2),
      ];
      if (hasBias) added.push(floats(`blk.${i}.ssm_conv1d.bias`, [nChannels], 0.3));
      if (hasNorm) added.push(floats(`blk.${i}.ssm_norm.weight`, [inner / nGroups, nGroups], 0.4, 1));
      return added;
    }).flat(),
  ];
  const numbers = {
    'ssm.conv_kernel': 4,
    'ssm.inner_size': inner,
    'ssm.state_size': stateSize,
    'ssm.time_step_rank': nHeads,
    'ssm.group_count': nGroups,
    ...keys,
  };
  const pairs = Object.fromEntries(
    Object.entries(numbers).map(([name, value]) => {
      const key = `falcon-h1.${name}`;
      return [key, /** @type {[string, 'u32', number]} */ ([key, 'u32', value])];
    }),
  );
  const { bytes } = makeModel({
    ...{ architecture: 'falcon-h1', nLayers: N_LAYERS, nEmbd: N_EMBD, nHeads: 2, nKvHeads: 1, nFf: 32 },
    ...{ context: 48, change, pairs },
  });
  return /** @type {ArrayBuffer} */ (bytes.buffer);
}

const SETTINGS = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });

/** @param {ArrayBuffer} file @param {Backend} backend */
async function logits(file, backend) {
  const model = await Llama.loadTo(async () => backend, file, SETTINGS);
  try {
    return await model.logits(TOKENS);
  } finally {
    model.dispose();
  }
}

test('scan: groups, norms and biases, on the CPU and in float64', async (t) => {
  const seen = new Set();
  for (const changes of [
    {},
    { nGroups: 2 },
    { nGroups: 3, headSize: 4, stateSize: 16 },
    { nGroups: 2, hasNorm: false },
    { hasNorm: false, hasBias: false },
  ]) {
    const file = makeFile(changes);
    const expected = await logits(file.slice(0), new ReferenceBackend());
    for (const isa of /** @type {const} */ (['scalar', 'simd128'])) {
      const backend = await openWasmBackend(undefined, { isa, threads: 1 }, SETTINGS);
      const { max } = distance(await logits(file.slice(0), backend), expected);
      t.diagnostic(`ran: ${JSON.stringify(changes)}, ${isa}: largest difference ${max.toExponential(1)}`);
      assert.ok(max <= RELATIVE * peakOf(expected), `${JSON.stringify(changes)}, ${isa}: ${max}`);
    }
    seen.add(expected[0]);
  }
  assert.equal(seen.size, 5, 'every setting has an effect');
});

test('scan: sizes that do not divide are refused by name', async () => {
  for (const [keys, message] of /** @type {const} */ ([
    [{ 'ssm.time_step_rank': 5 }, /"falcon-h1.ssm.time_step_rank" is 5, which does not divide 48/],
    [{ 'ssm.group_count': 4 }, /"falcon-h1.ssm.group_count" is 4, which does not divide 6/],
    [{ 'ssm.conv_kernel': 0 }, /"falcon-h1.ssm.conv_kernel" must be an integer over 0, got 0/],
  ])) {
    await assert.rejects(Llama.load(makeFile({}, keys)), (error) => {
      assert.ok(error instanceof ModelError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
});
