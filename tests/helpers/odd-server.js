/**
 * A web server on 127.0.0.1 whose every answer the test writes itself, and a Cache Storage in
 * memory.
 */
import { createServer } from 'node:http';

/** @import { TestContext } from 'node:test' */
/** @import { IncomingMessage, ServerResponse } from 'node:http' */

/**
 * @param {TestContext} t
 * @param {(request: IncomingMessage, response: ServerResponse, n: number) => void} handler  n:
 *   number of the request, from 1 on
 */
export async function serve(t, handler) {
  /**
   * @type {{ method: string, range: string | undefined, ifRange: string | undefined,
   *   path: string }[]}
   */
  const requests = [];
  const server = createServer((request, response) => {
    const { method = '', url: path = '', headers } = request;
    requests.push({ method, range: headers.range, ifRange: headers['if-range']?.toString(), path });
    handler(request, response, requests.length);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  t.after(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${port}/model.gguf`, requests };
}

/**
 * Answers a request for a file correctly, except for the given changes.
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 * @param {Uint8Array} file
 * @param {{ headers?: Record<string, string | undefined>, cap?: number, status?: number }}
 *   [changes]  headers: undefined removes one; cap: most bytes of an answer
 */
export function answer(request, response, file, { headers = {}, cap = Infinity, status } = {}) {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  const start = match ? Number(match[1]) : 0;
  const end = match ? Math.min(Number(match[2]) + 1, file.length, start + cap) : file.length;
  /** @type {Record<string, string | undefined>} */
  const all = { 'content-length': String(end - start) };
  if (match) all['content-range'] = `bytes ${start}-${end - 1}/${file.length}`;
  Object.assign(all, headers);
  for (const [name, value] of Object.entries(all)) if (value !== undefined) response.setHeader(name, value);
  response.writeHead(status ?? (match ? 206 : 200));
  response.end(request.method === 'HEAD' ? undefined : file.subarray(start, end));
}

/** Installs a Cache Storage in memory for the duration of a test. @param {TestContext} t */
export function memoryCaches(t) {
  /** @type {Map<string, Map<string, Uint8Array<ArrayBuffer>>>} */
  const stores = new Map();
  const keyOf = (/** @type {any} */ key) => String(key.url ?? key);
  const caches = {
    /** @param {string} name @returns {Promise<Record<string, (...args: any[]) => any>>} */
    async open(name) {
      const entries = stores.get(name) ?? new Map();
      stores.set(name, entries);
      return {
        match: async (key) => {
          const bytes = entries.get(keyOf(key));
          return bytes && new Response(bytes);
        },
        put: async (key, response) => {
          entries.set(keyOf(key), new Uint8Array(await response.arrayBuffer()));
        },
        delete: async (key) => entries.delete(keyOf(key)),
        keys: async () => [...entries.keys()].map((url) => ({ url })),
      };
    },
  };
  replaceGlobal(t, 'caches', { value: caches });
  return caches;
}

/**
 * Replaces a global until the test ends.
 * @param {TestContext} t
 * @param {string} name
 * @param {PropertyDescriptor} descriptor
 */
export function replaceGlobal(t, name, descriptor) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { configurable: true, ...descriptor });
  t.after(() => {
    if (before) Object.defineProperty(globalThis, name, before);
    else Reflect.deleteProperty(globalThis, name);
  });
}
