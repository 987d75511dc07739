/* The tensors of a model in GPU memory: all of them or none. Memory is there before the first byte is fetched. */

import { ArgumentError, show } from '../errors.js';
import { sourceOf } from '../gguf/file.js';
import { readTensors } from '../gguf/tensor-runs.js';
import { arrange } from '../llama/weights.js';
import { up16 } from './shader.js';
import { Uploader } from './upload.js';
import { GpuVector } from './vectors.js';
import { GpuWeight } from './weight.js';
import { allocateWeights } from './weights.js';
import { embed, embedGroups } from './wgsl/embed.js';

/** @typedef {import('../backend.js').LoadedWeights} LoadedWeights */
/** @typedef {import('../backend.js').LoadOptions} LoadOptions */
/** @typedef {import('../gguf/file.js').GgufFile} GgufFile */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('../llama/plan.js').PlannedTensor} PlannedTensor */
/** @typedef {import('./commands.js').Commands} Commands */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./pipelines.js').Pipelines} Pipelines */

/** @typedef {{ gpu: GpuDevice, pipelines: Pipelines, commands: Commands }} Means */

/**
 * Streams tensors into weights.
 * @param {Means} means
 * @param {GgufFile} gguf
 * @param {readonly import('../gguf/file.js').GgufTensor[]} tensors
 * @param {Pick<LoadOptions, 'onProgress' | 'signal'> & { otherBytes?: number }} options
 * @returns {Promise<GpuWeight[]>}  in the order of tensors
 */
export async function loadTensors(
  { gpu, pipelines, commands },
  gguf,
  tensors,
  { onProgress, signal, otherBytes = 0 },
) {
  const weights = await allocateWeights(gpu, tensors);
  const free = () => {
    for (const weight of weights) weight.free();
  };
  /** @type {Uploader | undefined} */
  let uploader;
  try {
    if (otherBytes > 0) await probe(gpu, otherBytes);
    const through = new Uploader(gpu, pipelines, commands);
    uploader = through;
    await through.prepare(tensors.map(({ type }) => type));
    /** @type {(ReturnType<Uploader['writer']> | undefined)[]} */
    const writers = [];
    const take = async (
      /** @type {number} */ i,
      /** @type {Uint8Array} */ bytes,
      /** @type {number} */ at,
    ) => {
      writers[i] ??= through.writer(weights[i]);
      await writers[i].write(bytes);
      if (at + bytes.length < tensors[i].byteLength) return;
      writers[i].end();
      writers[i] = undefined;
    };
    const options = { ...(onProgress && { onProgress }), ...(signal && { signal }) };
    await readTensors(sourceOf(gguf), tensors, take, options);
    await commands.idle();
    return weights;
  } catch (error) {
    free();
    throw error;
  } finally {
    uploader?.free();
  }
}

/**
 * Makes sure that so much memory is to be had besides, before anything is fetched.
 * @param {GpuDevice} gpu
 * @param {number} bytes
 */
async function probe(gpu, bytes) {
  const most = Math.floor(gpu.limits.bufferBytes / 4) * 4;
  const sizes = Array.from({ length: Math.ceil(bytes / most) }, (_, i) => Math.min(most, bytes - i * most));
  /** @type {import('./device.js').GpuBuffer[]} */
  const made = [];
  const make = () => {
    for (const size of sizes) made.push(gpu.buffer(size, { label: 'room for caches and workspace' }));
  };
  try {
    await gpu.reserve(make, () => {}, bytes);
  } finally {
    for (const buffer of made) buffer.free();
  }
}

/**
 * Loads the tensors of a plan.
 * @param {Means} means
 * @param {GgufFile} gguf
 * @param {Plan} plan
 * @param {readonly PlannedTensor[]} tensors
 * @param {LoadOptions} options
 * @returns {Promise<LoadedWeights>}
 */
export async function loadWeights(means, gguf, plan, tensors, options) {
  const weights = await loadTensors(
    means,
    gguf,
    tensors.map(({ name }) => gguf.tensor(name)),
    options,
  );
  /** @type {Map<string, GpuWeight | GpuVector>} */
  const byRole = new Map();
  /** @type {Set<GpuWeight | GpuVector>} */
  const owned = new Set(weights);
  const free = () => {
    for (const one of owned) if (!one.freed) one.free();
  };
  try {
    for (const [i, { role, use }] of tensors.entries()) {
      const weight = weights[i];
      if (use === 'matrix' || use === 'table') {
        byRole.set(role, weight);
        continue;
      }
      const vector = await vectorOf(means, weight, role.startsWith('rope.'));
      owned.add(vector);
      owned.delete(weight);
      byRole.set(role, vector);
    }
    await means.commands.idle();
    for (const weight of weights) if (!owned.has(weight)) weight.free();
    const slice = (
      /** @type {GpuWeight | GpuVector} */ of,
      /** @type {import('../backend.js').Rows} */ rows,
    ) => {
      if (of instanceof GpuWeight) return of.rows(rows.start, rows.nRows);
      throw new ArgumentError(`${show(of)} is no matrix: a plan shares rows of matrices only`);
    };
    return {
      byRole: arrange(plan, byRole, slice),
      free,
      get freed() {
        return [...owned].every(({ freed }) => freed);
      },
    };
  } catch (error) {
    for (const weight of weights) owned.add(weight);
    free();
    throw error;
  }
}

/**
 * The only row of a weight as f32 numbers.
 * @param {Means} means
 * @param {GpuWeight} weight
 * @param {boolean} isRead  its values are needed here too
 */
async function vectorOf({ gpu, pipelines, commands }, weight, isRead) {
  const { nCols } = weight;
  const [{ unit, buffer }] = weight.units();
  const y = gpu.buffer(4 * up16(nCols), { label: weight.name });
  const ids = gpu.buffer(4, { label: 'row 0' });
  const pipeline = await pipelines.compile(embed({ unit, scale: 1 }));
  const step = { position: 0, start: 0, nTokens: 1, seen: 0 };
  commands.dispatch(pipeline.bind({ w: buffer, ids, y }), embedGroups(unit, 1), step);
  if (!isRead) {
    commands.flush();
    ids.free();
    return new GpuVector(y, nCols);
  }
  const [bytes] = await commands.read([{ buffer: y, offset: 0, bytes: 4 * nCols }]);
  ids.free();
  return new GpuVector(y, nCols, new Float32Array(bytes));
}
