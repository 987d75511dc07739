/** Latent attention in a layer of the small synthetic model. */

import { Prng } from './prng.js';

/** @import { AttentionPlan as Plan, Latent, PlannedTensor } from '../../js/llama/plan.js' */
/** @import { TensorSpec } from './gguf-bytes.js' */
/** @import { Spec } from './synthetic-llama.js' */

/** The model of synthetic-llama.js. */
const [N_EMBD, N_HEADS] = [64, 4];
const REPLACED = /attn_[qkv]\.weight$|attn_output\.weight$/;

/**
 * A spec of the model, and the change of its plan.
 * @param {object} [options]
 * @param {number} [options.layer]
 * @param {number} [options.nDims]  values that turn
 * @param {boolean} [options.factors]  whether matrices have factors of their own
 * @param {Partial<Latent>} [options.latent]
 * @returns {[Spec, (plan: Plan) => void]}
 */
export function latentModel({ layer = 0, nDims = 8, factors = false, latent: given } = {}) {
  /** @type {Latent} */
  const latent = {
    ...{ rank: 24, qRank: 0, nopeSize: 12, valueSize: 10, norm: { kind: 'rms', eps: 0.05 } },
    ...given,
  };
  const { rank, qRank, nopeSize, valueSize } = latent;
  const headSize = nDims + rank;
  const nQ = N_HEADS * (nopeSize + nDims);
  /** @type {[role: string, name: string, shape: number[], use: PlannedTensor['use']][]} */
  const parts = [
    ['q', 'attn_q_b', [qRank || N_EMBD, nQ], 'matrix'],
    ['kv', 'attn_kv_a_mqa', [N_EMBD, headSize], 'matrix'],
    ['latentNorm', 'attn_kv_a_norm', [rank], 'vector'],
    ['keyUp', 'attn_k_b', [nopeSize, rank, N_HEADS], 'experts'],
    ['valueUp', 'attn_v_b', [rank, valueSize, N_HEADS], 'experts'],
    ['output', 'attn_out', [N_HEADS * valueSize, N_EMBD], 'matrix'],
  ];
  if (qRank > 0) {
    parts.push(['qDown', 'attn_q_a', [N_EMBD, qRank], 'matrix']);
    parts.push(['qDownNorm', 'attn_q_a_norm', [qRank], 'vector']);
  }
  let prng = new Prng(77);
  /** @param {string} name @param {number[]} shape @param {(i: number) => number} value @returns {TensorSpec} */
  const f32 = (name, shape, value) => {
    const n = shape.reduce((product, size) => product * size, 1);
    const data = new Uint8Array(Float32Array.from({ length: n }, (_, i) => value(i)).buffer);
    return { name, typeId: 0, shape, data };
  };
  const named = (/** @type {string} */ name) => `blk.${layer}.${name}.weight`;
  const isReplaced = (/** @type {string} */ name) => name.startsWith(`blk.${layer}.`) && REPLACED.test(name);
  const matrices = parts.filter(([, , , use]) => use === 'matrix');
  return [
    {
      change: (list) => {
        prng = new Prng(77);
        return [
          ...list.filter(({ name }) => !isReplaced(name)),
          ...parts.map(([, name, shape, use]) =>
            f32(named(name), shape, () =>
              use === 'vector' ? 1 + 0.3 * prng.gaussian() : (1.5 * prng.gaussian()) / Math.sqrt(shape[0]),
            ),
          ),
          ...(factors
            ? matrices.map(([, name], i) => f32(`blk.${layer}.${name}.scale`, [1], () => 0.6 + 0.2 * i))
            : []),
        ];
      },
    },
    (plan) => {
      const { attention } = plan.layers[layer];
      Object.assign(attention, { latent, nKvHeads: 1, headSize });
      Object.assign(attention.rope ?? {}, { pairing: 'adjacent', nDims });
      const role = (/** @type {string} */ part) => `layers.${layer}.attention.${part}`;
      plan.tensors = plan.tensors.filter(({ name }) => !isReplaced(name));
      for (const [part, name, shape, use] of parts) {
        const nRows = shape.slice(1).reduce((product, size) => product * size, 1);
        plan.tensors.push({
          ...{ role: role(part), name: named(name), nRows, nCols: shape[0], use, optional: false },
        });
      }
      plan.shared[role('latent')] = { of: role('kv'), start: 0, nRows: rank };
      plan.shared[role('kRope')] = { of: role('kv'), start: rank, nRows: nDims };
      if (!factors) return;
      for (const [part, name] of matrices) {
        const base = /** @type {const} */ ({ nRows: 1, nCols: 1, use: 'factor', optional: false });
        plan.tensors.push({ role: role(`${part}Factor`), name: `blk.${layer}.${name}.scale`, ...base });
      }
      for (const part of ['latent', 'kRope']) plan.shared[role(`${part}Factor`)] = { of: role('kvFactor') };
    },
  ];
}
