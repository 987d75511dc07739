/* A GGUF file behind a URL: the first request, which finds out what the server supports, and all
 * later reads. */

import { ArgumentError, GgufError } from '../errors.js';
import { memorySource } from './bytes.js';
import { bodyOf, discard, encodingOf, parseContentRange, refusedTotal } from './http-body.js';
import { Client, isMultipart, landedElsewhere, MULTIPART } from './http-client.js';
import { persist } from './http-retry.js';
import { resolveAddress } from './links.js';
import { validators } from './validators.js';

/** @typedef {import('./http-client.js').UrlFacts} UrlFacts */

/** Bytes of the first request; they usually contain the whole header. */
const FIRST_BYTES = 2_000_000;
/**
 * Largest file, in bytes, that is held in memory whole when the server does not support Range
 * requests.
 */
const WHOLE_FILE_LIMIT = 256 * 2 ** 20;
/** Milliseconds without a byte after which a connection counts as broken. */
export const TIMEOUT = 30_000;

/**
 * @typedef {object} UrlOptions
 * @property {AbortSignal} [signal]
 * @property {typeof globalThis.fetch} [fetch]
 * @property {HeadersInit} [headers]
 * @property {number} [retries]
 * @property {number} [retryDelay]
 * @property {number} [timeout]
 * @property {number} [firstBytes]  Bytes that the first request asks for.
 */

/**
 * @param {string} given
 * @param {UrlOptions} options
 * @returns {Promise<import('./bytes.js').ByteSource>}
 */
export async function openUrl(given, options) {
  const url = absolute(given);
  const probe = await probeUrl(url, options);
  if (probe.whole) {
    const { length: held } = probe.whole;
    return { ...memorySource(probe.whole, url + probe.landed), held };
  }
  return urlSource(probe.facts, { fetch: options.fetch, beginning: probe.beginning });
}

/**
 * The absolute URL of the file. Relative addresses are resolved against the page, as a worker has
 * another base. Links to pages of Hugging Face become the URL of the file.
 * @param {string} given
 */
export function absolute(given) {
  const url = resolveAddress(given);
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    return new URL(url, base).href;
  } catch {
    return url;
  }
}

/** @param {HeadersInit} [headers] */
export function headerList(headers) {
  try {
    return [...new Headers(headers)];
  } catch (cause) {
    throw new ArgumentError(`headers cannot be sent: ${/** @type {Error} */ (cause).message}`);
  }
}

/**
 * Makes the first request. The result is the facts and the first bytes, or the whole file if it
 * cannot be read by ranges.
 * @param {string} url
 * @param {UrlOptions} options
 * @returns {Promise<{ facts: UrlFacts } & ({ beginning: Uint8Array<ArrayBuffer>,
 *   whole?: undefined } | { whole: Uint8Array<ArrayBuffer>, landed: string })>} landed: the address
 *   that redirects led to, for messages
 */
export async function probeUrl(url, { signal, fetch, headers, ...how }) {
  const { retries = 4, retryDelay = 250, timeout = TIMEOUT, firstBytes = FIRST_BYTES } = how;
  const client = new Client({ url, headers: headerList(headers), retries, retryDelay, timeout }, fetch);
  const first = await persist(() => firstAnswer(client, firstBytes, signal), { retries, retryDelay, signal });
  const { response, size } = first;
  const facts = Object.assign(client.facts, { size, ...validators(response) });
  if (first.whole) return { facts, whole: first.whole, landed: landedElsewhere(url, response) };
  const beginning = new Uint8Array(Math.min(firstBytes, size));
  let filled = 0;
  for await (const chunk of client.stream(0, beginning.length, { signal, first: response, spare: {} })) {
    beginning.set(chunk, filled);
    filled += chunk.length;
  }
  return { facts, beginning };
}

/**
 * One attempt to read the beginning of the file. If the server cannot answer ranges, the whole file
 * is requested.
 * @param {Client} client
 * @param {number} firstBytes  bytes to ask for
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ response: Response, size: number, whole?: Uint8Array<ArrayBuffer> }>}
 */
