/* Opens the bytes of a GGUF file: memory, a Blob, a file of Node, or a URL. All are read by
 * ranges. */

import { ArgumentError, GgufError, show } from '../errors.js';
import { isNode, nodeModule } from '../node.js';
import { blobSource, checkFull, memorySource, spareBytes, steps } from './bytes.js';
import { openUrl, urlSource } from './http.js';
import { joinSources } from './split.js';

/** @typedef {import('./bytes.js').ByteSource} ByteSource */
/** @typedef {import('./bytes.js').SourceRecipe} SourceRecipe */

/**
 * A GGUF file, or a part of a split model: a URL, a File or Blob, bytes, or in Node a path.
 * @typedef {string | URL | Blob | ArrayBufferLike | ArrayBufferView} GgufPart
 */

/**
 * A source for openGguf: a file, the first part of a split model, or a list of all its parts (an
 * array, a FileList) in any order.
 * @typedef {GgufPart | Iterable<GgufPart>} GgufSource
 */

/**
 * @param {GgufPart} source
 * @param {import('./index.js').OpenOptions & { firstBytes?: number }} options
 * @param {string} [name]  name in messages, for bytes and for a Blob without a name
 * @returns {Promise<ByteSource>}
 */
export async function openSource(source, options, name) {
  if (typeof source === 'string' || source instanceof URL) {
    const text = String(source);
    // A scheme has at least two letters: C:\model.gguf is a path.
    if (isNode && !/^(?!file:)[a-z][a-z0-9+.-]+:/i.test(text))
      return openFile(/^file:/i.test(text) ? new URL(text) : text);
    // Node's fetch reads a blob: URL without ranges, or not at all.
    if (isNode && !options.fetch && /^blob:/i.test(text)) return openBlobUrl(text);
    if (options.cache && !/^(blob|data):/i.test(text)) {
      const { openCached } = await import('./cache.js');
      return openCached(text, options);
    }
    return openUrl(text, options);
  }
  if (typeof Blob === 'function' && source instanceof Blob)
    return blobSource(source, 'name' in source ? undefined : name);
  if (ArrayBuffer.isView(source))
    return memorySource(new Uint8Array(source.buffer, source.byteOffset, source.byteLength), name);
  if (
    source instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer === 'function' && source instanceof SharedArrayBuffer)
  ) {
    return memorySource(new Uint8Array(source), name);
  }
  throw new ArgumentError(
    'a GGUF source is a URL, a Blob or File, an ArrayBuffer or a view of one, in Node a path, or a list of these; ' +
      `got ${show(source)}`,
  );
}

/**
 * Opens a blob: URL in Node.
 * @param {string} url
 * @returns {Promise<ByteSource>}
 */
async function openBlobUrl(url) {
  const { resolveObjectURL } = await nodeModule('buffer');
  const blob = resolveObjectURL?.(url);
  if (!blob)
    throw new GgufError(
      `cannot read ${url}: there is no Blob behind it in this thread (was it revoked?); pass the Blob itself`,
      { url },
    );
  return blobSource(blob, url);
}

/**
 * Opens a source that another thread has opened first.
 * @param {SourceRecipe} recipe
 * @returns {Promise<ByteSource>}
 */
export async function reopenSource(recipe) {
  if (recipe.kind === 'parts') return joinSources(await Promise.all(recipe.parts.map(reopenSource)));
  if (recipe.kind === 'blob') return blobSource(recipe.blob);
  if (recipe.kind === 'file')
    return openFile(recipe.isUrl ? new URL(recipe.path) : recipe.path, recipe.known);
  if (recipe.facts.cache === undefined) return urlSource(recipe.facts);
  const { cachedSource } = await import('./cache.js');
  return cachedSource(recipe.facts, {});
}

/**
 * Opens a file by its path. Each read opens the file again, so no handle stays open. A file that
 * has changed since is refused.
 * @param {string | URL} path
 * @param {{ size: number, mtimeMs: number }} [known]  size and time of the file when it was opened
 *   first
 * @returns {Promise<ByteSource>}
 */
async function openFile(path, known) {
  const fs = await nodeModule('fs/promises');
  const name = String(path);

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
  const facts = /** @type {{ size: number, mtimeMs: number }} */ (known);
  return {
    name,
    size: facts.size,
    recipe: () => ({ kind: 'file', path: name, isUrl: path instanceof URL, known: facts }),
    async *stream(offset, length, signal, spare) {
      const handle = await open();
      try {
        for (const [start, end] of steps(offset, length)) {
          signal?.throwIfAborted();
          const chunk = spare ? spareBytes(spare).subarray(0, end - start) : new Uint8Array(end - start);
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
