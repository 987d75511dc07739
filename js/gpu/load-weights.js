/* Tensors of a file in GPU memory: all of them or none. Memory is there before the first byte is
 * fetched. */

import { sourceOf } from '../gguf/file.js';
import { readTensors } from '../gguf/tensor-runs.js';
import { Uploader } from './upload.js';
import { allocateWeights } from './weights.js';

/** @typedef {import('../backend.js').LoadOptions} LoadOptions */
/** @typedef {import('../gguf/file.js').GgufFile} GgufFile */
/** @typedef {import('./commands.js').Commands} Commands */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./weight.js').GpuWeight} GpuWeight */
/** @typedef {import('./pipelines.js').Pipelines} Pipelines */

/** @typedef {{ gpu: GpuDevice, pipelines: Pipelines, commands: Commands }} Means */

/**
 * Streams tensors into weights.
 * @param {Means} means
 * @param {GgufFile} gguf
 * @param {readonly import('../gguf/file.js').GgufTensor[]} tensors
 * @param {Pick<LoadOptions, 'onProgress' | 'signal'> &
 *   { otherBytes?: number, concurrency?: number, alternating?: readonly (number | undefined)[] }}
 *   options  alternating: of tensors that are two matrices, by turns so many rows of each
 * @returns {Promise<GpuWeight[]>}  in the order of tensors
 */
export async function loadTensors(
  { gpu, pipelines, commands },
  gguf,
  tensors,
  { onProgress, signal, otherBytes = 0, concurrency = 2, alternating = [] },
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
    /** Bytes of tensors whose rows change places. @type {Uint8Array[]} */
    const wholes = [];
    const take = async (
      /** @type {number} */ i,
      /** @type {Uint8Array} */ bytes,
      /** @type {number} */ at,
    ) => {
      writers[i] ??= through.writer(weights[i]);
      const nRows = alternating[i];
      const isLast = at + bytes.length === tensors[i].byteLength;
      if (nRows) {
        wholes[i] ??= new Uint8Array(tensors[i].byteLength);
        wholes[i].set(bytes, at);
        if (isLast)
          for (const rows of separated(wholes[i], (nRows * tensors[i].byteLength) / tensors[i].nRows))
            await writers[i].write(rows);
      } else await writers[i].write(bytes);
      if (!isLast) return;
      writers[i].end();
      writers[i] = undefined;
      delete wholes[i];
    };
    const options = { concurrency, ...(onProgress && { onProgress }), ...(signal && { signal }) };
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
 * Parts of two matrices that alternate: all of the first, then all of the second.
 * @param {Uint8Array} bytes
 * @param {number} size  bytes of each by turns
 */
function* separated(bytes, size) {
  for (const first of [0, size])
    for (let at = first; at < bytes.length; at += 2 * size) yield bytes.subarray(at, at + size);
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
