/**
 * Synthetic models whose plans a test changes, and their logits on a backend.
 */
import assert from 'node:assert/strict';
import { Decoder } from '../../js/llama/decoder.js';
import { createKernels, openGguf } from '../../js/llama/index.js';
import { Lease } from '../../js/llama/lease.js';
import { Pace } from '../../js/llama/pause.js';
import { planModel } from '../../js/llama/plan.js';
import { checkTensors } from '../../js/llama/weights.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { floatsOf } from './activations.js';
import { TOKENS } from './llama.js';
import { Prng } from './prng.js';
import { makeModel } from './synthetic-llama.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { AttentionPlan as Plan } from '../../js/llama/plan.js' */
/** @import { Spec } from './synthetic-llama.js' */

export const settings = /** @type {const} */ ({ contextLength: 16, kvType: 'F32' });

/** @param {string} name @param {number} n @param {number} seed @param {number} [mean] */
export function vector(name, n, seed, mean = 1) {
  const prng = new Prng(seed);
  const values = floatsOf(n, () => mean + 0.3 * prng.gaussian());
  return { name, typeId: 0, shape: [n], data: new Uint8Array(values.buffer) };
}

/** @param {string} name @param {number} nRows @param {number} nCols @param {number} seed */
export const matrix = (name, nRows, nCols, seed) => ({
  ...vector(name, nRows * nCols, seed, 0),
  shape: [nCols, nRows],
});

/** @param {Spec} spec @param {(plan: Plan) => void} change */
export async function planned(spec, change) {
  const gguf = await openGguf(makeModel(spec).bytes.buffer);
  const plan = /** @type {Plan} */ (planModel(gguf.metadata));
  change(plan);
  return { gguf, plan, tensors: checkTensors(gguf, plan) };
}

/** @param {Awaited<ReturnType<typeof planned>>} model @param {Backend} backend */
export async function load({ gguf, plan, tensors }, backend) {
  assert.deepEqual(
    backend.lacks(
      plan,
      tensors.map(({ name }) => gguf.tensor(name)),
      settings,
    ),
    [],
  );
  return backend.loadWeights(gguf, plan, tensors, { otherBytes: 0 });
}

/**
 * Logits of all tokens, as a batch and then token by token.
 * @param {Awaited<ReturnType<typeof planned>>} model @param {Backend} backend
 */
export async function logitsOf(model, backend) {
  const weights = await load(model, backend);
  const decoder = new Decoder(backend, model.plan, weights.byRole, settings);
  const pace = () => new Pace(new Lease('logits', TOKENS.length, undefined));
  const rows = [];
  for (let start = 0; start < TOKENS.length; ) {
    const n = start < 9 ? 3 : 1;
    await decoder.forward(TOKENS.slice(start, start + n), start, pace());
    for (let row = 0; row < n; row++) rows.push(...(await decoder.logits(row, 1, pace())));
    start += n;
  }
  decoder.free();
  weights.free();
  return Float32Array.from(rows);
}

/** @param {import('node:test').TestContext} t */
export async function wasmBackend(t) {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  return new WasmBackend(fm, { activation: 'f32', kvType: 'F32', ownsKernels: false });
}
