/* Reads many tensors of a file with few requests: neighbours are read together, and several
 * requests run at the same time. */

import { ArgumentError, GgufError, show } from '../errors.js';
import { GgufFile } from './file.js';

/** @typedef {import('./bytes.js').ByteSource} ByteSource */

/**
 * The fields of a GgufTensor that loading needs.
 * @typedef {Pick<import('./file.js').GgufTensor,
 *   'name' | 'type' | 'nRows' | 'nCols' | 'offset' | 'part' | 'byteLength'>} TensorFacts
 */

/**
 * Tensors that one request reads, by their index.
 * @typedef {{ start: number, end: number, indices: number[] }} Run
 */

/**
 * Takes bytes of the tensor of an index, from its byte `at` on. The bytes are valid until the call
 * ends.
 * @typedef {(index: number, bytes: Uint8Array, at: number) => void | Promise<void>} Take
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
 * Reads tensors. The bytes of one tensor arrive in order.
 * @param {ByteSource} source
 * @param {readonly TensorFacts[]} tensors
 * @param {Take} take
 * @param {import('../wasm/kernel-types.js').LoadOptions & { concurrency?: number }} [options]
 *   concurrency: the most requests at a time
 * @throws {GgufError} the file ends early
 * @throws {ArgumentError} concurrency is no positive integer
 */
export async function readTensors(source, tensors, take, { onProgress, signal, concurrency = 2 } = {}) {
  if (!Number.isInteger(concurrency) || concurrency < 1)
    throw new ArgumentError(`concurrency must be an integer from 1 on, got ${show(concurrency)}`);
  signal?.throwIfAborted();
  const total = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  // A failing run ends the others. Memory may be freed only after all of them have stopped writing.
  const halt = new AbortController();
  const stop = () => halt.abort(signal?.reason);
  signal?.addEventListener('abort', stop);
  let loaded = 0;
  const advance = (/** @type {number} */ bytes) => {
    loaded += bytes;
    onProgress?.({ loaded, total });
    halt.signal.throwIfAborted();
  };
  try {
    const runs = plan(tensors, total, concurrency);
    const readers = Array.from({ length: Math.min(concurrency, runs.length) }, async () => {
      const spare = {};
      try {
        for (let run = runs.shift(); run; run = runs.shift())
          await readRun(source, run, tensors, take, { signal: halt.signal, spare, advance });
      } catch (error) {
        halt.abort(error);
        throw error;
      }
    });
    await Promise.allSettled(readers);
    halt.signal.throwIfAborted();
  } finally {
    signal?.removeEventListener('abort', stop);
  }
}

/**
 * Joins tensors that are neighbours in the file (or in one part of it) into runs. A long run is cut
 * so that several requests can run at the same time.
 * @param {readonly TensorFacts[]} tensors
 * @param {number} total  bytes
 * @param {number} concurrency
 * @returns {Run[]}
 */
function plan(tensors, total, concurrency) {
  const enough = Math.max(MIN_RUN, Math.ceil(total / concurrency));
  /** @type {Run[]} */
  const runs = [];
  const order = [...tensors.keys()].sort((a, b) => tensors[a].offset - tensors[b].offset);
  for (const index of order) {
    const { offset, byteLength, part } = tensors[index];
    const run = runs.at(-1);
    const isBeside = run && tensors[run.indices[0]].part === part;
    if (run && isBeside && offset - run.end <= MAX_GAP && run.end - run.start < enough) {
      run.end = Math.max(run.end, offset + byteLength);
      run.indices.push(index);
    } else {
      runs.push({ start: offset, end: offset + byteLength, indices: [index] });
    }
  }
  return runs;
}

/**
 * @param {ByteSource} source
 * @param {Run} run
 * @param {readonly TensorFacts[]} tensors
 * @param {Take} take
 * @param {{ signal: AbortSignal, spare: import('./bytes.js').Spare,
 *   advance: (bytes: number) => void }} options
 */
async function readRun(source, { start, end, indices }, tensors, take, { signal, spare, advance }) {
  let at = start;
  for await (const chunk of source.stream(start, end - start, signal, spare)) {
    const next = at + chunk.length;
    if (next > end) break;
    let useful = 0;
    for (const index of indices) {
      const { offset, byteLength } = tensors[index];
      const from = Math.max(at, offset);
      const to = Math.min(next, offset + byteLength);
      if (from >= to) continue;
      // Awaited only if there is something to wait for, as a file has many small tensors.
      const taken = take(index, chunk.subarray(from - at, to - at), from - offset);
      if (taken) await taken;
      useful += to - from;
    }
    at = next;
    advance(useful);
  }
  if (at === end) return;
  const { name } = tensors[indices[0]];
  throw new GgufError(`tensor ${show(name)}: got ${at - start} bytes of ${end - start}`, { tensor: name });
}
