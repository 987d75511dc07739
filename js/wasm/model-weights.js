/* Loads the weights of a model, and prepares them for the blocks of the CPU backend. */

import { ArgumentError, MemoryError } from '../errors.js';
import { arrange } from '../llama/weights.js';
import { addressIn, Weight } from './handles.js';
import { memoryOf } from './kernels.js';
import { viewOf } from './tensor-view.js';

/** @typedef {import('../backend.js').Rows} Rows */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('../llama/plan.js').PlannedTensor} PlannedTensor */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernels.js').Kernels} Kernels */

const ADDRESS_SPACE = 2 ** 32;

/**
 * The function behind WasmBackend.loadWeights.
 * @param {Kernels} fm
 * @param {import('../gguf/index.js').GgufFile} gguf
 * @param {Plan} plan
 * @param {readonly PlannedTensor[]} tensors
 * @param {import('../backend.js').LoadOptions} options
 * @returns {Promise<import('../backend.js').LoadedWeights>}
 */
export async function loadModelWeights(fm, gguf, plan, tensors, { otherBytes, onProgress, signal }) {
  const names = tensors.map(({ name }) => name);
  const total = names.reduce((sum, name) => sum + gguf.tensor(name).byteLength, 0);
  const { inUse } = fm.memory();
  // With 64-bit addresses the allocation itself fails when memory is full.
  if (!fm.info.memory64 && inUse + total + otherBytes > ADDRESS_SPACE) {
    throw new MemoryError(
      `the model needs ${total} bytes for weights and ${otherBytes} for its context and workspace: with the ${inUse} in use more than the ${ADDRESS_SPACE} a memory of 32-bit addresses can have`,
      { asked: total + otherBytes, inUse, limit: ADDRESS_SPACE },
    );
  }
  const weights = await fm.loadWeights(gguf, names, {
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  });
  /** @type {Map<string, Weight | Tensor | number>} */
  const byRole = new Map();
  /** @type {Set<Weight | Tensor>} */
  const owned = new Set(weights);
  const free = () => {
    for (const handle of owned) if (!handle.freed) handle.free();
  };
  try {
    for (const [i, { role, use, alternating }] of tensors.entries()) {
      if (alternating) separate(fm, weights[i], alternating);
      byRole.set(role, prepare(fm, weights[i], use, owned));
    }
    const arranged = arrange(plan, byRole, rowsOf);
    divideFrequencies(fm, plan, arranged, owned);
    transposeKeys(fm, plan, arranged, owned);
    return {
      byRole: arranged,
      free,
      get freed() {
        return fm.disposed || weights.every(({ freed }) => freed);
      },
    };
  } catch (error) {
    free();
    throw error;
  }
}

/**
 * Prepares a loaded weight for the blocks: vectors, values and biases become f32 tensors, factors
 * numbers. Of a bias with several rows the first one is used.
 * @param {Kernels} fm
 * @param {Weight} weight
 * @param {PlannedTensor['use']} use
 * @param {Set<Weight | Tensor>} owned
 * @returns {Weight | Tensor | number}
 */
function prepare(fm, weight, use, owned) {
  if (use === 'matrix' || use === 'table' || use === 'experts') return weight;
  const nRows = use === 'values' ? weight.nRows : 1;
  const tensor = fm.tensor({ nRows, nCols: weight.nCols });
  owned.add(tensor);
  fm.dequantize(weight, { start: 0, end: nRows, out: tensor });
  const [first] = use === 'factor' ? tensor.toArray() : [];
  weight.free();
  owned.delete(weight);
  if (first === undefined) return tensor;
  tensor.free();
  owned.delete(tensor);
  return first;
}

/**
 * Sorts the rows of two matrices that alternate in one.
 * @param {Kernels} fm
 * @param {Weight} weight
 * @param {number} nRows  rows of each by turns
 */
function separate(fm, weight, nRows) {
  const memory = memoryOf(fm);
  const start = addressIn(weight, memory);
  const bytes = memory.u8.slice(start, start + weight.byteLength);
  const step = (weight.byteLength / weight.nRows) * nRows;
  const half = weight.byteLength / 2;
  for (let at = 0, to = start; at < bytes.length; at += 2 * step, to += step) {
    memory.u8.set(bytes.subarray(at, at + step), to);
    memory.u8.set(bytes.subarray(at + step, at + 2 * step), to + half);
  }
}

/**
 * Makes a view of some rows of a loaded matrix, or of some values of a bias.
 * @param {Weight | Tensor | number} of
 * @param {Rows} rows
 */
function rowsOf(of, { start, nRows }) {
  if (of instanceof Weight) return of.rows(start, nRows);
  if (typeof of === 'number')
    throw new ArgumentError(`the number ${of} has no rows: a plan shares rows of matrices and biases only`);
  return viewOf(viewOf(of, { start, nRows, nCols: 1 }), { nRows: 1, nCols: nRows });
}

/**
 * Makes tensors of the frequency divisors in a plan, times the frequency factors of the file, as
 * new factors. Layers with the same numbers share a tensor.
 * @param {Kernels} fm
 * @param {Plan} plan
 * @param {import('../backend.js').Weights} byRole
 * @param {Set<Weight | Tensor>} owned
 */
function divideFrequencies(fm, { layers }, byRole, owned) {
  /** @type {Map<string, Tensor>} */
  const made = new Map();
  for (const [i, { attention }] of layers.entries()) {
    const divisors = attention?.rope?.divisors;
    if (!divisors) continue;
    const weights = byRole.layers[i].attention;
    /** @type {Tensor | undefined} */
    const factors = weights.ropeFactors;
    const data = Float32Array.from(divisors);
    for (const [pair, factor] of factors?.toArray().entries() ?? []) data[pair] *= factor;
    const key = data.join();
    const tensor = made.get(key) ?? fm.tensor({ nRows: 1, nCols: data.length, data });
    made.set(key, tensor);
    owned.add(tensor);
    weights.ropeFactors = tensor;
  }
}

/**
 * Makes the matrices keyUp of latent attention, in f32, where a file has keyRows.
 * @param {Kernels} fm
 * @param {Plan} plan
 * @param {import('../backend.js').Weights} byRole
 * @param {Set<Weight | Tensor>} owned
 */
function transposeKeys(fm, { layers }, byRole, owned) {
  for (const [i, { attention }] of layers.entries()) {
    if (!attention?.latent) continue;
    const weights = byRole.layers[i].attention;
    const { keyRows } = weights;
    if (!keyRows) continue;
    const { rank, nopeSize } = attention.latent;
    const rows = fm.dequantize(keyRows);
    const columns = new Float32Array(rows.length);
    const perHead = rank * nopeSize;
    for (let first = 0; first < rows.length; first += perHead) {
      for (let i = 0; i < perHead; i++)
        columns[first + (i % rank) * nopeSize + Math.floor(i / rank)] = rows[first + i];
    }
    const shape = { type: 'F32', nRows: attention.nHeads * rank, nCols: nopeSize };
    const keyUp = fm.weight({ ...shape, data: new Uint8Array(columns.buffer), name: keyRows.name });
    owned.add(keyUp);
    weights.keyUp = keyUp;
  }
}
