/** Cuts models into parts as gguf-split of llama.cpp does, and serves them side by side. */
import { createServer } from 'node:http';
import { ggufBytes } from './gguf-bytes.js';
import { rangeHandler } from './range-server.js';

/** @import { Pair, TensorSpec } from './gguf-bytes.js' */
/** @import { Behaviour } from './range-server.js' */

/** @typedef {{ pairs: Pair[], tensors: TensorSpec[] }} Content */
/** @typedef {{ name: string, bytes: Uint8Array<ArrayBuffer> }} PartFile */

/** @param {number} number @param {number} count */
export const partName = (number, count, stem = 'model') =>
  `${stem}-${String(number).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`;

/**
 * @param {Content} content
 * @param {number[]} sizes  tensors of each part; 0 for a first part that has metadata only
 * @param {{ stem?: string, change?: (part: Content, at: number) => Partial<Content> | void }} [options]  change: of a part
 *   before it is written
 * @returns {PartFile[]}
 */
export function splitGguf({ pairs, tensors }, sizes, { stem = 'model', change } = {}) {
  const count = sizes.length;
  if (sizes.reduce((sum, size) => sum + size, 0) !== tensors.length)
    throw new Error(`parts of ${sizes.join(', ')} tensors, but there are ${tensors.length}`);
  let next = 0;
  return sizes.map((size, at) => {
    /** @type {Pair[]} */
    const keys = [
      ['split.no', 'u16', at],
      ['split.count', 'u16', count],
      ['split.tensors.count', 'i32', tensors.length],
    ];
    const part = { pairs: at === 0 ? [...pairs, ...keys] : keys, tensors: tensors.slice(next, next + size) };
    next += size;
    const { bytes } = ggufBytes({ ...part, ...change?.(part, at) });
    return { name: partName(at + 1, count, stem), bytes };
  });
}

/** Another value in place of a key's, or none. @param {Pair[]} pairs @param {string} key @param {any} [value] */
export const withKey = (pairs, key, value) =>
  pairs.flatMap((pair) =>
    pair[0] !== key ? [pair] : value === undefined ? [] : [/** @type {Pair} */ ([key, pair[1], value])],
  );

/**
 * Serves files by their names, whatever the query; others are 404.
 * @param {import('node:test').TestContext} t
 * @param {PartFile[]} files
 * @param {{ behaviour?: Behaviour, delay?: number }} [options]  delay: milliseconds before each answer
 */
export async function serveParts(t, files, { behaviour = {}, delay = 0 } = {}) {
  const served = new Map(files.map(({ name, bytes }) => [`/${name}`, rangeHandler(bytes, { ...behaviour })]));
  /** @type {string[]} */
  const asked = [];
  const open = { now: 0, most: 0 };
  const server = createServer((request, response) => {
    const { pathname, search } = new URL(request.url ?? '', 'http://127.0.0.1');
    asked.push(pathname + search);
    open.now += 1;
    open.most = Math.max(open.most, open.now);
    response.on('close', () => {
      open.now -= 1;
    });
    setTimeout(() => {
      const found = served.get(pathname);
      if (found) found.handler(request, response);
      else response.writeHead(404).end('not here');
    }, delay);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  t.after(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: (/** @type {string} */ name) => `http://127.0.0.1:${port}/${name}`,
    /** Paths with their queries, in the order they were asked for. */
    asked,
    open,
    requests: (/** @type {string} */ name) => served.get(`/${name}`)?.requests ?? [],
    behaviour: (/** @type {string} */ name) => /** @type {Behaviour} */ (served.get(`/${name}`)?.behaviour),
  };
}
