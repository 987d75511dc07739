/**
 * Recurrent blocks in layers of every form: the CPU computes what float64 JavaScript does; and what
 * the devices cannot compute is said by name.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openGguf } from '../../js/gguf/index.js';
import { lacks as lacksOfGpu, sizes as sizesOfGpu } from '../../js/gpu/fit.js';
import { Decoder } from '../../js/llama/decoder.js';
import { createKernels } from '../../js/llama/index.js';
import { Lease } from '../../js/llama/lease.js';
import { Pace } from '../../js/llama/pause.js';
import { planModel } from '../../js/llama/plan.js';
import { checkTensors } from '../../js/llama/weights.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { RecurrentState } from '../../js/wasm/recurrent/state.js';
import { close, distance } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { ReferenceState } from '../helpers/reference-recurrent.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { Plan } from '../../js/llama/plan.js' */
/** @import { TensorSpec } from '../helpers/gguf-bytes.js' */

/** As in tests/llama/architectures.test.js. */
const RELATIVE = 3e-5;
const N_EMBD = 32;
const TOKENS = [1, 17, 5, 30, 8, 8, 21, 39, 4, 12, 33, 7];
const settings = /** @type {const} */ ({ contextLength: 24, kvType: 'F32' });

/** @param {string} name @param {number} seed @param {number[]} [shape] @returns {TensorSpec} */
function numbers(name, seed, shape = [N_EMBD]) {
  const prng = new Prng(seed);
  const length = shape.reduce((product, n) => product * n, 1);
  const values = Float32Array.from({ length }, () => 0.4 + 0.3 * prng.gaussian());
  return { name, typeId: 0, shape, data: new Uint8Array(values.buffer) };
}

/** @param {Plan} plan @param {string} role @param {string} name @param {'bias' | 'vector' | 'values'} use @param {number} [nRows] @param {number} [nCols] */
const addTensor = (plan, role, name, use, nRows = 1, nCols = N_EMBD) =>
  plan.tensors.push({ role, name, nRows, nCols, use, optional: false });

/**
 * Forms of a model whose first and last layers are recurrent: tensors that the file has in addition,
 * and the change of its plan.
 * @type {Record<string, [TensorSpec[], (plan: Plan) => void]>}
 */
const FORMS = {
  'as it is': [[], () => {}],
  'biases of the products and of the convolution': [
    [
      numbers('blk.0.shortconv.x', 1),
      numbers('blk.0.shortconv.out', 2),
      numbers('blk.0.shortconv.conv.bias', 3),
    ],
    (plan) => {
      addTensor(plan, 'layers.0.recurrent.xBias', 'blk.0.shortconv.x', 'bias');
      addTensor(plan, 'layers.0.recurrent.outputBias', 'blk.0.shortconv.out', 'bias');
      addTensor(plan, 'layers.0.recurrent.convBias', 'blk.0.shortconv.conv.bias', 'bias');
    },
  ],
  'factors of the products': [
    [numbers('blk.2.shortconv.in_proj.scale', 4, [1]), numbers('blk.2.shortconv.out_proj.scale', 5, [1])],
    () => {},
  ],
  'a norm of the output, and a residual scale': [
    [numbers('blk.0.post_norm.weight', 6)],
    (plan) => {
      addTensor(plan, 'layers.0.recurrent.postNorm', 'blk.0.post_norm.weight', 'vector');
      Object.assign(plan.layers[0].recurrent ?? {}, { postNorm: { kind: 'rms', eps: 1e-3 } });
      Object.assign(plan.layers[2].recurrent ?? {}, { residualScale: 0.35 });
    },
  ],
  'attention and a recurrent block in one layer': [
    [
      numbers('blk.1.shortconv.in_proj.weight', 7, [N_EMBD, 3 * N_EMBD]),
      numbers('blk.1.shortconv.conv.weight', 8, [4, N_EMBD]),
      numbers('blk.1.shortconv.out_proj.weight', 9, [N_EMBD, N_EMBD]),
    ],
    (plan) => {
      // The block of the first layer, with longer convolutions.
      const { recurrent } = plan.layers[0];
      assert.ok(recurrent?.kind === 'convolution');
      plan.layers[1].recurrent = { ...recurrent, length: 4, residualScale: 0.2 };
      for (const tensor of [...plan.tensors]) {
        if (!tensor.role.startsWith('layers.0.recurrent.') || tensor.optional) continue;
        const [role, name] = [tensor.role, tensor.name].map((of) => of.replace(/(layers|blk)\.0/, '$1.1'));
        const nCols = role.endsWith('.conv') ? 4 : tensor.nCols;
        if (!role.endsWith('.norm')) plan.tensors.push({ ...tensor, role, name, nCols });
      }
      for (const [i, part] of ['b', 'c', 'x'].entries())
        plan.shared[`layers.1.recurrent.${part}`] = {
          ...{ of: 'layers.1.recurrent.in', start: i * N_EMBD, nRows: N_EMBD },
        };
      plan.shared['layers.1.recurrent.norm'] = { of: 'layers.1.attention.norm' };
    },
  ],
};

