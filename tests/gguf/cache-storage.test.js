/**
 * A Cache Storage that is absent, lacks a method or fails: files are read without it, and
 * `gguf.cached` says why.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clearCachedGgufs, deleteCachedGguf, GgufError, listCachedGgufs, openGguf } from '../../js/index.js';
import { countedBytes, wideGguf } from '../helpers/gguf-bytes.js';
import { answer, memoryCaches, replaceGlobal, serve } from '../helpers/odd-server.js';

/** @import { TestContext } from 'node:test' */

const MB = 2 ** 20;
const { bytes } = wideGguf({ nTensors: 5, bytes: MB });
const failure = () => new DOMException('Unexpected internal error', 'UnknownError');
const rejects = () => Promise.reject(failure());
const throws = () => {
  throw failure();
};

/** @param {TestContext} t @param {(visit: { n: number }) => Record<string, string>} [headers] */
async function setUp(t, headers = () => ({ etag: '"x"' })) {
  const visit = { n: 1, gone: false };
  const server = await serve(t, (request, response) => {
    if (visit.gone) request.socket.destroy();
    else answer(request, response, bytes, { headers: headers(visit) });
  });
  return { ...server, visit };
}

/** Opens the file and reads all of it. @param {string} url */
async function readAll(url) {
  const gguf = await openGguf(url, { cache: true, retryDelay: 1, retries: 1 });
  for (let i = 0; i < 5; i++)
    assert.ok(Buffer.from(await gguf.read(`t${i}`)).equals(countedBytes(MB, i + 1)), `t${i}`);
  return /** @type {NonNullable<typeof gguf.cached>} */ (gguf.cached);
}

test('a Cache that lacks a method is none', async (t) => {
  const { url } = await setUp(t);
  const caches = memoryCaches(t);
  const { open } = caches;
  for (const method of ['match', 'put', 'delete', 'keys']) {
    caches.open = async (name) => ({ ...(await open(name)), [method]: /** @type {any} */ (undefined) });
    const { error, stored } = await readAll(url);
    assert.ok(error instanceof GgufError);
    assert.match(error.message, new RegExp(`lacks ${method}\\(\\)`));
    assert.equal(stored, 0);
    assert.deepEqual(await listCachedGgufs(), []);
    await deleteCachedGguf(url);
    await clearCachedGgufs();
  }
});

test('no Cache Storage, one that cannot be had, or none that is one', async (t) => {
  const { url } = await setUp(t);
  const denied = () => {
    throw new DOMException('the page is sandboxed', 'SecurityError');
  };
  for (const [descriptor, message] of /** @type {[PropertyDescriptor, RegExp][]} */ ([
    [{ value: undefined }, /no Cache Storage/],
    [{ value: null }, /no Cache Storage/],
    [{ get: denied }, /sandboxed/],
    [{ value: { open: rejects } }, /internal error/],
    [{ value: { open: throws } }, /internal error/],
    [{ value: { open: () => Promise.reject('a text') } }, /the Cache Storage failed: a text/],
    [{ value: { open: async () => undefined } }, /lacks match\(\), put\(\), delete\(\), keys\(\)/],
    [{ value: {} }, /open is not a function/],
  ])) {
    replaceGlobal(t, 'caches', descriptor);
    const { error } = await readAll(url);
    assert.ok(error instanceof Error && message.test(error.message), String(error));
    assert.deepEqual(await listCachedGgufs(), []);
    await deleteCachedGguf(url);
    await clearCachedGgufs();
  }
});

/** @type {Record<string, any>} */
const broken = {
  'match rejects': { match: rejects },
  'match throws': { match: throws },
  'match gives what is no Response': { match: async () => ({}) },
  'keys rejects': { keys: rejects },
  'keys throws': { keys: throws },
  'keys gives what are no Requests': { keys: async () => [{}] },
  'put rejects': { put: rejects },
  'put throws': { put: throws },
  'put finds no room, keys rejects': {
    put: () => Promise.reject(new DOMException('full', 'QuotaExceededError')),
    keys: rejects,
  },
  'all of it rejects': { match: rejects, put: rejects, delete: rejects, keys: rejects },
};

for (const [what, methods] of Object.entries(broken))
  test(`a Cache whose ${what}: at the first visit, and at the second`, async (t) => {
    const { url } = await setUp(t);
    const caches = memoryCaches(t);
    const { open } = caches;
    const breakIt = () => {
      caches.open = async (name) => ({ ...(await open(name)), ...methods });
    };
    breakIt();
    const first = await readAll(url);
    assert.ok(first.error instanceof Error, 'it is told');
    caches.open = open;
    await clearCachedGgufs();
    assert.equal((await readAll(url)).error, undefined);
    breakIt();
    const { error } = await readAll(url);
    assert.ok(error instanceof Error);
  });

