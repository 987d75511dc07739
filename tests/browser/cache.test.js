/** Files kept in Cache Storage: read again without the server, in a page and in a worker; changed, evicted, without room. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { wideGguf } from '../helpers/gguf-bytes.js';
import { rangeHandler } from '../helpers/range-server.js';
import { launchChromium, skipWithoutChromium } from './helpers.js';
import { openLibrary } from './library-page.js';

/** @import { TestContext } from 'node:test' */

const skip = skipWithoutChromium();
const MB = 2 ** 20;
/** @type {import('playwright-core').Browser} */
let browser;

before(async () => {
  if (!skip) browser = await launchChromium();
});
after(() => browser?.close());

/**
 * A page, and two files behind a server that can go away.
 * @param {TestContext} t
 */
async function open(t) {
  const files = ['a', 'b'].map((name, i) => {
    const { bytes } = wideGguf({ nTensors: 5 + i, bytes: MB });
    return { name, bytes, ...rangeHandler(bytes, { etag: `"${name}1"` }) };
  });
  const state = { gone: false, files };
  const routes = Object.fromEntries(
    files.map(({ name, handler }) => [
      `/${name}.gguf`,
      (/** @type {any} */ request, /** @type {any} */ response) => {
        if (state.gone) request.socket.destroy();
        else handler(request, response);
      },
    ]),
  );
  const opened = await openLibrary(browser, { routes });
  t.after(() => opened.close());
  const helpers = `
    globalThis.sums = async (url, options, create = 'createKernels', numbers = [1, 2, 4]) => {
      const fm = await library[create]({ isa: 'scalar' });
      try {
        const gguf = await library.openGguf(url, { retryDelay: 1, retries: 1, ...options });
        const names = numbers.map((i) => 't' + i);
        const weights = await fm.loadWeights(gguf, names);
        const sums = [];
        for (const w of weights) {
          const bytes = new Uint8Array((await fm.dequantize(w)).buffer);
          let sum = 0;
          for (let i = 0; i < bytes.length; i++) sum = (Math.imul(sum, 31) + bytes[i]) | 0;
          sums.push(sum);
        }
        return { sums, cached: gguf.cached && { ...gguf.cached, error: gguf.cached.error?.name } };
      } catch (error) { return { error: describe(error) }; } finally { await fm.dispose(); }
    };`;
  await opened.evaluate(helpers);
  return {
    ...opened,
    ...state,
    state,
    again: async () => {
      await opened.page.reload();
      await opened.page.waitForFunction('globalThis.libraryReady === true');
      await opened.evaluate(helpers);
    },
  };
}

test('the second time the server may be gone', { skip }, async (t) => {
  const { evaluate, again, state, files } = await open(t);
  const plain = await evaluate("return sums('/a.gguf')");
  assert.equal(plain.cached, undefined);
  const first = await evaluate("return sums('/a.gguf', { cache: true })");
  assert.deepEqual(first.sums, plain.sums);
  assert.equal(first.cached.name, 'fused-matmul');
  assert.ok(first.cached.stored >= 4 * MB, JSON.stringify(first));
  const [{ url, size, bytes }] = await evaluate('return library.listCachedGgufs()');
  assert.match(url, /\/a\.gguf$/);
  assert.deepEqual([size, bytes <= size && bytes >= 4 * MB], [files[0].bytes.length, true]);
  // Still the same at the server: one small request tells.
  files[0].requests.length = 0;
  const second = await evaluate("return sums('/a.gguf', { cache: true })");
  assert.deepEqual([second.sums, second.cached.stored], [plain.sums, 0]);
  assert.deepEqual(
    files[0].requests.map(({ range }) => range),
    ['bytes=0-0'],
  );
  await again();
  state.gone = true;
  for (const create of ['createKernels', 'createWorkerKernels']) {
    const offline = await evaluate(`return sums('/a.gguf', { cache: true }, '${create}')`);
    assert.deepEqual(offline.sums, plain.sums, `${create}: ${JSON.stringify(offline)}`);
    // What is read in the worker counts too.
    assert.deepEqual(offline.cached, { ...second.cached }, create);
  }
  // What was not read then is not there now.
  const rest = await evaluate("return sums('/a.gguf', { cache: true }, 'createKernels', [3])");
  assert.ok(rest.sums || rest.error.code === 'FM_GGUF');
  assert.equal((await evaluate("return sums('/b.gguf', { cache: true })")).error.code, 'FM_GGUF');
  await evaluate("await library.deleteCachedGguf('/a.gguf')");
  assert.equal((await evaluate("return sums('/a.gguf', { cache: true })")).error.code, 'FM_GGUF');
});

test('a worker fills the cache; another name is another cache; all of it can be cleared', {
  skip,
}, async (t) => {
  const { evaluate, state } = await open(t);
  const first = await evaluate("return sums('/a.gguf', { cache: 'mine' }, 'createWorkerKernels')");
  assert.ok(first.sums, JSON.stringify(first));
  const here = await evaluate("return sums('/a.gguf', { cache: 'other' })");
  assert.deepEqual(first.cached, { ...here.cached, name: 'mine' });
  await evaluate("await library.clearCachedGgufs('other')");
  await evaluate("return sums('/b.gguf', { cache: 'mine' }, 'createWorkerKernels')");
  const names = await evaluate(
    "return (await library.listCachedGgufs('mine')).map(({ url }) => url.slice(-6))",
  );
  assert.deepEqual(names, ['b.gguf', 'a.gguf'], 'the one opened last first');
  assert.deepEqual(await evaluate('return library.listCachedGgufs()'), []);
  state.gone = true;
  assert.deepEqual((await evaluate("return sums('/a.gguf', { cache: 'mine' })")).sums, first.sums);
  await evaluate("await library.clearCachedGgufs('mine')");
  assert.deepEqual(await evaluate("return library.listCachedGgufs('mine')"), []);
});

