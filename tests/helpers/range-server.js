/**
 * A web server on 127.0.0.1 that answers Range requests, well or in one of the ways servers get them wrong.
 */
import { createServer } from 'node:http';

/**
 * @typedef {object} Behaviour
 * @property {boolean} [ignoreRange]  always 200 with the whole file
 * @property {boolean} [hideSize]  no Content-Range, as for a page of another origin
 * @property {boolean} [noHead]  HEAD is refused
 * @property {boolean} [noLength]  chunked, without Content-Length
 * @property {number} [status]  instead of any answer
 * @property {number} [breakAt]  the connection is cut before this byte of the file
 * @property {number} [stallAt]  nothing more is sent from this byte of the file on
 * @property {number} [claimMore]  bytes by which Content-Range makes the file longer
 * @property {number} [shift]  answers from that many bytes further on
 * @property {string} [etag]
 * @property {string} [type]  Content-Type
 */

/**
 * @param {Uint8Array} file
 * @param {Behaviour} [behaviour]  may be changed between requests
 */
export async function startServer(file, behaviour = {}) {
  /** @type {{ method: string, range: string | undefined, headers: import('node:http').IncomingHttpHeaders }[]} */
  const requests = [];
  const left = { early: 0 };
  const server = createServer((request, response) => {
    response.on('close', () => {
      if (!response.writableFinished) left.early += 1;
    });
    requests.push({
      method: request.method ?? '',
      range: request.headers.range,
      headers: request.headers,
    });
    const { status, etag, type = 'application/octet-stream' } = behaviour;
    if (status) return response.writeHead(status).end('an error page');
    if (request.method === 'HEAD') {
      return response.writeHead(behaviour.noHead ? 405 : 200, { 'content-length': file.length }).end();
    }
    const match = behaviour.ignoreRange ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const start = match ? Number(match[1]) + (behaviour.shift ?? 0) : 0;
    const end = match ? Math.min(Number(match[2]) + 1, file.length) : file.length;
    if (match && start >= file.length) {
      return response.writeHead(416, { 'content-range': `bytes */${file.length}` }).end();
    }
    /** @type {Record<string, string | number>} */
    const headers = { 'content-type': type };
    if (!behaviour.noLength) headers['content-length'] = end - start;
    if (etag) headers.etag = etag;
    if (match && !behaviour.hideSize) {
      headers['content-range'] = `bytes ${start}-${end - 1}/${file.length + (behaviour.claimMore ?? 0)}`;
    }
    response.writeHead(match ? 206 : 200, headers);
    const stop = behaviour.breakAt ?? behaviour.stallAt ?? file.length;
    if (stop >= end) return response.end(file.subarray(start, end));
    response.write(file.subarray(start, Math.max(start, stop)), () => {
      if (behaviour.breakAt !== undefined) setTimeout(() => response.destroy(), 20);
    });
    return undefined;
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}/model.gguf`,
    requests,
    behaviour,
    /** How many answers the client did not wait for. */
    left,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