test('a Cache that begins to fail under way: the rest comes from the server', async (t) => {
  const { url, requests } = await setUp(t);
  const caches = memoryCaches(t);
  const { open } = caches;
  await readAll(url);
  for (const at of [2, 3, 4]) {
    let nMatches = 0;
    caches.open = async (name) => {
      const cache = await open(name);
      const match = async (/** @type {any} */ key) => (++nMatches < at ? cache.match(key) : rejects());
      return { ...cache, match };
    };
    requests.length = 0;
    const { error } = await readAll(url);
    assert.equal(error?.name, 'UnknownError');
    assert.ok(requests.length <= 7, `one request to look, one for each tensor: ${requests.length}`);
  }
});

test('a kept block whose bytes cannot be read comes from the server', async (t) => {
  const { url } = await setUp(t);
  const caches = memoryCaches(t);
  const { open } = caches;
  await readAll(url);
  const unreadable = (/** @type {number} */ size) => ({
    size,
    slice: () => ({
      stream: () =>
        new ReadableStream({
          start(controller) {
            controller.error(new DOMException('the disk failed', 'NotReadableError'));
          },
        }),
    }),
  });
  caches.open = async (name) => {
    const cache = await open(name);
    const match = async (/** @type {any} */ key) => {
      const response = await cache.match(key);
      if (!response || !String(key).includes('block=')) return response;
      const { size } = await response.blob();
      return { blob: async () => unreadable(size) };
    };
    return { ...cache, match };
  };
  assert.match(String((await readAll(url)).error), /cannot read on/);
});

test('a Cache without room: what is in it is read all the same', async (t) => {
  const { url, visit, requests } = await setUp(t);
  const caches = memoryCaches(t);
  const { open } = caches;
  const part = await openGguf(url, { cache: true });
  await part.read('t0');
  await part.read('t3');
  const full = () => Promise.reject(new DOMException('full', 'QuotaExceededError'));
  caches.open = async (name) => ({ ...(await open(name)), put: full });
  const all = await openGguf(url, { cache: true, retryDelay: 1, retries: 1 });
  await all.read('t2');
  assert.equal(all.cached?.error?.name, 'QuotaExceededError');
  await all.read('t2');
  // t2 ends in a cached block, which also contains the start of t3.
  const { offset } = all.tensor('t2');
  assert.equal(requests.at(-1)?.range, `bytes=${offset}-${3 * MB - 1}`);
  visit.gone = true;
  for (const name of ['t0', 't3']) assert.equal((await all.read(name)).length, MB, 'from the cache');
});

test('what manages the cache: typed errors where it fails', async (t) => {
  const { url } = await setUp(t);
  const caches = memoryCaches(t);
  const { open } = caches;
  await readAll(url);
  const calls = [() => deleteCachedGguf(url), () => clearCachedGgufs()];
  for (const [methods, failing] of /** @type {[any, (() => Promise<any>)[]][]} */ ([
    [{ keys: rejects }, [() => listCachedGgufs(), ...calls]],
    [{ keys: throws }, [() => listCachedGgufs(), ...calls]],
    [{ match: rejects }, [() => listCachedGgufs()]],
    [{ delete: throws }, calls],
  ])) {
    caches.open = async (name) => ({ ...(await open(name)), ...methods });
    for (const call of failing)
      await assert.rejects(call(), (/** @type {any} */ error) => {
        assert.ok(error instanceof GgufError, String(error));
        assert.match(error.message, /the cache "fused-matmul" keeps cannot be (listed|deleted): Unexpected/);
        assert.equal(/** @type {any} */ (error.cause)?.name, 'UnknownError');
        return true;
      });
  }
  caches.open = open;
  assert.equal((await listCachedGgufs()).length, 1);
});

const [monday, tuesday] = ['Mon, 05 Jan 2026 10:00:00 GMT', 'Tue, 06 Jan 2026 10:00:00 GMT'];
for (const [what, isKept, headers] of /** @type {[string, boolean, Record<string, string>[]][]} */ ([
  ['a strong tag, then the weak one', true, [{ etag: '"x"' }, { etag: 'W/"x"' }]],
  ['a weak tag, then the strong one', true, [{ etag: 'W/"x"' }, { etag: '"x"' }]],
  [
    'the same tag and another date',
    true,
    [
      { etag: '"x"', 'last-modified': monday },
      { etag: '"x"', 'last-modified': tuesday },
    ],
  ],
  ['a page where the file was', true, [{ etag: '"x"' }, { etag: '"y"', 'content-type': 'text/html' }]],
  ['another tag', false, [{ etag: '"x"' }, { etag: '"y"' }]],
  ['another date', false, [{ 'last-modified': monday }, { 'last-modified': tuesday }]],
]))
  test(`a kept file is ${isKept ? 'kept' : 'fetched anew'}: ${what}`, async (t) => {
    memoryCaches(t);
    const { url, visit } = await setUp(t, ({ n }) => headers[n - 1]);
    assert.ok((await readAll(url)).stored >= 5 * MB);
    visit.n = 2;
    const { stored, error } = await readAll(url);
    assert.equal(error, undefined);
    assert.equal(stored, isKept ? 0 : bytes.length);
    assert.equal((await listCachedGgufs()).length, 1);
  });
