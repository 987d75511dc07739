/* Where a GGUF file's bytes come from: memory, a Blob, a file of Node, or a URL. All are read by ranges. */

import { checkFull, memorySource, steps } from './bytes.js';
import { ArgumentError, GgufError, show } from './errors.js';
import { openUrl } from './http-source.js';
import { isNode, nodeModule } from './node.js';

/** @typedef {import('./bytes.js').ByteSource} ByteSource */

/**
 * What openGguf takes.
 * @typedef {string | URL | Blob | ArrayBufferLike | ArrayBufferView} GgufSource
 */

/**
 * @param {GgufSource} source
 * @param {{ signal?: AbortSignal, fetch?: typeof globalThis.fetch, headers?: HeadersInit }} options
 * @returns {Promise<ByteSource>}
 */
export async function openSource(source, options) {
  if (typeof source === 'string' || source instanceof URL) {
    const text = String(source);
    // A scheme has two letters at least: C:\model.gguf is a path.
    if (isNode && !/^(?!file:)[a-z][a-z0-9+.-]+:/i.test(text))
      return openFile(/^file:/i.test(text) ? new URL(text) : text);
    return openUrl(text, options);
  }
  if (typeof Blob === 'function' && source instanceof Blob) return blobSource(source);
  if (ArrayBuffer.isView(source))
    return memorySource(new Uint8Array(source.buffer, source.byteOffset, source.byteLength));
  if (
    source instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer === 'function' && source instanceof SharedArrayBuffer)
  ) {
    return memorySource(new Uint8Array(source));
  }
  throw new ArgumentError(
    'a GGUF source is a URL, a Blob or File, an ArrayBuffer or a view of one, or in Node a path; ' +
      `got ${show(source)}`,
  );
}

/**
 * @param {Blob} blob
 * @returns {ByteSource}
 */
function blobSource(blob) {
  const name = 'name' in blob ? String(blob.name) : 'the given Blob';
  return {
    name,
    size: blob.size,
    async *stream(offset, length, signal) {
      for (const [start, end] of steps(offset, length)) {
        signal?.throwIfAborted();
        let chunk;
        try {
          chunk = new Uint8Array(await blob.slice(start, end).arrayBuffer());
        } catch (cause) {
          throw new GgufError(`${name}: cannot read bytes ${start} to ${end} (was the file changed?)`, {
            offset: start,
            cause,
          });
        }
        signal?.throwIfAborted();
        checkFull(chunk.length, end - start, start, name);
        yield chunk;
      }
    },
  };
}

/**
 * A file by its path. It is opened for each read, so that nothing stays open; one that changes meanwhile is
 * refused.
 * @param {string | URL} path
 * @returns {Promise<ByteSource>}
 */
async function openFile(path) {
  const fs = await nodeModule('fs/promises');
  const name = String(path);
  /** @type {{ size: number, mtimeMs: number } | undefined} */
  let known;

  /** @returns {Promise<any>} */
  async function open() {
    let handle;
    try {
      handle = await fs.open(path);
      const stat = await handle.stat();
      if (!stat.isFile()) throw new Error('it is no file');
      if (known && (stat.size !== known.size || stat.mtimeMs !== known.mtimeMs))
        throw new Error('it has changed since it was opened');
      known ??= { size: stat.size, mtimeMs: stat.mtimeMs };
      return handle;
    } catch (cause) {
      await handle?.close();
      throw new GgufError(`cannot read ${name}: ${/** @type {Error} */ (cause).message}`, { cause });
    }
  }

  await (await open()).close();
  const { size } = /** @type {{ size: number }} */ (known);
  return {
    name,
    size,
    async *stream(offset, length, signal) {
      const handle = await open();
      try {
        for (const [start, end] of steps(offset, length)) {
          signal?.throwIfAborted();
          const chunk = new Uint8Array(end - start);
          let filled = 0;
          while (filled < chunk.length) {
            const { bytesRead } = await handle.read(chunk, filled, chunk.length - filled, start + filled);
            if (bytesRead === 0) break;
            filled += bytesRead;
          }
          signal?.throwIfAborted();
          checkFull(filled, end - start, start, name);
          yield chunk;
        }
      } finally {
        await handle.close();
      }
    },
  };
}
