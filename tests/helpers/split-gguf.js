/** Cuts models into parts as gguf-split of llama.cpp does, and serves the parts side by side. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GgufError } from '../../js/index.js';
import { countedBytes, ggufBytes } from './gguf-bytes.js';
import { rangeHandler } from './range-server.js';

/** @import { TestContext } from 'node:test' */
/** @import { Pair, TensorSpec } from './gguf-bytes.js' */
/** @import { Behaviour } from './range-server.js' */

/** @typedef {{ pairs: Pair[], tensors: TensorSpec[] }} Content */
/** @typedef {{ name: string, bytes: Uint8Array<ArrayBuffer> }} PartFile */

/** @param {number} number @param {number} count */
export const partName = (number, count, stem = 'model') =>
  `${stem}-${String(number).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.gguf`;

/**
 * @param {Content} content
 * @param {number[]} sizes  number of tensors in each part; 0 for a first part that has only
 *   metadata
 * @param {{ stem?: string, change?: (part: Content, at: number) => Partial<Content> | void }}
 *   [options]  change: changes a part before it is written
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

/**
 * Replaces the value of a key, or removes the key.
 * @param {Pair[]} pairs @param {string} key @param {any} [value]
 */
export const withKey = (pairs, key, value) =>
  pairs.flatMap((pair) =>
    pair[0] !== key ? [pair] : value === undefined ? [] : [/** @type {Pair} */ ([key, pair[1], value])],
  );

/**
 * Serves files by their names, whatever the query. Other names are answered with 404.
 * @param {TestContext} t
 * @param {PartFile[]} files
 * @param {{ behaviour?: Behaviour, delay?: number }} [options]  delay: milliseconds before each
 *   answer
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
    /** Requested paths with their queries, in order. */
    asked,
    open,
    requests: (/** @type {string} */ name) => served.get(`/${name}`)?.requests ?? [],
    behaviour: (/** @type {string} */ name) => /** @type {Behaviour} */ (served.get(`/${name}`)?.behaviour),
  };
}

/** Number of rows of 256 floats in each tensor; some tensors are larger than a chunk. */
export const ROWS = [3, 1100, 1, 40, 2300, 7, 7, 512, 1];
export const UNEVEN_2 = [7, 2];
export const UNEVEN_5 = [1, 0, 4, 1, 3];

export const tensors = ROWS.map((nRows, i) => {
  return { name: `t${i}`, typeId: 0, shape: [256, nRows], data: countedBytes(nRows * 1024, i + 1) };
});
export const dataOf = (/** @type {number} */ i) => tensors[i].data;
export const names = tensors.map(({ name }) => name);
/** @type {Pair[]} */
export const pairs = [
  ['general.architecture', 'string', 'llama'],
  ['a.number', 'u32', 7],
];
export const content = { pairs, tensors };

/** @param {TestContext} t @param {PartFile[]} files */
export async function inFolder(t, files) {
  const folder = await mkdtemp(join(tmpdir(), 'fused-matmul-split-'));
  t.after(() => rm(folder, { recursive: true }));
  for (const { name, bytes } of files) await writeFile(join(folder, name), bytes);
  return folder;
}

/**
 * @param {import('../../js/index.js').GgufFile} gguf @param {PartFile[]} files @param {string} kind
 */
export async function isWhole(gguf, files, kind) {
  assert.deepEqual([...gguf.tensors.keys()], names, kind);
  assert.equal(
    gguf.byteLength,
    files.reduce((sum, { bytes }) => sum + bytes.length, 0),
    kind,
  );
  assert.equal(gguf.parts.length, files.length, kind);
  assert.equal(gguf.metadata['a.number'], 7, kind);
  assert.equal(gguf.metadata['split.count'], files.length, kind);
  for (const [i, name] of names.entries())
    assert.ok(Buffer.from(await gguf.read(name)).equals(dataOf(i)), `${kind}: ${name}`);
  for (const name of ['t0', 't4', 't8']) {
    const chunks = [];
    for await (const chunk of gguf.stream(name)) chunks.push(Buffer.from(chunk));
    assert.ok(Buffer.concat(chunks).equals(dataOf(Number(name[1]))), `${kind}: stream of ${name}`);
  }
}

/** @param {RegExp} message */
export const refusal = (message) => (/** @type {any} */ error) => {
  assert.ok(error instanceof GgufError, `${error.name}: ${error.message}`);
  assert.match(error.message, message);
  return true;
};

/** The items in a different order. @template T @param {T[]} items */
export const shuffled = (items) => [...items.slice(2), ...items.slice(0, 2).reverse()];
