/** Connections that stay open but bring nothing: after a timeout they are given up, and resumed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createKernels, createWorkerKernels, GgufError, openGguf } from '../../js/index.js';
import { countedBytes, wideGguf } from '../helpers/gguf-bytes.js';
import { startServer } from '../helpers/range-server.js';

/** @import { TestContext } from 'node:test' */
/** @import { Behaviour } from '../helpers/range-server.js' */

const MB = 2 ** 20;
const { bytes } = wideGguf({ nTensors: 6, bytes: MB });
const options = { retryDelay: 1, retries: 2, timeout: 200 };

/** @param {TestContext} t @param {Behaviour} [behaviour] */
async function serve(t, behaviour) {
  const server = await startServer(bytes, behaviour);
  t.after(() => server.close());
  return server;
}

/** Waits until no answer is in progress. @param {Awaited<ReturnType<typeof startServer>>} server */
async function closed({ left }) {
  for (let i = 0; i < 100 && left.open > 0; i++) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(left.open, 0, 'connections that were given up are closed');
}

for (const create of [createKernels, createWorkerKernels]) {
  test(`${create.name}: what stalls is taken up again behind the last byte that came`, {
    timeout: 60_000,
  }, async (t) => {
    const fm = await create();
    t.after(() => fm.dispose());
    const server = await serve(t);
    const gguf = await openGguf(server.url, options);
    const [t3, t4] = ['t3', 't4'].map((name) => gguf.tensor(name));
    const stallAt = t3.offset + 300_000;
    Object.assign(server.behaviour, { stallAt, stalls: 1 });
    const expected = await gguf.read('t3');
    assert.ok(Buffer.from(expected).equals(countedBytes(MB, 4)));
    server.requests.length = 0;
    server.behaviour.stalls = 1;
    let loaded = 0;
    const weights = await fm.loadWeights(gguf, ['t3', 't4'], {
      onProgress: (step) => {
        loaded = step.loaded;
      },
    });
    assert.equal(loaded, 2 * MB);
    assert.deepEqual(
      server.requests.map(({ range }) => range),
      [`bytes=${t3.offset}-${t4.offset + MB - 1}`, `bytes=${stallAt}-${t4.offset + MB - 1}`],
    );
    const plain = await openGguf(bytes);
    for (const [i, w] of weights.entries()) {
      const [same] = await fm.loadWeights(plain, [`t${3 + i}`]);
      const values = (/** @type {any} */ of) => /** @type {any} */ (fm).dequantize(of);
      assert.deepEqual(await values(w), await values(same));
    }
    await closed(server);
  });
}

test('one that stalls again and again is given up, with the place; nothing is left of it', async (t) => {
  const fm = await createKernels();
  t.after(() => fm.dispose());
  const server = await serve(t);
  const gguf = await openGguf(server.url, options);
  const stallAt = gguf.tensor('t4').offset + 1000;
  Object.assign(server.behaviour, { stallAt });
  server.requests.length = 0;
  await assert.rejects(fm.loadWeights(gguf, ['t3', 't4']), (/** @type {any} */ error) => {
    assert.ok(error instanceof GgufError, String(error));
    assert.match(error.message, new RegExp(`no byte came for 200 ms at offset ${stallAt}$`));
    assert.equal(error.offset, stallAt);
    return true;
  });
  // The first attempt brought bytes, so it does not count among the failures in a row.
  assert.equal(server.requests.length, 1 + options.retries);
  assert.equal(fm.memory().handles, 0);
  await closed(server);
});

test('a server that takes requests and never answers', async (t) => {
  const server = await serve(t, { silent: true });
  const refused = (/** @type {any} */ error) => {
    assert.ok(error instanceof GgufError, String(error));
    assert.match(error.message, /cannot fetch .*: no answer came for 200 ms$/);
    return true;
  };
  await assert.rejects(openGguf(server.url, options), refused);
  server.behaviour.silent = false;
  const gguf = await openGguf(server.url, options);
  server.behaviour.silent = true;
  server.requests.length = 0;
  await assert.rejects(gguf.read('t4'), refused);
  assert.equal(server.requests.length, 1 + options.retries);
  setTimeout(() => {
    server.behaviour.silent = false;
  }, 100);
  assert.equal((await gguf.read('t4')).length, MB);
  await closed(server);
});

test('an abort ends the waiting at once', async (t) => {
  const server = await serve(t);
  const gguf = await openGguf(server.url, { ...options, timeout: 60_000 });
  for (const behaviour of [{ stallAt: gguf.tensor('t4').offset + 5 }, { silent: true }]) {
    Object.assign(server.behaviour, behaviour);
    const reason = new Error('enough');
    await assert.rejects(gguf.read('t4', { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' });
    const abort = new AbortController();
    setTimeout(() => abort.abort(reason), 50);
    await assert.rejects(gguf.read('t4', { signal: abort.signal }), reason);
  }
  await closed(server);
});

test('slow is not stalled, and Infinity waits', async (t) => {
  const server = await serve(t);
  for (const timeout of [150, Infinity]) {
    server.behaviour.slow = 0;
    const gguf = await openGguf(server.url, { ...options, timeout });
    server.behaviour.slow = 40; // 400 ms in all
    server.requests.length = 0;
    assert.ok(Buffer.from(await gguf.read('t4')).equals(countedBytes(MB, 5)));
    assert.equal(server.requests.length, 1);
  }
});

test('what is no time is refused', async () => {
  for (const timeout of /** @type {any[]} */ ([0, -1, Number.NaN, 'soon', null]))
    await assert.rejects(
      openGguf('http://127.0.0.1:9/x.gguf', { timeout }),
      (error) => error instanceof ArgumentError && /timeout must be a number above 0/.test(error.message),
    );
});