/** @param {[TensorSpec[], (plan: Plan) => void]} form */
async function planned([tensors, change]) {
  const made = makeHybrid([true, false, true], { tensors });
  const gguf = await openGguf(/** @type {ArrayBuffer} */ (made.bytes.buffer));
  const plan = planModel(gguf.metadata);
  change(plan);
  return { gguf, plan, tensors: checkTensors(gguf, plan) };
}

/**
 * Logits of all tokens, in batches of several sizes.
 * @param {Awaited<ReturnType<typeof planned>>} model @param {Backend} backend
 */
async function logitsOf({ gguf, plan, tensors }, backend) {
  const present = tensors.map(({ name }) => gguf.tensor(name));
  assert.deepEqual(backend.lacks(plan, present, settings), []);
  const weights = await backend.loadWeights(gguf, plan, tensors, { otherBytes: 0 });
  const decoder = new Decoder(backend, plan, weights.byRole, settings);
  const rows = [];
  const steps = [3, 1, 1, 3, 2, 1, 1];
  for (let start = 0; start < TOKENS.length; ) {
    const n = /** @type {number} */ (steps.shift());
    const pace = new Pace(new Lease('logits', TOKENS.length, undefined));
    await decoder.forward(TOKENS.slice(start, start + n), start, pace);
    for (let row = 0; row < n; row++) rows.push(...(await decoder.logits(row, 1, pace)));
    start += n;
  }
  decoder.free();
  weights.free();
  return Float32Array.from(rows);
}

for (const [name, form] of Object.entries(FORMS)) {
  test(`recurrent blocks: wasm computes what float64 JavaScript does, ${name}`, async (t) => {
    const fm = await createKernels({ threads: 1 });
    t.after(() => fm.dispose());
    const wasm = new WasmBackend(fm, { activation: 'f32', kvType: 'F32', ownsKernels: false });
    const model = await planned(form);
    const expected = await logitsOf(model, new ReferenceBackend());
    close(await logitsOf(model, wasm), expected, RELATIVE, 'logits');
    assert.equal(fm.memory().handles, 0, 'everything is given back');
    const without = await logitsOf(await planned(FORMS['as it is']), new ReferenceBackend());
    const moved = distance(expected, without).max;
    if (name === 'as it is') assert.equal(moved, 0);
    else assert.ok(moved > 0.01, `the form shows: ${moved}`);
  });
}

test('recurrent blocks: the decoder goes on where every state can', async () => {
  const backend = new ReferenceBackend({ part: 3 });
  const { gguf, plan, tensors } = await planned(FORMS['as it is']);
  const weights = await backend.loadWeights(gguf, plan, tensors, { otherBytes: 0 });
  const decoder = new Decoder(backend, plan, weights.byRole, settings);
  const [one, two] = backend.made.filter((made) => made instanceof ReferenceState);
  const keeps = (
    /** @type {[number, number]} */ first,
    /** @type {[number, number]} */ second,
    /** @type {number} */ asked,
  ) => {
    [one.position, one.savedAt] = first;
    [two.position, two.savedAt] = second;
    return decoder.keeps(asked);
  };
  assert.equal(keeps([7, 5], [7, 5], 7), 7);
  assert.equal(keeps([7, 5], [7, 5], 9), 7);
  assert.equal(keeps([7, 5], [7, 5], 6), 5);
  assert.equal(keeps([7, 5], [7, 5], 4), 0);
  assert.equal(keeps([7, 5], [8, 5], 8), 5);
  assert.equal(keeps([7, 5], [9, 7], 8), 7);
  assert.equal(keeps([7, 5], [9, 8], 9), 0);
  assert.equal(keeps([-1, 5], [-1, 5], 9), 5);
  assert.equal(keeps([-1, -1], [-1, -1], 9), 0);
  const texts = [
    { start: 0, nRows: 1 },
    { start: 1, nRows: 2 },
  ];
  [one.position, two.position] = [0, 0];
  const pace = new Pace(new Lease('embed', 3, undefined));
  await decoder.forward([5, 6, 7], 0, pace, texts);
  await decoder.idle(pace);
  for (const asked of [1, 2, 3]) assert.equal(decoder.keeps(asked), 0, 'after several texts');
});