async function firstAnswer(client, firstBytes, signal) {
  const { url, headers } = client.facts;
  let response = await client.range(0, firstBytes, signal);
  let why = 'does not answer Range requests';
  if (response.status === 416) {
    // Some servers refuse a range that ends after the file instead of shortening it.
    await discard(response);
    const size = refusedTotal(response) ?? (await client.sizeByHead(signal));
    if (size === 0) throw new GgufError(`cannot read ${url}: an empty file (HTTP 416)`, { url, status: 416 });
    if (size !== undefined && size <= firstBytes) response = await client.range(0, size, signal);
  }
  const wrong = response.status === 416 ? 'refuses its beginning (HTTP 416)' : unusableRange(response);
  if (wrong) {
    why = wrong;
    await discard(response);
    response = await client.request({ headers }, signal);
  }
  if (response.status === 200) {
    const whole = await bufferWhole(response, { ...client.facts, why }, signal);
    return { response, size: whole.length, whole };
  }
  if (response.status !== 206 || wrong) {
    await discard(response);
    throw client.refusal(
      response,
      wrong ? `cannot read ${url}: the server ${wrong}, and does not send all of it` : `cannot fetch ${url}`,
    );
  }
  const range = parseContentRange(response);
  if (range && range.start !== 0) {
    await discard(response);
    throw new GgufError(
      `cannot read ${url}: asked for its beginning, the server answered from offset ${range.start}`,
      { offset: 0, url, status: 206, got: range.start, expected: 0 },
    );
  }
  // Other origins see Content-Range only if the server exposes it; Content-Length they always see.
  const size = range?.total ?? (await client.sizeByHead(signal));
  if (size !== undefined && size > 0 && Number.isSafeInteger(size)) return { response, size };
  await discard(response);
  const said = response.headers.get('content-range');
  throw new GgufError(
    `cannot learn the size of ${url}: the server must send Content-Range with it (it sent ` +
      `${said === null ? 'none that can be seen' : JSON.stringify(said.slice(0, 100))}), to another origin with ` +
      'Access-Control-Expose-Headers; HEAD does not tell it either',
    { url, status: 206 },
  );
}

/**
 * The reason why the bytes of a partial answer cannot be placed in the file; undefined if they can.
 * @param {Response} response
 */
function unusableRange(response) {
  if (response.status !== 206) return undefined;
  if (isMultipart(response)) return MULTIPART.replace('the server ', '');
  const encoding = encodingOf(response);
  return encoding && `compresses ranges (Content-Encoding ${encoding})`;
}

/**
 * @param {UrlFacts} facts
 * @param {{ fetch?: typeof globalThis.fetch, beginning?: Uint8Array }} [have]  beginning: the first
 *   bytes of the file
 * @returns {import('./bytes.js').ByteSource}
 */
export function urlSource(facts, { fetch, beginning = new Uint8Array(0) } = {}) {
  const client = new Client(facts, fetch);
  const start = memorySource(beginning, facts.url);
  return {
    name: facts.url,
    size: facts.size,
    async *stream(offset, length, signal, spare) {
      if (length === 0) return;
      if (offset + length <= beginning.length) yield* start.stream(offset, length, signal);
      else yield* client.stream(offset, length, { signal, spare });
    },
    // A custom fetch cannot be sent to another thread.
    recipe: fetch ? undefined : () => ({ kind: 'url', facts }),
  };
}

/**
 * Reads the whole file, up to a limit, because the server cannot send ranges.
 * @param {Response} response
 * @param {Pick<UrlFacts, 'url' | 'timeout'> & { why: string }} facts  why: what the server does
 *   with Range requests
 * @param {AbortSignal} [signal]
 */
async function bufferWhole(response, { url, timeout, why }, signal) {
  const announced = Number(response.headers.get('content-length') ?? 0);
  const where = { url, status: response.status, expected: WHOLE_FILE_LIMIT };
  const tooLarge = (/** @type {number} */ got, over = '') =>
    new GgufError(
      `${url}: the server ${why}, and the file (${over}${got} bytes) is larger than ` +
        `the ${WHOLE_FILE_LIMIT} that are held whole; use a server that does, or pass the file as a Blob`,
      { ...where, got },
    );
  if (announced > WHOLE_FILE_LIMIT) {
    await discard(response);
    throw tooLarge(announced);
  }
  /** @type {Uint8Array[]} */
  const chunks = [];
  let length = 0;
  for await (const chunk of bodyOf(response, { url, offset: 0, timeout, signal })) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > WHOLE_FILE_LIMIT) throw tooLarge(WHOLE_FILE_LIMIT, 'over ');
  }
  // Content-Length counts encoded bytes. Other origins may not see the encoding, but encoded bytes
  // are fewer.
  if (length < announced && !encodingOf(response)) {
    throw new GgufError(`${url}: got ${length} of ${announced} bytes`, {
      ...where,
      offset: length,
      got: length,
      expected: announced,
    });
  }
  const bytes = new Uint8Array(length);
  let filled = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes;
}
