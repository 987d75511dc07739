/* The tensors of a model: which there must be, of which shape, and how they get into wasm memory. Everything is checked against
 * the file's header before the first byte of a weight is read. */

import { GgufError, MemoryError, ShapeError, show } from '../errors.js';
import { servedType } from '../types.js';
import { Handle } from '../wasm/handles.js';
import { ModelError } from './errors.js';

/** @typedef {import('../wasm/fused.js').FusedKernels} Kernels */
/** @typedef {import('../gguf/index.js').GgufFile} GgufFile */
/** @typedef {import('../wasm/handles.js').Tensor} Tensor */
/** @typedef {import('../wasm/handles.js').Weight} Weight */
/** @typedef {import('./architectures/index.js').Hyperparameters} Hyperparameters */

/** One row of numbers: as a weight, so that it can be copied to many rows, and as a tensor. @typedef {{ weight: Weight, tensor: Tensor }} Bias */

/**
 * @typedef {object} Layer
 * @property {Tensor} attnNorm
 * @property {Weight[]} qkv
 * @property {(Bias | undefined)[]} bias  of q, k and v
 * @property {(Tensor | undefined)[]} headNorm  of q and k
 * @property {Weight} output
 * @property {import('../wasm/fused.js').FfnWeights} ffn
 */

/**
 * @typedef {object} Weights
 * @property {Weight} embedding
 * @property {Layer[]} layers
 * @property {Tensor} norm
 * @property {Weight} output  the embedding, where they are tied
 * @property {Tensor | undefined} ropeFactors
 */

const ADDRESS_SPACE = 2 ** 32;

/**
 * The tensors of a model by role: [name, rows, columns, how it is used]. A name that ends with ? may be absent.
 * @param {Hyperparameters} shape
 * @param {number} nVocab
 */
function* plan({ row, nLayers, nEmbd, nFf, nHeads, nKvHeads, headSize, rope }, nVocab) {
  const [q, kv] = [nHeads * headSize, nKvHeads * headSize];
  yield* table([
    ['token_embd.weight', nVocab, nEmbd, 'matrix'],
    ['output_norm.weight', 1, nEmbd, 'vector'],
    ['output.weight?', nVocab, nEmbd, 'matrix'],
    ['rope_freqs.weight?', 1, rope.nDims / 2, 'vector'],
  ]);
  for (let i = 0; i < nLayers; i++) {
    const optional = row.bias ? '' : '?';
    yield* table([
      [`blk.${i}.attn_norm.weight`, 1, nEmbd, 'vector'],
      [`blk.${i}.attn_q.weight`, q, nEmbd, 'matrix'],
      [`blk.${i}.attn_k.weight`, kv, nEmbd, 'matrix'],
      [`blk.${i}.attn_v.weight`, kv, nEmbd, 'matrix'],
      [`blk.${i}.attn_q.bias${optional}`, 1, q, 'bias'],
      [`blk.${i}.attn_k.bias${optional}`, 1, kv, 'bias'],
      [`blk.${i}.attn_v.bias${optional}`, 1, kv, 'bias'],
      [`blk.${i}.attn_output.weight`, nEmbd, q, 'matrix'],
      [`blk.${i}.ffn_norm.weight`, 1, nEmbd, 'vector'],
      [`blk.${i}.ffn_gate.weight`, nFf, nEmbd, 'matrix'],
      [`blk.${i}.ffn_up.weight`, nFf, nEmbd, 'matrix'],
      [`blk.${i}.ffn_down.weight`, nEmbd, nFf, 'matrix'],
    ]);
    if (!row.headNorm) continue;
    yield* table([
      [`blk.${i}.attn_q_norm.weight`, 1, headSize, 'vector'],
      [`blk.${i}.attn_k_norm.weight`, 1, headSize, 'vector'],
    ]);
  }
}

/** @typedef {'matrix' | 'vector' | 'bias'} Use */
/** @param {[string, number, number, Use][]} rows */
const table = (rows) =>
  rows.map(([name, nRows, nCols, use]) => ({
    name: name.replace('?', ''),
    optional: name.endsWith('?'),
    nRows,
    nCols,
    use,
  }));

/**
 * The tensors that will be loaded, in the order of the file.
 * @param {GgufFile} gguf
 * @param {Hyperparameters} shape
 * @param {number} nVocab
 * @throws {GgufError} a tensor is missing  @throws {ShapeError} one has another shape
 * @throws {ModelError} one has a type without kernels, or changes the computation in a way that is not supported
 */
export function checkTensors(gguf, shape, nVocab) {
  const wanted = [...plan(shape, nVocab)];
  const missing = wanted.filter(({ name, optional }) => !optional && !gguf.tensors.has(name));
  if (missing.length > 0) {
    const names = missing.slice(0, 3).map(({ name }) => show(name));
    throw new GgufError(
      `${missing.length} of the tensors of a ${shape.architecture} model are missing: ${names.join(', ')}${missing.length > 3 ? ', ...' : ''}`,
      { tensor: missing[0].name },
    );
  }
  const present = wanted.filter(({ name }) => gguf.tensors.has(name));
  for (const { name, nRows, nCols } of present) {
    const tensor = gguf.tensor(name);
    if (tensor.nRows !== nRows || tensor.nCols !== nCols) {
      const at = tensor.nRows === nRows ? 'nCols' : 'nRows';
      throw new ShapeError(
        `tensor ${show(name)} is ${tensor.nRows}x${tensor.nCols}, expected ${nRows}x${nCols}`,
        { got: tensor[at], expected: at === 'nRows' ? nRows : nCols },
      );
    }
  }
  const unserved = present.map(({ name }) => gguf.tensor(name)).filter(({ supported }) => !supported);
  if (unserved.length > 0) {
    const types = [...new Set(unserved.map(({ type }) => type))].join(', ');
    throw new ModelError(
      `${unserved.length} tensors have types without kernels (${types}), the first is ${show(unserved[0].name)}`,
    );
  }
  const known = new Set(present.map(({ name }) => name));
  const others = [...gguf.tensors.keys()].filter((name) => !known.has(name));
  if (others.length > 0) {
    const names = others.slice(0, 3).map(show);
    throw new ModelError(
      `the file has ${others.length} tensors that a ${shape.architecture} model does not use: ${names.join(', ')}${others.length > 3 ? ', ...' : ''}`,
    );
  }
  return present.sort((a, b) => gguf.tensor(a.name).offset - gguf.tensor(b.name).offset);
}

