/* Node's HTTP in front of a function like fetch, for programs on the same machine: web pages of others
 * cannot use it. */

import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errorResponse } from '../openai/fetch.js';

/** Most bytes of a request's body. */
const MOST_BYTES = 16 << 20;

/** Hosts that lead to this machine; a page whose name was pointed here has another one. */
const LOCAL_HOST = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?$/i;

/**
 * @typedef {object} ServeOptions
 * @property {(url: string, init: RequestInit) => Promise<Response>} fetch  Answers requests.
 * @property {number} queue  Most requests with a body that are answered or wait at a time.
 * @property {string} [cors]  Origin of a web page that may ask, or '*' for all; by default none may.
 */

/**
 * Makes a server; the caller lets it listen.
 * @param {ServeOptions} options
 */
export function makeServer({ fetch, queue, cors }) {
  let nActive = 0;
  return createServer(async (request, response) => {
    const ending = new AbortController();
    response.on('close', () => ending.abort());
    const isPost = request.method === 'POST';
    if (isPost) nActive += 1;
    try {
      const refusal = refuse(request, cors) ?? (isPost && nActive > queue ? tooMany(queue) : undefined);
      const answer = refusal ?? (await answerOf(request, fetch, ending.signal));
      if (cors !== undefined) {
        answer.headers.set('access-control-allow-origin', cors);
        answer.headers.set('vary', 'origin');
      }
      await send(answer, response);
    } catch (error) {
      // Nobody hears of an error after the client has left.
      if (!ending.signal.aborted) response.destroy(/** @type {Error} */ (error));
    } finally {
      if (isPost) nActive -= 1;
    }
  });
}

/** @param {number} queue */
function tooMany(queue) {
  const response = errorResponse(
    503,
    `${queue} requests are answered or wait already; try again later`,
    'server_error',
    'busy',
  );
  response.headers.set('retry-after', '1');
  return response;
}

/**
 * Refuses requests that a web page of somebody else may have sent.
 * @param {import('node:http').IncomingMessage} request
 * @param {string | undefined} cors
 * @returns {Response | undefined}
 */
function refuse({ method, headers }, cors) {
  const { host = '', origin } = headers;
  if (!LOCAL_HOST.test(host)) return errorResponse(403, `the host is ${host}, and not this machine's`);
  if (origin !== undefined && cors !== '*' && origin !== cors)
    return errorResponse(403, `pages of ${origin} may not ask; --cors ${origin} lets them`);
  if (method === 'OPTIONS') {
    const allowed = {
      'access-control-allow-methods': 'GET, POST',
      'access-control-allow-headers': headers['access-control-request-headers'] ?? '*',
    };
    return new Response(null, { status: 204, headers: allowed });
  }
  // A page may send other types without asking first.
  if (method === 'POST' && !/^application\/json\b/i.test(headers['content-type'] ?? ''))
    return errorResponse(
      415,
      `the content-type must be application/json, got ${headers['content-type'] ?? 'none'}`,
    );
  return undefined;
}

/**
 * @param {import('node:http').IncomingMessage} request
 * @param {ServeOptions['fetch']} fetch
 * @param {AbortSignal} signal
 * @returns {Promise<Response>}
 */
async function answerOf(request, fetch, signal) {
  /** @type {Buffer[]} */
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    // The rest is read and dropped, so that the client sees the answer.
    if (length <= MOST_BYTES) chunks.push(chunk);
  }
  if (length > MOST_BYTES)
    return errorResponse(413, `the body has ${length} bytes, the most are ${MOST_BYTES}`);
  const { method = 'GET', url = '/' } = request;
  const address = `http://127.0.0.1${url}`;
  if (!URL.canParse(address)) return errorResponse(400, `${url} is no valid address`);
  const body = method === 'POST' ? Buffer.concat(chunks) : undefined;
  return fetch(address, { method, signal, ...(body && { body }) });
}

/**
 * @param {Response} answer
 * @param {import('node:http').ServerResponse} response
 */
async function send(answer, response) {
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  if (answer.body) await pipeline(Readable.fromWeb(/** @type {any} */ (answer.body)), response);
  else response.end();
}
