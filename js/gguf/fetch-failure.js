/* Explains why a fetch failed without an answer, as far as a page can find out: browsers hide the
 * reason from pages on purpose. */

import { GgufError, show } from '../errors.js';
import { messageOf } from './http-body.js';
import { transient } from './http-retry.js';

/**
 * Causes that no further attempt can change (names, certificates, ports, redirects), as Node and
 * Deno spell them.
 */
const PERMANENT =
  /\b(ENOTFOUND|ERR_INVALID_URL|ERR_TLS_\w+|CERT_\w+|\w*SELF_SIGNED\w*|UNABLE_TO_\w+|ERR_SSL_\w+)\b|bad port|unknown scheme|redirect count|not implemented/i;
/** Milliseconds that a server may take to answer the request of `answersAnyone`. */
const PATIENCE = 5000;

/**
 * Makes the error for a request that got no answer. It is marked transient where another attempt
 * may help.
 * @param {string} url
 * @param {unknown} cause  the error that fetch was rejected with
 * @param {{ isFirst?: boolean, mayAsk?: boolean, signal?: AbortSignal }} [how]  isFirst: nothing of
 *   the file has been read yet; mayAsk: a request by the global fetch may be made to learn more
 * @returns {Promise<GgufError>}
 */
export async function fetchFailure(url, cause, { isFirst = false, mayAsk = false, signal } = {}) {
  const error = (/** @type {string} */ hint) =>
    new GgufError(`cannot fetch ${url}: ${messageOf(cause)}${hint && `; ${hint}`}`, { url, cause });
  const { protocol, origin, hostname } = parse(url) ?? {};
  if (protocol === undefined) return error('it is no address');
  if (protocol === 'blob:')
    return error('a blob: URL works in the page that made it, until it is revoked: pass the Blob itself');
  if (protocol === 'file:') return error('a page cannot fetch files: let its user choose the File');
  const { location } = globalThis;
  if (protocol === 'http:' && location?.protocol === 'https:' && !isLoopback(String(hostname)))
    return error('a page from https may not fetch from http (mixed content): use an https address');
  const isWeb = protocol === 'http:' || protocol === 'https:';
  const hint = isWeb
    ? ''
    : `is ${show(protocol)} a scheme that can be fetched here? http:, https: and hf: are`;
  if (isFirst && PERMANENT.test(detailsOf(cause))) return error(hint);
  if (!isWeb) return transient(error(hint), { once: true });
  if (!(cause instanceof TypeError) || !location?.origin || origin === location.origin)
    return transient(error(''));
  if (globalThis.navigator?.onLine === false) return transient(error('this device is offline'));
  if (isFirst && mayAsk && (await answersAnyone(url, signal)))
    return transient(
      error(
        `the server answers, but does not let pages of ${location.origin} read the file (CORS): it must send ` +
          'Access-Control-Allow-Origin, also to the request that asks whether Range is allowed',
      ),
      { once: true },
    );
  return transient(
    error(
      'the browser does not say why: the network may be down, the address wrong, the server may not let ' +
        `pages of ${location.origin} read the file (CORS), or a Content-Security-Policy forbids it (connect-src)`,
    ),
  );
}

/**
 * Tells whether the server answers a no-cors request, which needs no permission; its answer is
 * hidden.
 * @param {string} url
 * @param {AbortSignal} [signal]
 */
async function answersAnyone(url, signal) {
  const patience = new AbortController();
  const stop = () => patience.abort();
  const timer = setTimeout(stop, PATIENCE);
  signal?.addEventListener('abort', stop);
  try {
    await globalThis.fetch(url, {
      method: 'HEAD',
      mode: 'no-cors',
      credentials: 'omit',
      signal: patience.signal,
    });
    return true;
  } catch {
    return false;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}

/** @param {string} url */
function parse(url) {
  try {
    return new URL(url);
  } catch {
    return undefined;
  }
}

/**
 * Tells whether the host is this machine: pages from https may fetch from it by http.
 * @param {string} hostname
 */
function isLoopback(hostname) {
  return /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);
}

/** The codes and messages of an error and of its cause. @param {unknown} error */
function detailsOf(error) {
  const all = [error, /** @type {any} */ (error)?.cause];
  return all.map((one) => (one ? `${one.code ?? ''} ${one.message ?? ''}` : '')).join(' ');
}