/** @typedef {ReturnType<typeof checkTensors>} Plan */

/**
 * Loads what checkTensors found: all of it, or on any failure nothing.
 * @param {Kernels} fm
 * @param {GgufFile} gguf
 * @param {Hyperparameters} shape
 * @param {Plan} tensors
 * @param {object} options
 * @param {number} options.otherBytes  that the model will need beside its weights
 * @param {(progress: { loaded: number, total: number }) => void} [options.onProgress]
 * @param {AbortSignal} [options.signal]
 * @returns {Promise<Weights>}
 */
export async function loadWeights(fm, gguf, shape, tensors, { otherBytes, onProgress, signal }) {
  const names = tensors.map(({ name }) => name);
  const total = names.reduce((sum, name) => sum + gguf.tensor(name).byteLength, 0);
  const { inUse } = fm.memory();
  // With 64-bit addresses the memory itself says when it is full.
  if (!fm.info.memory64 && inUse + total + otherBytes > ADDRESS_SPACE) {
    throw new MemoryError(
      `the model needs ${total} bytes for weights and ${otherBytes} for its context and workspace: with the ${inUse} in use more than the ${ADDRESS_SPACE} a memory of 32-bit addresses can have`,
      { asked: total + otherBytes, inUse, limit: ADDRESS_SPACE },
    );
  }
  const weights = await fm.loadWeights(gguf, names, { onProgress, signal });
  /** @type {Map<string, any>} */
  const loaded = new Map();
  try {
    for (const [i, { name, use }] of tensors.entries()) loaded.set(name, prepare(fm, weights[i], use));
  } catch (error) {
    for (const one of [...weights, ...loaded.values()]) freePrepared(one);
    throw error;
  }
  return arrange(loaded, shape);
}

/**
 * @param {Kernels} fm
 * @param {Weight} weight
 * @param {Use} use
 * @returns {Weight | Tensor | Bias}
 */
function prepare(fm, weight, use) {
  if (use === 'matrix') return weight;
  const tensor = fm.tensor({ nRows: 1, nCols: weight.nCols });
  fm.dequantize(weight, { out: tensor });
  if (use === 'bias') return { weight, tensor };
  weight.free();
  return tensor;
}

/** @param {Weight | Tensor | Bias} one */
function freePrepared(one) {
  const handles = 'tensor' in one ? [one.weight, one.tensor] : [one];
  for (const handle of handles) if (!handle.freed) handle.free();
}

/**
 * @param {Map<string, any>} loaded
 * @param {Hyperparameters} shape
 * @returns {Weights}
 */
function arrange(loaded, { nLayers }) {
  const layers = Array.from({ length: nLayers }, (_, i) => {
    const of = (/** @type {string} */ name) => loaded.get(`blk.${i}.${name}`);
    return {
      attnNorm: of('attn_norm.weight'),
      qkv: [of('attn_q.weight'), of('attn_k.weight'), of('attn_v.weight')],
      bias: [of('attn_q.bias'), of('attn_k.bias'), of('attn_v.bias')],
      headNorm: [of('attn_q_norm.weight'), of('attn_k_norm.weight')],
      output: of('attn_output.weight'),
      ffn: {
        gate: of('ffn_gate.weight'),
        up: of('ffn_up.weight'),
        down: of('ffn_down.weight'),
        norm: of('ffn_norm.weight'),
      },
    };
  });
  const embedding = loaded.get('token_embd.weight');
  return {
    embedding,
    layers,
    norm: loaded.get('output_norm.weight'),
    output: loaded.get('output.weight') ?? embedding,
    ropeFactors: loaded.get('rope_freqs.weight'),
  };
}

/** @param {Weights} weights */
export function freeWeights({ embedding, layers, norm, output, ropeFactors }) {
  const ofLayers = layers.flatMap(({ attnNorm, qkv, bias, headNorm, output: projection, ffn }) => [
    ...[attnNorm, ...qkv, ...headNorm, projection, ...Object.values(ffn)],
    ...bias.flatMap((one) => (one ? [one.weight, one.tensor] : [])),
  ]);
  for (const handle of [embedding, norm, output, ropeFactors, ...ofLayers]) {
    if (handle instanceof Handle && !handle.freed) handle.free();
  }
}

/** Bytes a row of a KV cache takes. @param {import('../wasm/kv-cache.js').KvType} kvType @param {number} nCols */
export function kvRowBytes(kvType, nCols) {
  const { blockValues, blockBytes } = servedType(kvType);
  return Math.ceil(nCols / blockValues) * blockBytes;
}
