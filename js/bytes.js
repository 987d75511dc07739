/* A file as the rest of the library sees it: a size, and ranges of bytes. */

import { GgufError } from './errors.js';

/**
 * A file of known size, read by ranges that the caller has checked against it. Chunks are for reading, at
 * once: they may be views of what the source holds, or of the buffer it was given.
 * @typedef {object} ByteSource
 * @property {string} name  for messages
 * @property {number} size  bytes
 * @property {(offset: number, length: number, signal?: AbortSignal, buffer?: Uint8Array) =>
 *   AsyncIterable<Uint8Array>} stream  exactly `length` bytes in chunks, or a GgufError. A buffer of CHUNK_BYTES is
 *   filled again and again instead of a new one for each chunk
 * @property {() => SourceRecipe} [recipe]  by which another thread opens the same source without this one's help
 * @property {() => import('./gguf-cache.js').CacheState} [cached]
 * @property {(done: import('./gguf-cache.js').CacheState) => void} [count]  adds what another thread did to what `cached` tells
 */

/**
 * What `reopenSource` takes; it can be posted to a worker.
 * @typedef {{ kind: 'url', facts: import('./http-source.js').UrlFacts }
 *   | { kind: 'blob', blob: Blob }
 *   | { kind: 'file', path: string, isUrl: boolean, known: { size: number, mtimeMs: number } }} SourceRecipe
 */

/** Bytes of a chunk where we choose it. */
export const CHUNK_BYTES = 1 << 20;

/**
 * Reads a range in one piece.
 * @param {ByteSource} source
 * @param {number} offset
 * @param {number} length
 * @param {AbortSignal} [signal]
 * @returns {Promise<Uint8Array<ArrayBuffer>>} a copy
 */
export async function readAll(source, offset, length, signal) {
  const bytes = new Uint8Array(length);
  let filled = 0;
  for await (const chunk of source.stream(offset, length, signal)) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @param {string} [name]
 * @returns {ByteSource}
 */
export function memorySource(bytes, name = 'the given bytes') {
  return {
    name,
    size: bytes.length,
    async *stream(offset, length, signal) {
      for (const [start, end] of steps(offset, length)) {
        signal?.throwIfAborted();
        const chunk = bytes.subarray(start, end);
        checkFull(chunk.length, end - start, start, name);
        yield chunk;
      }
    },
  };
}

/**
 * The [start, end) of each chunk of a range.
 * @param {number} offset
 * @param {number} length
 */
export function* steps(offset, length) {
  const end = offset + length;
  for (let start = offset; start < end; start += CHUNK_BYTES) {
    yield/** @type {[number, number]} */ ([start, Math.min(end, start + CHUNK_BYTES)]);
  }
}

/**
 * @param {number} got
 * @param {number} asked
 * @param {number} offset
 * @param {string} name
 */
export function checkFull(got, asked, offset, name) {
  if (got !== asked)
    throw new GgufError(`${name}: got ${got} of ${asked} bytes at offset ${offset}`, { offset });
}
