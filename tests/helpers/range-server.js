/**
 * A web server on 127.0.0.1 that answers Range requests, correctly or with one of the mistakes that
 * servers make.
 */
import { createServer } from 'node:http';

/**
 * @typedef {object} Behaviour
 * @property {boolean} [ignoreRange]  every answer is 200 with the whole file
 * @property {boolean} [hideSize]  no Content-Range, as for a page of another origin
 * @property {boolean} [noHead]  HEAD is refused
 * @property {boolean} [noLength]  chunked, without Content-Length
 * @property {number} [status]  instead of any answer
 * @property {number} [breakAt]  the connection is cut before this byte of the file
 * @property {number} [stallAt]  nothing more is sent from this byte of the file on
 * @property {number} [stalls]  number of answers that stall; default all
 * @property {boolean} [silent]  requests are taken and never answered
 * @property {number} [slow]  milliseconds between the ten parts of an answer
 * @property {number} [rate]  speed of each answer in MB a second
 * @property {number} [claimMore]  bytes by which Content-Range makes the file longer
 * @property {number} [shift]  answers begin that many bytes too far
 * @property {number} [dropAfter]  bytes after which an answer is cut
 * @property {number} [drops]  number of answers that are cut; default all
 * @property {number} [retryAfter]  seconds, with `status`
 * @property {string} [etag]
 * @property {string} [modified]  Last-Modified
 * @property {boolean} [noIfRange]  If-Range is ignored
 * @property {string} [type]  Content-Type
 */

/**
 * Answers requests for a file.
 * @param {Uint8Array} file
 * @param {Behaviour} [behaviour]  may be changed between requests
 */
export function rangeHandler(file, behaviour = {}) {
  /**
   * @type {{ method: string, range: string | undefined,
   *   headers: import('node:http').IncomingHttpHeaders }[]}
   */
  const requests = [];
  const left = { early: 0, open: 0 };
  /** @type {import('node:http').RequestListener} */
  const handler = (request, response) => {
    left.open += 1;
    response.on('close', () => {
      left.open -= 1;
      if (!response.writableFinished) left.early += 1;
    });
    requests.push({
      method: request.method ?? '',
      range: request.headers.range,
      headers: request.headers,
    });
    if (behaviour.silent) return undefined;
    const { status, etag, modified, type = 'application/octet-stream' } = behaviour;
    if (status) {
      const { retryAfter } = behaviour;
      return response
        .writeHead(status, retryAfter === undefined ? undefined : { 'retry-after': String(retryAfter) })
        .end('an error page');
    }
    if (request.method === 'HEAD') {
      return response.writeHead(behaviour.noHead ? 405 : 200, { 'content-length': file.length }).end();
    }
    const guard = behaviour.noIfRange ? undefined : request.headers['if-range'];
    const isOther = guard !== undefined && guard !== etag && guard !== modified;
    const match =
      behaviour.ignoreRange || isOther ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const start = match ? Number(match[1]) + (behaviour.shift ?? 0) : 0;
    const end = match ? Math.min(Number(match[2]) + 1, file.length) : file.length;
    if (match && start >= file.length) {
      return response.writeHead(416, { 'content-range': `bytes */${file.length}` }).end();
    }
    /** @type {Record<string, string | number>} */
    const headers = { 'content-type': type };
    if (!behaviour.noLength) headers['content-length'] = end - start;
    if (etag) headers.etag = etag;
    if (modified) headers['last-modified'] = modified;
    if (match && !behaviour.hideSize) {
      headers['content-range'] = `bytes ${start}-${end - 1}/${file.length + (behaviour.claimMore ?? 0)}`;
    }
    response.writeHead(match ? 206 : 200, headers);
    const { breakAt, stallAt, stalls = Infinity, slow, rate, dropAfter = 0, drops = Infinity } = behaviour;
    const isStalled = stallAt !== undefined && stalls > 0 && stallAt < end;
    if (isStalled) behaviour.stalls = stalls - 1;
    const isCut = dropAfter > 0 && drops > 0 && start + dropAfter < end;
    if (isCut) behaviour.drops = drops - 1;
    const stop = isCut ? start + dropAfter : (breakAt ?? (isStalled ? stallAt : file.length));
    if (slow) return sendSlowly(response, file.subarray(start, end), slow, Math.ceil((end - start) / 10));
    if (rate) return sendSlowly(response, file.subarray(start, end), 10, rate * 10_000);
    if (stop >= end) return response.end(file.subarray(start, end));
    response.write(file.subarray(start, Math.max(start, stop)), () => {
      if (isCut || breakAt !== undefined) setTimeout(() => response.destroy(), 20);
    });
    return undefined;
  };
  return { handler, requests, behaviour, left };
}

/**
 * @param {import('node:http').ServerResponse} response
 * @param {Uint8Array} bytes
 * @param {number} ms  between two parts
 * @param {number} part  bytes
 */
async function sendSlowly(response, bytes, ms, part) {
  const start = performance.now();
  for (let at = 0, sent = 1; at < bytes.length; at += part, sent++) {
    const wait = start + sent * ms - performance.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    response.write(bytes.subarray(at, at + part));
  }
  response.end();
}

/**
 * @param {Uint8Array} file
 * @param {Behaviour} [behaviour]  may be changed between requests
 */
export async function startServer(file, behaviour = {}) {
  const { handler, requests, left } = rangeHandler(file, behaviour);
  const server = createServer(handler);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}/model.gguf`,
    requests,
    behaviour,
    /** How many answers the client did not wait for, and how many are in progress. */
    left,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
