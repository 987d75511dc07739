/* A file as the rest of the library sees it: a size, and ranges of bytes. */

import { GgufError } from '../errors.js';

/**
 * A file of known size, read by ranges that the caller has checked against it. The chunks are
 * read-only: they may be views of memory that the source holds.
 * @typedef {object} ByteSource
 * @property {string} name  Name in messages.
 * @property {number} size  Size in bytes.
 * @property {(offset: number, length: number, signal?: AbortSignal, spare?: Spare) =>
 *   AsyncIterable<Uint8Array>} stream  Yields exactly `length` bytes in chunks, or fails with a
 *   GgufError. With `spare`, the next chunk may overwrite the last one.
 * @property {() => SourceRecipe} [recipe]  Describes the source, so that another thread can open it
 *   by itself.
 * @property {number} [held]  Bytes that the source holds in memory, because the server does not
 *   answer Range requests.
 * @property {() => import('./cache.js').CacheState} [cached]  State of the cache.
 * @property {(done: import('./cache.js').CacheState) => void} [count]  Adds the bytes counted in
 *   another thread to `cached`.
 */

/**
 * Description of a source, for `reopenSource`; it can be posted to a worker.
 * @typedef {{ kind: 'url', facts: import('./http.js').UrlFacts }
 *   | { kind: 'blob', blob: Blob }
 *   | { kind: 'file', path: string, isUrl: boolean, known: { size: number, mtimeMs: number } }
 *   | { kind: 'parts', parts: SourceRecipe[] }} SourceRecipe
 */

/** A buffer that every chunk is read into. @typedef {{ buffer?: ArrayBuffer }} Spare */

/** Bytes of a chunk, where the library chooses its size. */
export const CHUNK_BYTES = 1 << 18;

/**
 * Reads a range into one array.
 * @param {ByteSource} source
 * @param {number} offset
 * @param {number} length
 * @param {AbortSignal} [signal]
 * @returns {Promise<Uint8Array<ArrayBuffer>>} a copy
 */
export async function readAll(source, offset, length, signal) {
  const bytes = new Uint8Array(length);
  let filled = 0;
  for await (const chunk of source.stream(offset, length, signal, {})) {
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
 * @param {Blob} blob
 * @param {string} [name]
 * @returns {ByteSource}
 */
export function blobSource(blob, name = 'name' in blob ? String(blob.name) : 'the given Blob') {
  return {
    name,
    size: blob.size,
    recipe: () => ({ kind: 'blob', blob }),
    async *stream(offset, length, signal, spare) {
      const reader = readerOf(blob.slice(offset, offset + length).stream(), spare);
      let got = 0;
      try {
        for (;;) {
          const { done, value } = await reader.read();
          signal?.throwIfAborted();
          if (done) break;
          got += value.length;
          yield value;
        }
      } catch (cause) {
        signal?.throwIfAborted();
        offset += got;
        throw new GgufError(`${name}: cannot read on at offset ${offset} (was the file changed?)`, {
          offset,
          cause,
        });
      } finally {
        await reader.cancel().catch(() => {});
      }
      checkFull(got, length, offset, name);
    },
  };
}

/**
 * Makes a reader of a stream. A byte stream fills the spare buffer with every chunk. Without it
 * Chromium allocates a buffer for each chunk and collects them late, after hundreds of megabytes.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} stream
 * @param {Spare} [spare]
 * @returns {{ read: () => Promise<ReadableStreamReadResult<Uint8Array>>, cancel: () =>
 *   Promise<void> }}
 */
export function readerOf(stream, spare) {
  /** @type {any} */
  let reader;
  try {
    reader = stream.getReader(spare && { mode: 'byob' });
  } catch {
    spare = undefined; // no byte stream
    reader = stream.getReader();
  }
  return {
    async read() {
      const result = await reader.read(spare && spareBytes(spare));
      if (spare && result.value) spare.buffer = result.value.buffer;
      return result;
    },
    cancel: () => reader.cancel(),
  };
}

/**
 * The whole spare buffer; a new one if a failed read has detached the old one.
 * @param {Spare} spare
 */
export function spareBytes(spare) {
  if (!spare.buffer?.byteLength) spare.buffer = new ArrayBuffer(CHUNK_BYTES);
  return new Uint8Array(spare.buffer);
}

/**
 * Yields the [start, end) of each chunk of a range.
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