test('a file that changed is fetched anew, and the old one dropped', { skip }, async (t) => {
  const { evaluate, files } = await open(t);
  const before = await evaluate("return sums('/a.gguf', { cache: true })");
  files[0].behaviour.etag = '"a2"';
  files[0].bytes.fill(7, files[0].bytes.length - MB);
  const after = await evaluate("return sums('/a.gguf', { cache: true })");
  assert.ok(after.cached.stored >= 4 * MB, JSON.stringify(after));
  assert.notDeepEqual(after.sums, before.sums);
  assert.deepEqual(after.sums, (await evaluate("return sums('/a.gguf')")).sums);
  assert.equal((await evaluate('return library.listCachedGgufs()')).length, 1);
});

test('what is kept may be anything: it is fetched again, or refused as a file would be', {
  skip,
}, async (t) => {
  const { evaluate, state } = await open(t);
  const plain = await evaluate("return sums('/a.gguf', { cache: true })");
  await evaluate(`
    globalThis.change = async (isIt, make) => {
      const cache = await caches.open('fused-matmul');
      for (const request of await cache.keys())
        if (isIt(request.url)) await cache.put(request, new Response(await make(await cache.match(request))));
    };
    globalThis.entries = async () => (await (await caches.open('fused-matmul')).keys()).map(({ url }) => url);
    const [shortest] = (await entries()).sort((a, b) => a.length - b.length);
    globalThis.isDescription = (url) => url === shortest;
  `);
  const again = async () => (await evaluate("return sums('/a.gguf', { cache: true })")).sums;
  for (const make of [
    'async () => "no JSON"',
    'async () => "null"',
    'async () => JSON.stringify({ facts: null, used: 1 })',
    'async () => JSON.stringify({ facts: { url: 1, size: "many" }, used: "never" })',
    'async (old) => { const all = await old.json(); all.facts.size = -1; return JSON.stringify(all); }',
    'async (old) => { const all = await old.json(); all.facts.size = 1e300; return JSON.stringify(all); }',
    'async (old) => { const all = await old.json(); all.facts.url = "/b.gguf"; return JSON.stringify(all); }',
    'async (old) => { const all = await old.json(); all.facts.etag = {}; return JSON.stringify(all); }',
  ]) {
    await evaluate(`await change(isDescription, ${make})`);
    assert.equal((await evaluate('return library.listCachedGgufs()')).length <= 1, true, make);
    assert.deepEqual(await again(), plain.sums, make);
  }
  await evaluate('await change((url) => !isDescription(url), () => new Uint8Array(5))');
  assert.deepEqual(await again(), plain.sums, 'blocks of another length');

  state.gone = true;
  assert.deepEqual(await again(), plain.sums, 'all of it is there again');
  await evaluate('await change((url) => !isDescription(url), () => new Uint8Array(2 ** 20).fill(255))');
  const bad = await evaluate("return sums('/a.gguf', { cache: true })");
  assert.equal(bad.error?.code, 'FM_GGUF', JSON.stringify(bad));
  await evaluate('await change(isDescription, async () => "no JSON")');
  assert.deepEqual(await evaluate('return library.listCachedGgufs()'), []);
  const none = await evaluate("return sums('/a.gguf', { cache: true })");
  assert.equal(none.error?.code, 'FM_GGUF', JSON.stringify(none));
});

test('no room: the file used longest ago goes; then it is read as without a cache', { skip }, async (t) => {
  const { evaluate } = await open(t);
  const plain = await evaluate("return sums('/b.gguf')");
  await evaluate("return sums('/a.gguf', { cache: true })");
  // Room for one of them: 6 blocks of the second are read.
  await evaluate(`
    globalThis.put = Cache.prototype.put;
    globalThis.room = () => library.listCachedGgufs().then((all) => 7 * 2 ** 20 - all.reduce((n, f) => n + f.bytes, 0));
    Cache.prototype.put = async function (request, response) {
      if (globalThis.full || (await room()) < 2 ** 20) throw new DOMException('full', 'QuotaExceededError');
      return put.call(this, request, response);
    };`);
  const evicting = await evaluate("return sums('/b.gguf', { cache: true })");
  assert.deepEqual([evicting.sums, evicting.cached.error], [plain.sums, undefined], JSON.stringify(evicting));
  const names = await evaluate('return (await library.listCachedGgufs()).map(({ url }) => url.slice(-6))');
  assert.deepEqual(names, ['b.gguf']);
  await evaluate('globalThis.full = true; await library.clearCachedGgufs();');
  const full = await evaluate("return sums('/b.gguf', { cache: true })");
  assert.deepEqual([full.sums, full.cached.error, full.cached.stored], [plain.sums, 'QuotaExceededError', 0]);
});

test('no Cache Storage: read as without, and it says why', { skip }, async (t) => {
  const { evaluate } = await open(t);
  const plain = await evaluate("return sums('/a.gguf')");
  await evaluate("Object.defineProperty(globalThis, 'caches', { value: undefined });");
  const without = await evaluate("return sums('/a.gguf', { cache: true })");
  assert.deepEqual([without.sums, without.cached.error], [plain.sums, 'GgufError']);
});
