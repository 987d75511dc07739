/**
 * Small synthetic models with short convolutions in some layers and attention in the others.
 */
import { floatsOf } from './activations.js';
import { Prng } from './prng.js';
import { makeModel } from './synthetic-llama.js';

/** @import { TensorSpec } from './gguf-bytes.js' */
/** @import { Spec } from './synthetic-llama.js' */

export const LENGTH = 3;

/** @param {string} name @param {number[]} shape @param {() => number} make @returns {TensorSpec} */
const floats = (name, shape, make) => ({
  name,
  typeId: 0,
  shape,
  data: new Uint8Array(
    floatsOf(
      shape.reduce((product, n) => product * n, 1),
      make,
    ).buffer,
  ),
});

/**
 * The file of a model.
 * @param {readonly boolean[]} isRecurrent  for each layer
 * @param {Spec & { tensors?: TensorSpec[] }} [spec]  tensors: more of them
 */
export function makeHybrid(isRecurrent, { tensors: more = [], ...spec } = {}) {
  const { nEmbd = 32, nHeads = 2, nKvHeads = 1, seed = 1 } = spec;
  const prng = new Prng(seed + 1000);
  const nearOne = () => 1 + 0.2 * prng.gaussian();
  const matrix = () => prng.gaussian() / Math.sqrt(nEmbd);
  /** @param {TensorSpec[]} tensors */
  const change = (tensors) => {
    const kept = tensors
      .filter(({ name }) => {
        const [, layer, part] = /^blk\.(\d+)\.attn_(\w+)\./.exec(name) ?? [];
        return layer === undefined || part === 'norm' || !isRecurrent[Number(layer)];
      })
      .map((one) => (one.name === 'output_norm.weight' ? { ...one, name: 'token_embd_norm.weight' } : one));
    const added = isRecurrent.flatMap((recurrent, i) => {
      const named = (/** @type {string} */ part) => `blk.${i}.${part}.weight`;
      if (!recurrent)
        return ['q', 'k'].map((of) => floats(named(`attn_${of}_norm`), [nEmbd / nHeads], nearOne));
      return [
        floats(named('shortconv.in_proj'), [nEmbd, 3 * nEmbd], matrix),
        floats(named('shortconv.conv'), [LENGTH, nEmbd], () => prng.gaussian()),
        floats(named('shortconv.out_proj'), [nEmbd, nEmbd], matrix),
      ];
    });
    return [...kept, ...added, ...more];
  };
  const nKv = {
    of: /** @type {const} */ ('u32'),
    items: isRecurrent.map((recurrent) => (recurrent ? 0 : nKvHeads)),
  };
  return makeModel({
    ...{ nEmbd, nHeads, nKvHeads, nFf: 32, context: 48, tied: true },
    ...spec,
    ...{ architecture: 'lfm2', nLayers: isRecurrent.length, change },
    pairs: {
      'lfm2.attention.head_count_kv': ['lfm2.attention.head_count_kv', 'array', nKv],
      'lfm2.shortconv.l_cache': ['lfm2.shortconv.l_cache', 'u32', LENGTH],
      ...spec.pairs,
    },
  });
}
