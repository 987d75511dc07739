/* Streams tensors of a GGUF file into wasm memory, with few requests and a chunk at a time. Either
 * all tensors are loaded, or none. */

import { checkNames } from '../checks.js';
import { HandleError } from '../errors.js';
import { GgufFile, sourceOf } from '../gguf/file.js';
import { LOAD_MANY_OPTIONS, LOAD_OPTIONS, readTensors, tensorsOf } from '../gguf/tensor-runs.js';
import { servedType } from '../types.js';
import { Weight } from './handles.js';

/** @typedef {import('./memory.js').Memory} Memory */
/** @typedef {import('../gguf/bytes.js').ByteSource} ByteSource */

/** @typedef {import('../gguf/tensor-runs.js').TensorFacts} TensorFacts */

/**
 * The function behind Kernels.loadWeight.
 * @param {Memory} memory
 * @param {GgufFile} gguf
 * @param {string} name
 * @param {import('./kernel-types.js').LoadOptions} [options]
 */
export async function loadWeight(memory, gguf, name, options = {}) {
  checkNames(options, LOAD_OPTIONS);
  const [weight] = await loadWeights(memory, gguf, [name], { ...options, concurrency: 1 });
  return weight;
}

/**
 * The function behind Kernels.loadWeights.
 * @param {Memory} memory
 * @param {GgufFile} gguf
 * @param {Iterable<string>} names
 * @param {import('./kernel-types.js').LoadOptions & { concurrency?: number }} [options]
 */
export async function loadWeights(memory, gguf, names, options = {}) {
  checkNames(options, LOAD_MANY_OPTIONS);
  const tensors = tensorsOf(gguf, names);
  if (memory.disposed) throw new HandleError('these kernels are disposed', 'disposed');
  return loadTensors(memory, sourceOf(gguf), tensors, options);
}

/**
 * @param {Memory} memory
 * @param {ByteSource} source
 * @param {readonly TensorFacts[]} tensors
 * @param {import('./kernel-types.js').LoadOptions & { concurrency?: number }} [options]
 * @returns {Promise<Weight[]>} the weights in the order of tensors
 */
export async function loadTensors(memory, source, tensors, options = {}) {
  const types = tensors.map(({ type }) => servedType(type));
  /** @type {{ tensor: TensorFacts, type: import('../types.js').GgmlType, ptr: number }[]} */
  const places = [];
  try {
    options.signal?.throwIfAborted();
    for (const [i, tensor] of tensors.entries())
      places.push({ tensor, type: types[i], ptr: memory.alloc(tensor.byteLength, 'weights') });
    const take = (/** @type {number} */ i, /** @type {Uint8Array} */ bytes, /** @type {number} */ at) =>
      memory.u8.set(bytes, places[i].ptr + at);
    await readTensors(source, tensors, take, options);
    if (memory.disposed) throw new HandleError('these kernels are disposed', 'disposed');
    return places.map(
      ({ ptr, tensor: { name, nRows, nCols, byteLength }, type }) =>
        new Weight(memory, { ptr, nRows, nCols, byteLength }, type, name),
    );
  } catch (error) {
    for (const { ptr, tensor } of places) memory.free(ptr, tensor.byteLength, 'weights');
    throw error;
  }
}
