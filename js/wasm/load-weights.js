/* Streams tensors of a GGUF file into wasm memory, with few requests and a chunk at a time. Either
 * all tensors are loaded, or none. */

import { checkNames } from '../checks.js';
import { ArgumentError, GgufError, HandleError, show } from '../errors.js';
import { GgufFile, sourceOf } from '../gguf/file.js';
import { servedType } from '../types.js';
import { Weight } from './handles.js';

/** @typedef {import('./memory.js').Memory} Memory */
/** @typedef {import('../gguf/bytes.js').ByteSource} ByteSource */

/**
 * The fields of a GgufTensor that loading needs.
 * @typedef {Pick<import('../gguf/file.js').GgufTensor,
 *   'name' | 'type' | 'nRows' | 'nCols' | 'offset' | 'part' | 'byteLength'>} TensorFacts
 */

/** @typedef {{ tensor: TensorFacts, type: import('../types.js').GgmlType, ptr: number }} Place */
/**
 * Tensors that one request reads.
 * @typedef {{ start: number, end: number, places: Place[] }} Run
 */

export const LOAD_OPTIONS = ['onProgress', 'signal'];
export const LOAD_MANY_OPTIONS = [...LOAD_OPTIONS, 'concurrency'];

/**
 * A gap of at most this many bytes between two tensors is read too, instead of making another
 * request.
 */
const MAX_GAP = 1 << 16;
/** Fewer bytes do not deserve a request of their own. */
const MIN_RUN = 1 << 23;

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
 * @param {GgufFile} gguf
 * @param {Iterable<string>} names
 */
export function tensorsOf(gguf, names) {
  if (!(gguf instanceof GgufFile)) throw new ArgumentError(`gguf must come from openGguf, got ${show(gguf)}`);
  if (typeof names === 'string' || typeof names?.[Symbol.iterator] !== 'function')
    throw new ArgumentError(`names must be a list of tensor names, got ${show(names)}`);
  return Array.from(names, (name) => gguf.tensor(name));
}

/**
 * @param {Memory} memory
 * @param {ByteSource} source
 * @param {readonly TensorFacts[]} tensors
 * @param {import('./kernel-types.js').LoadOptions & { concurrency?: number }} [options]
 * @returns {Promise<Weight[]>} the weights in the order of tensors
 */
export async function loadTensors(memory, source, tensors, { onProgress, signal, concurrency = 2 } = {}) {
  if (!Number.isInteger(concurrency) || concurrency < 1)
    throw new ArgumentError(`concurrency must be an integer from 1 on, got ${show(concurrency)}`);
  signal?.throwIfAborted();
  const types = tensors.map(({ type }) => servedType(type));
  const total = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  /** @type {Place[]} */
  const places = [];
  // A failing run ends the others. Memory is freed only after all of them have stopped writing.
  const halt = new AbortController();
  const stop = () => halt.abort(signal?.reason);
  signal?.addEventListener('abort', stop);
  try {
    for (const [i, tensor] of tensors.entries())
      places.push({ tensor, type: types[i], ptr: memory.alloc(tensor.byteLength, 'weights') });
    let loaded = 0;
    const advance = (/** @type {number} */ bytes) => {
      loaded += bytes;
      onProgress?.({ loaded, total });
      halt.signal.throwIfAborted();
    };
    const runs = plan(places, total, concurrency);
    const readers = Array.from({ length: Math.min(concurrency, runs.length) }, async () => {
      const spare = {};
      try {
        for (let run = runs.shift(); run; run = runs.shift())
          await loadRun(memory, source, run, { signal: halt.signal, spare, advance });
      } catch (error) {
        halt.abort(error);
        throw error;
      }
    });
    await Promise.allSettled(readers);
    halt.signal.throwIfAborted();
    if (memory.disposed) throw new HandleError('these kernels are disposed', 'disposed');
    return places.map(
      ({ ptr, tensor: { name, nRows, nCols, byteLength }, type }) =>
        new Weight(memory, { ptr, nRows, nCols, byteLength }, type, name),
    );
  } catch (error) {
    for (const { ptr, tensor } of places) memory.free(ptr, tensor.byteLength, 'weights');
    throw error;
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/**
 * Joins tensors that are neighbours in the file (or in one part of it) into runs. A long run is cut
 * so that several requests can run at the same time.
 * @param {readonly Place[]} places
 * @param {number} total  bytes
 * @param {number} concurrency
 * @returns {Run[]}
 */
function plan(places, total, concurrency) {
  const enough = Math.max(MIN_RUN, Math.ceil(total / concurrency));
  /** @type {Run[]} */
  const runs = [];
  for (const place of [...places].sort((a, b) => a.tensor.offset - b.tensor.offset)) {
    const { offset, byteLength, part } = place.tensor;
    const run = runs.at(-1);
    const isBeside = run?.places[0].tensor.part === part;
    if (run && isBeside && offset - run.end <= MAX_GAP && run.end - run.start < enough) {
      run.end = Math.max(run.end, offset + byteLength);
      run.places.push(place);
    } else {
      runs.push({ start: offset, end: offset + byteLength, places: [place] });
    }
  }
  return runs;
}

/**
 * @param {Memory} memory
 * @param {ByteSource} source
 * @param {Run} run
 * @param {{ signal: AbortSignal, spare: import('../gguf/bytes.js').Spare,
 *   advance: (bytes: number) => void }} options
 */
async function loadRun(memory, source, { start, end, places }, { signal, spare, advance }) {
  let at = start;
  for await (const chunk of source.stream(start, end - start, signal, spare)) {
    const { u8 } = memory;
    const next = at + chunk.length;
    if (next > end) break;
    let useful = 0;
    for (const { ptr, tensor } of places) {
      const from = Math.max(at, tensor.offset);
      const to = Math.min(next, tensor.offset + tensor.byteLength);
      if (from >= to) continue;
      u8.set(chunk.subarray(from - at, to - at), ptr + from - tensor.offset);
      useful += to - from;
    }
    at = next;
    advance(useful);
  }
  if (at === end) return;
  const { name } = places[0].tensor;
  throw new GgufError(`tensor ${show(name)}: got ${at - start} bytes of ${end - start}`, { tensor: name });
}
