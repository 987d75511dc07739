/**
 * LoRA adapters as convert_lora_to_gguf writes them, and models with their additions merged into the
 * weights: W + scale * alpha / rank * B * A, in float64, written as F32. It knows no plan, only names
 * and shapes of tensors.
 */
import { openGguf } from '../../js/gguf/index.js';
import { makeWeights } from './blocks.js';
import { pairOf } from './changed-gguf.js';
import { ggufBytes } from './gguf-bytes.js';
import { Prng } from './prng.js';
import { dequantizeF64, referenceByName } from './reference.js';

/** @import { GgufSource } from '../../js/gguf/source.js' */
/** @import { GgufTensor } from '../../js/gguf/index.js' */
/** @import { Pair, TensorSpec } from './gguf-bytes.js' */
/** @import { ReferenceType } from './reference.js' */

/** Tensors that are no matrices of products, or belong to the heads of latent attention. */
const OTHERS = /norm|conv|token_types|position_embd|per_layer_token_embd|attn_(k|v|kv)_b\.|rope_|ssm_[ad]/;
const EMBEDDING = 'token_embd.weight';

/**
 * @typedef {object} AdapterSpec
 * @property {string} [architecture]
 * @property {number} [rank]
 * @property {number} [alpha]
 * @property {string} [type]  of all tensors
 * @property {number} [seed]
 * @property {Record<string, readonly number[]>} shapes  of the matrices of the model, by name
 * @property {Record<string, any>} [metadata]  more, or other, metadata; undefined: none
 * @property {(tensors: TensorSpec[]) => TensorSpec[]} [change]  changes the tensors before they are
 *   written
 */

/** @param {string} name @param {string} typeName @param {number[]} shape @param {Prng} prng */
function matrix(name, typeName, shape, prng) {
  const type = /** @type {ReferenceType} */ (referenceByName.get(typeName));
  const nRows = shape.slice(1).reduce((product, n) => product * n, 1);
  return { name, typeId: type.id, shape, data: makeWeights(type, 'natural', nRows, shape[0], prng) };
}

/** @param {AdapterSpec} spec @returns {Uint8Array<ArrayBuffer>} the file */
export function makeAdapter({ shapes, metadata = {}, change = (tensors) => tensors, ...spec }) {
  const { architecture = 'llama', rank = 4, alpha = 16, type = 'F32', seed = 1 } = spec;
  const prng = new Prng(seed);
  const tensors = Object.entries(shapes).flatMap(([name, [nIn, nOut, ...experts]]) => {
    const isTable = name === EMBEDDING;
    // The table of the embedding has a row of a for each token.
    const [a, b] = isTable
      ? [
          [rank, nOut],
          [rank, nIn],
        ]
      : [
          [nIn, rank, ...experts],
          [rank, nOut, ...experts],
        ];
    return [matrix(`${name}.lora_a`, type, a, prng), matrix(`${name}.lora_b`, type, b, prng)];
  });
  const all = {
    'general.type': 'adapter',
    'general.architecture': architecture,
    'general.name': `adapter ${seed}`,
    'adapter.type': 'lora',
    ...metadata,
  };
  /** @type {Pair[]} */
  const pairs = Object.entries(all)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => pairOf(key, value));
  if (!('adapter.lora.alpha' in metadata)) pairs.push(['adapter.lora.alpha', 'f32', alpha]);
  return ggufBytes({ pairs, tensors: change(tensors) }).bytes;
}

/**
 * The shapes of all matrices of a model that an adapter may change.
 * @param {GgufSource} source
 */
export async function shapesOf(source) {
  const gguf = await openGguf(source);
  gguf.close();
  return Object.fromEntries(
    [...gguf.tensors.values()]
      .filter(({ name, shape }) => shape.length > 1 && name.endsWith('.weight') && !OTHERS.test(name))
      .map(({ name, shape }) => [name, shape]),
  );
}

/** @param {import('../../js/gguf/index.js').GgufFile} gguf @param {GgufTensor} tensor */
async function valuesOf(gguf, { name, type }) {
  const known = /** @type {ReferenceType} */ (referenceByName.get(type));
  return Float64Array.from(dequantizeF64(known, await gguf.read(name)).values);
}

/**
 * @param {GgufSource} source
 * @param {{ source: Uint8Array, scale?: number }[]} adapters
 * @returns {Promise<ArrayBuffer>} the model with the additions in its weights
 */
export async function mergeAdapters(source, adapters) {
  const gguf = await openGguf(source);
  /** @type {Map<string, { shape: readonly number[], values: Float64Array }>} */
  const merged = new Map();
  for (const tensor of gguf.tensors.values())
    merged.set(tensor.name, { shape: tensor.shape, values: await valuesOf(gguf, tensor) });
  // The output matrix of a tied model is not changed together with the embedding.
  const table = merged.get(EMBEDDING);
  if (table && !merged.has('output.weight') && !isEncoder(gguf))
    merged.set('output.weight', { shape: table.shape, values: table.values.slice() });
  for (const { source: bytes, scale = 1 } of adapters) {
    const file = await openGguf(bytes);
    const alpha = Number(file.metadata['adapter.lora.alpha'] ?? 0);
    for (const tensor of file.tensors.values()) {
      const [, name] = /^(.*)\.lora_a$/.exec(tensor.name) ?? [];
      if (!name) continue;
      const ofB = file.tensor(`${name}.lora_b`);
      const [a, b] = [await valuesOf(file, tensor), await valuesOf(file, ofB)];
      const rank = ofB.nCols;
      const factor = alpha ? (scale * alpha) / rank : scale;
      const { shape, values } = /** @type {NonNullable<typeof table>} */ (merged.get(name));
      const [nIn, nOut, nExperts = 1] = shape;
      // Products are multiplied by them, additions are not. A router may have another use for the name.
      const scales = merged.get(name.replace('.weight', '.scale'))?.values;
      const factors = scales?.length === nExperts ? scales : undefined;
      for (let e = 0; e < nExperts; e++) {
        for (let row = 0; row < nOut; row++) {
          for (let col = 0; col < nIn; col++) {
            let sum = 0;
            for (let r = 0; r < rank; r++) {
              sum +=
                name === EMBEDDING
                  ? a[row * rank + r] * b[col * rank + r]
                  : a[(e * rank + r) * nIn + col] * b[(e * nOut + row) * rank + r];
            }
            values[(e * nOut + row) * nIn + col] += (factor / (factors?.[e] ?? 1)) * sum;
          }
        }
      }
    }
  }
  const pairs = Object.entries(gguf.metadata)
    // The parser adds values about the file itself.
    .filter(([key]) => key.includes('.'))
    .map(([key, value]) => pairOf(key, value));
  const tensors = [...merged].map(([name, { shape, values }]) => ({
    ...{ name, typeId: 0, shape: [...shape] },
    data: new Uint8Array(Float32Array.from(values).buffer),
  }));
  return ggufBytes({ pairs, tensors }).bytes.buffer;
}

/** Encoders have no output matrix. @param {import('../../js/gguf/index.js').GgufFile} gguf */
const isEncoder = ({ metadata }) => /bert|gemma-embedding/.test(String(metadata['general.architecture']));
