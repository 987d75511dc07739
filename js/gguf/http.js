/* A GGUF file behind a URL: the first request, which learns what the server can do, and reading from then on. */

import { ArgumentError, GgufError } from '../errors.js';
import { memorySource } from './bytes.js';
import { bodyOf, discard, encodingOf, parseContentRange, refusedTotal } from './http-body.js';
import { Client, isMultipart, landedElsewhere, MULTIPART } from './http-client.js';
import { persist } from './http-retry.js';
import { resolveAddress } from './links.js';
import { validators } from './validators.js';

/** @typedef {import('./http-client.js').UrlFacts} UrlFacts */

/** What the first request asks for: it tells the size, and mostly holds the header. */
const FIRST_BYTES = 2_000_000;
/** A file from a server without Range support is held in memory whole, up to this size. */
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
 * @property {number} [firstBytes]  that the first request asks for
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
 * The address of the file. It is relative to the page, since a worker's own address is another one; links to Hugging Face lead to the
 * file itself.
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
 * The first request: the facts and the first bytes, or the whole of a file that cannot be read by ranges.
 * @param {string} url
 * @param {UrlOptions} options
 * @returns {Promise<{ facts: UrlFacts } & ({ beginning: Uint8Array<ArrayBuffer>, whole?: undefined } | { whole: Uint8Array<ArrayBuffer>, landed: string })>}
 *   landed: for messages, where redirects led
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
 * One attempt at the beginning of the file. A server that cannot answer a range is asked for all of it.
 * @param {Client} client
 * @param {number} firstBytes  to ask for
 * @param {AbortSignal} [signal]
 * @returns {Promise<{ response: Response, size: number, whole?: Uint8Array<ArrayBuffer> }>}
 */
async function firstAnswer(client, firstBytes, signal) {
  const { url, headers } = client.facts;
  let response = await client.range(0, firstBytes, signal);
  let why = 'does not answer Range requests';
  if (response.status === 416) {
    // Some servers refuse a range that ends behind the file instead of cutting it.
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
  // Content-Range is hidden from other origins unless the server exposes it; Content-Length is not.
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
 * What is wrong with a partial answer so that its bytes cannot be placed in the file.
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
 * @param {{ fetch?: typeof globalThis.fetch, beginning?: Uint8Array }} [have]  beginning: its first bytes
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
    // A fetch of the caller's is a function, which no other thread can have.
    recipe: fetch ? undefined : () => ({ kind: 'url', facts }),
  };
}

/**
 * A server that ignores Range and sends the file: held whole when it is small enough.
 * @param {Response} response
 * @param {Pick<UrlFacts, 'url' | 'timeout'> & { why: string }} facts  why: what the server does with Range requests
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
  // With a content encoding, which other origins may not see, the length is that of the encoded bytes: smaller.
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
