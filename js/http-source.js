/* A GGUF file behind a URL, read by HTTP Range requests. */

import { memorySource } from './bytes.js';
import { GgufError } from './errors.js';

/** What the first request asks for: it tells the size, and mostly holds the header. */
const FIRST_BYTES = 2_000_000;
/** A file from a server without Range support is held in memory whole, up to this size. */
const WHOLE_FILE_LIMIT = 256 * 2 ** 20;

/**
 * @param {string} url
 * @param {{ signal?: AbortSignal, fetch?: typeof globalThis.fetch, headers?: HeadersInit }} options
 * @returns {Promise<import('./bytes.js').ByteSource>}
 */
export async function openUrl(url, { signal, fetch: fetchWith = globalThis.fetch, headers }) {
  /**
   * @param {RequestInit} init
   * @param {AbortSignal} [abort]
   */
  const request = async (init, abort) => {
    try {
      return await fetchWith(url, { ...init, signal: abort });
    } catch (cause) {
      abort?.throwIfAborted();
      throw new GgufError(`cannot fetch ${url}: ${messageOf(cause)}`, { cause });
    }
  };
  /**
   * @param {number} start
   * @param {number} end  exclusive
   * @param {AbortSignal} [abort]
   */
  const requestRange = (start, end, abort) => {
    const all = new Headers(headers);
    all.set('range', `bytes=${start}-${end - 1}`);
    return request({ headers: all }, abort);
  };

  const first = await requestRange(0, FIRST_BYTES, signal);
  if (first.status === 200) return bufferWhole(url, first, signal);
  const range = parseContentRange(first);
  if (range && range.start !== 0) {
    await discard(first);
    throw new GgufError(
      `cannot read ${url}: asked for its beginning, the server answered from offset ${range.start}`,
      { offset: 0 },
    );
  }
  if (first.status !== 206) {
    await discard(first);
    throw new GgufError(
      `cannot fetch ${url}: HTTP ${first.status}${first.status === 416 ? ', an empty file' : ''}`,
    );
  }
  const etag = first.headers.get('etag');
  let size = range?.total;
  if (size === undefined) {
    // Content-Range is hidden from other origins unless the server exposes it; Content-Length is not.
    const head = await request({ method: 'HEAD', headers }, signal);
    const length = head.ok ? Number(head.headers.get('content-length') ?? Number.NaN) : Number.NaN;
    if (!Number.isSafeInteger(length)) {
      await discard(first);
      throw new GgufError(
        `cannot learn the size of ${url}: the server must expose Content-Range ` +
          '(Access-Control-Expose-Headers)',
      );
    }
    size = length;
  }
  const total = size;
  const start = await collect(first, { url, offset: 0, length: Math.min(FIRST_BYTES, total), signal });
  const beginning = memorySource(start, url);

  return {
    name: url,
    size: total,
    async *stream(offset, length, abort) {
      if (length === 0) return;
      if (offset + length <= start.length) {
        yield* beginning.stream(offset, length, abort);
        return;
      }
      const response = await requestRange(offset, offset + length, abort);
      const answered = parseContentRange(response);
      const now = response.headers.get('etag');
      let wrong;
      if (response.status === 200) wrong = 'the server stopped answering Range requests (HTTP 200)';
      else if (response.status !== 206) wrong = `HTTP ${response.status}`;
      else if (answered && answered.start !== offset)
        wrong = `the server answered from offset ${answered.start}`;
      else if ((answered?.total ?? total) !== total)
        wrong = `the file changed from ${total} to ${answered?.total} bytes`;
      else if (etag && now && etag !== now) wrong = 'the file changed since it was opened';
      if (wrong) {
        await discard(response);
        throw new GgufError(`${url}: bytes ${offset} to ${offset + length}: ${wrong}`, { offset });
      }
      yield* bodyOf(response, { url, offset, length, signal: abort });
    },
  };
}

/**
 * A server that ignores Range and sends the file: held whole when it is small enough.
 * @param {string} url
 * @param {Response} response
 * @param {AbortSignal} [signal]
 */
async function bufferWhole(url, response, signal) {
  const announced = Number(response.headers.get('content-length') ?? 0);
  const tooLarge = (/** @type {number | string} */ bytes) =>
    new GgufError(
      `${url}: the server does not answer Range requests, and the file (${bytes} bytes) is larger than ` +
        `the ${WHOLE_FILE_LIMIT} that are held whole; use a server that does, or pass the file as a Blob`,
    );
  if (announced > WHOLE_FILE_LIMIT) {
    await discard(response);
    throw tooLarge(announced);
  }
  /** @type {Uint8Array[]} */
  const chunks = [];
  let length = 0;
  for await (const chunk of chunksOf(response, url, () => length, signal)) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > WHOLE_FILE_LIMIT) throw tooLarge(`over ${WHOLE_FILE_LIMIT}`);
  }
  // With a content encoding the length is that of the encoded bytes.
  if (announced && !response.headers.get('content-encoding') && length !== announced) {
    throw new GgufError(`${url}: got ${length} of ${announced} bytes`, { offset: length });
  }
  const bytes = new Uint8Array(length);
  let filled = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return memorySource(bytes, url);
}

/**
 * The body of an answer to a Range request: exactly the bytes that were asked for.
 * @param {Response} response
 * @param {{ url: string, offset: number, length: number, signal?: AbortSignal }} range
 */
async function* bodyOf(response, { url, offset, length, signal }) {
  let received = 0;
  for await (const chunk of chunksOf(response, url, () => offset + received, signal)) {
    received += chunk.length;
    if (received > length) break;
    yield chunk;
  }
  if (received !== length) {
    const what =
      received > length ? `more than the ${length} bytes asked for` : `${received} of ${length} bytes`;
    throw new GgufError(`${url}: got ${what} at offset ${offset}`, { offset });
  }
}

/**
 * @param {Response} response
 * @param {{ url: string, offset: number, length: number, signal?: AbortSignal }} range
 */
async function collect(response, range) {
  const bytes = new Uint8Array(range.length);
  let filled = 0;
  for await (const chunk of bodyOf(response, range)) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes;
}

/**
 * @param {Response} response
 * @param {string} url
 * @param {() => number} at  the offset in the file, for messages
 * @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<Uint8Array, void>}
 */
async function* chunksOf(response, url, at, signal) {
  if (!response.body) {
    yield new Uint8Array(await response.arrayBuffer());
    return;
  }
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((cause) => {
        signal?.throwIfAborted();
        throw new GgufError(`${url}: the connection failed at offset ${at()}: ${messageOf(cause)}`, {
          offset: at(),
          cause,
        });
      });
      signal?.throwIfAborted();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/**
 * "bytes 0-999/1234"; a total of * is unknown.
 * @param {Response} response
 */
function parseContentRange(response) {
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '');
  return match
    ? { start: Number(match[1]), total: match[2] === '*' ? undefined : Number(match[2]) }
    : undefined;
}

/** @param {Response} response */
async function discard(response) {
  await response.body?.cancel().catch(() => {});
}

/** @param {unknown} error */
function messageOf(error) {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  return cause instanceof Error && cause.message ? `${error.message} (${cause.message})` : error.message;
}