test('recurrent blocks: a state goes on where it is, from its copy or from 0, and nowhere else', async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const { plan } = await planned(FORMS['as it is']);
  const [recurrent] = plan.layers.flatMap((layer) => layer.recurrent ?? []);
  const state = new RecurrentState(fm, recurrent);
  const { columns } = state.parts;
  /** Each token adds its row to the state. */
  const over = (/** @type {number} */ position, /** @type {number} */ nTokens) => {
    state.over({ position, nTokens }, ({ start, nRows }) => {
      const values = columns.toArray();
      for (let t = start; t < start + nRows; t++) values[0] += 10 ** (position + t);
      columns.set(values);
    });
    return [columns.toArray()[0], state.position, state.savedAt];
  };
  assert.deepEqual(over(0, 3), [111, 3, 2]);
  assert.deepEqual(over(3, 1), [1111, 4, 2]);
  assert.deepEqual(over(2, 1), [111, 3, 2]);
  assert.deepEqual(over(3, 2), [11111, 5, 4]);
  assert.throws(() => over(3, 1), /position 3: its states are those of 5 and 4/);
  assert.throws(
    () =>
      state.over({ position: 5, nTokens: 1 }, () => {
        throw new Error('out of memory');
      }),
    /out of memory/,
  );
  assert.throws(() => over(5, 1), /position 5/);
  assert.deepEqual(over(4, 1), [11111, 5, 4]);
  assert.deepEqual(over(0, 1), [1, 1, 0]);
  state.forget();
  assert.throws(() => over(1, 1), /position 1/);
  state.free();
  assert.equal(state.freed, true);
});

test('recurrent blocks: memory of states is counted, and allocated', async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const wasm = new WasmBackend(fm, { activation: 'f32', kvType: 'F32', ownsKernels: false });
  const { plan } = await planned(FORMS['as it is']);
  const [recurrent] = plan.layers.flatMap((layer) => layer.recurrent ?? []);
  const { kvBytes, batch, part, workspaceBytes } = wasm.sizes(plan, settings);
  const cacheBytes = 2 * 4 * settings.contextLength * 16;
  // Two layers, each with two columns of 32 values, and a copy of them.
  assert.equal(kvBytes, cacheBytes + 2 * 2 * 4 * 2 * N_EMBD);
  const before = fm.memory().tensors;
  const state = wasm.state(recurrent);
  assert.equal(fm.memory().tensors - before, 2 * 4 * 2 * N_EMBD);
  state.free();
  const hidden = wasm.hidden(plan, { batch, part });
  assert.ok(fm.memory().tensors - before <= workspaceBytes);
  hidden.free();
});

test('recurrent blocks: what a device cannot compute is said by name', async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const wasm = new WasmBackend(fm, { activation: 'f32', kvType: 'F32', ownsKernels: false });
  const { plan, gguf, tensors } = await planned(FORMS['as it is']);
  const present = tensors.map(({ name }) => gguf.tensor(name));
  assert.deepEqual(lacksOfGpu(plan, present, settings, { bindingBytes: 2 ** 27 }), []);
  // A state, and its copy.
  const alone = { ...plan, layers: plan.layers.slice(0, 1) };
  assert.equal(sizesOfGpu(alone, settings).kvBytes, 2 * 4 * 2 * N_EMBD);
  const lacksWith = (/** @type {object} */ change) => {
    const broken = structuredClone(plan);
    Object.assign(broken.layers[0].recurrent ?? {}, change);
    return wasm.lacks(broken, present, settings).join();
  };
  assert.match(lacksWith({ kind: 'spiral' }), /recurrent blocks of kind "spiral"/);
  assert.match(lacksWith({ length: 17 }), /convolutions of length 17 .* 2 to 16 tokens/);
  assert.match(lacksWith({ length: 1 }), /convolutions of length 1 /);
  assert.match(lacksWith({ norm: { kind: 'layer', eps: 1 } }), /norms of kind "layer" before recurrent/);
  assert.match(lacksWith({ postNorm: { kind: 'group', eps: 1 } }), /norms of kind "group"/);
});
