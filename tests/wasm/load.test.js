/**
 * loadWeights: few requests, progress over all weights, failures that leave nothing behind, and
 * connections that break.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createKernels, GgufError, HandleError, openGguf } from '../../js/index.js';
import { addressIn } from '../../js/wasm/handles.js';
import { memoryOf } from '../../js/wasm/kernels.js';
import { loadTensors } from '../../js/wasm/load-weights.js';
import { countedBytes, ggufBytes, wideGguf } from '../helpers/gguf-bytes.js';
import { startServer } from '../helpers/range-server.js';

/** @import { TestContext } from 'node:test' */
/** @import { Behaviour } from '../helpers/range-server.js' */

const MB = 2 ** 20;

/** @param {TestContext} t @param {Uint8Array} file @param {Behaviour} [behaviour] */
async function serve(t, file, behaviour) {
  const server = await startServer(file, behaviour);
  t.after(() => server.close());
  return server;
}

/** @param {TestContext} t */
async function kernels(t) {
  const fm = await createKernels();
  t.after(() => fm.dispose());
  return fm;
}

/** @param {any} fm @param {any} w */
const addressOf = (fm, w) => addressIn(w, memoryOf(fm));

/** The bytes of weights, from memory. @param {any} fm @param {any[]} weights */
const bytesOf = (fm, weights) =>
  weights.map((w) => {
    const at = addressOf(fm, w);
    return Buffer.from(memoryOf(fm).u8.slice(at, at + w.byteLength));
  });

/**
 * @param {any} fm @param {any[]} weights @param {number[]} numbers  of the tensors
 * @param {number} length
 */
function same(fm, weights, numbers, length) {
  assert.equal(weights.length, numbers.length);
  for (const [i, bytes] of bytesOf(fm, weights).entries())
    assert.ok(bytes.equals(countedBytes(length, numbers[i] + 1)), `t${numbers[i]}`);
}

/** The requests of the load alone. @param {{ requests: any[] }} server */
const rangesOf = ({ requests }) => requests.slice(1).map(({ range }) => range);

const names = (/** @type {number[]} */ numbers) => numbers.map((i) => `t${i}`);

test('neighbours come by one request; the order is that of the names; twice is two weights', async (t) => {
  const fm = await kernels(t);
  const { bytes } = wideGguf({ nTensors: 12, bytes: MB });
  const server = await serve(t, bytes);
  const gguf = await openGguf(server.url);
  const at = (/** @type {number} */ i) => gguf.tensor(`t${i}`).offset;
  const ws = await fm.loadWeights(gguf, names([5, 3, 4, 3]));
  same(fm, ws, [5, 3, 4, 3], MB);
  assert.notEqual(addressOf(fm, ws[1]), addressOf(fm, ws[3]));
  assert.deepEqual(rangesOf(server), [`bytes=${at(3)}-${at(6) - 1}`]);
  server.requests.length = 1;
  same(fm, await fm.loadWeights(gguf, names([2, 3, 9, 10])), [2, 3, 9, 10], MB);
  assert.deepEqual(
    rangesOf(server).sort(),
    [`bytes=${at(2)}-${at(4) - 1}`, `bytes=${at(9)}-${at(11) - 1}`].sort(),
  );
  assert.deepEqual(await fm.loadWeights(gguf, []), []);
});

test('a large load is cut into as many requests as may run at a time, no more', async (t) => {
  const fm = await kernels(t);
  const { bytes } = wideGguf({ nTensors: 40, bytes: MB });
  const server = await serve(t, bytes);
  const gguf = await openGguf(server.url);
  const all = Array.from({ length: 38 }, (_, i) => i + 2);
  for (const [concurrency, requests] of [
    [1, 1],
    [2, 2],
    [4, 4],
    [100, 5],
  ]) {
    server.requests.length = 1;
    const ws = await fm.loadWeights(gguf, names(all), { concurrency });
    assert.equal(rangesOf(server).length, requests, `concurrency ${concurrency}`);
    same(fm, ws, all, MB);
    for (const w of ws) w.free();
  }
  for (const concurrency of [0, 1.5, Number.NaN])
    await assert.rejects(fm.loadWeights(gguf, names([1]), { concurrency }), ArgumentError);
  for (const wrong of ['t1', undefined, 5])
    await assert.rejects(fm.loadWeights(gguf, /** @type {any} */ (wrong)), ArgumentError);
});

test('progress is that of all, rises, and ends at the total', async (t) => {
  const fm = await kernels(t);
  const gguf = await openGguf(wideGguf({ nTensors: 12, bytes: MB }).bytes);
  /** @type {{ loaded: number, total: number }[]} */
  const steps = [];
  await fm.loadWeights(gguf, gguf.tensors.keys(), { onProgress: (step) => steps.push(step) });
  assert.ok(steps.length >= 12);
  for (const [i, { loaded, total }] of steps.entries())
    assert.ok(total === 12 * MB && loaded > (steps[i - 1]?.loaded ?? 0));
  assert.equal(steps.at(-1)?.loaded, 12 * MB);
});

test('any failure ends all of it, and nothing is left: no memory, no request', async (t) => {
  const fm = await kernels(t);
  const { bytes } = wideGguf({ nTensors: 40, bytes: MB });
  const server = await serve(t, bytes);
  const gguf = await openGguf(server.url, { retries: 0 });
  const before = { ...fm.memory(), bytes: 0, peak: 0 };
  const reason = new Error('enough');
  const thrown = new Error('from the caller');
  const all = [...gguf.tensors.keys()].slice(3);
  const broken = { dropAfter: 300_000 };
  for (const [what, behaviour, options, expected] of /** @type {[string, Behaviour, any, any][]} */ ([
    ['a connection breaks', broken, {}, GgufError],
    ['the server is down', { status: 404 }, {}, /HTTP 404/],
    [
      'progress throws',
      {},
      {
        onProgress: () => {
          throw thrown;
        },
      },
      thrown,
    ],
    ['aborted while it waits', { stallAt: 20 * MB }, { signal: 50 }, reason],
    ['aborted at the first chunk', {}, { signal: 0 }, reason],
  ])) {
    Object.assign(server.behaviour, behaviour);
    const abort = new AbortController();
    if (typeof options.signal === 'number') {
      if (options.signal > 0) setTimeout(() => abort.abort(reason), options.signal);
      else options.onProgress = () => abort.abort(reason);
      options.signal = abort.signal;
    }
    await assert.rejects(fm.loadWeights(gguf, all, options), expected, what);
    assert.deepEqual({ ...fm.memory(), bytes: 0, peak: 0 }, before, what);
    for (const key of Object.keys(behaviour)) delete (/** @type {any} */ (server.behaviour)[key]);
  }
  for (let i = 0; i < 100 && server.left.open > 0; i++)
    await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(server.left.open, 0, 'stalled answers are let go');
  const ws = await fm.loadWeights(gguf, all);
  same(
    fm,
    ws,
    Array.from({ length: 37 }, (_, i) => i + 3),
    MB,
  );
  const huge = { name: 'huge', type: 'F32', nRows: 2 ** 20, nCols: 1024, offset: 0, byteLength: 2 ** 32 };
  const source = {
    name: 'x',
    size: 2 ** 33,
    stream: () => assert.fail('nothing is read before there is room'),
  };
  const small = { ...huge, nRows: 1, nCols: 1, byteLength: 4 };
  const inUse = fm.memory().inUse;
  await assert.rejects(loadTensors(memoryOf(fm), source, [small, huge]), { name: 'MemoryError' });
  assert.equal(fm.memory().inUse, inUse);
});

test('dispose while loading', async (t) => {
  const { bytes } = wideGguf({ nTensors: 12, bytes: MB });
  const server = await serve(t, bytes, {});
  const fm = await createKernels();
  const gguf = await openGguf(server.url);
  const error = await fm
    .loadWeights(gguf, gguf.tensors.keys(), { onProgress: () => fm.dispose() })
    .catch((/** @type {unknown} */ e) => e);
  assert.ok(error instanceof HandleError && error.reason === 'disposed', String(error));
});

test('a connection that breaks is taken up again where it broke', async (t) => {
  const fm = await kernels(t);
  const { bytes } = wideGguf({ nTensors: 6, bytes: MB });
  const server = await serve(t, bytes, { etag: '"v1"' });
  const gguf = await openGguf(server.url, { retryDelay: 1 });
  const { offset } = gguf.tensor('t2');
  // There are more breaks than allowed attempts, but an attempt that brings bytes does not count as
  // failed.
  Object.assign(server.behaviour, { dropAfter: 200_000, drops: 12 });
  const ws = await fm.loadWeights(gguf, names([2, 3, 4]));
  same(fm, ws, [2, 3, 4], MB);
  const ranges = rangesOf(server);
  assert.equal(ranges.length, 13);
  const starts = ranges.map((range) => Number(/=(\d+)/.exec(range)?.[1]));
  assert.equal(starts[0], offset);
  for (const [i, start] of starts.slice(1).entries())
    assert.ok(start > starts[i] && start <= starts[i] + 200_000);
  for (const range of ranges) assert.ok(range.endsWith(`-${gguf.tensor('t4').offset + MB - 1}`), range);
  assert.equal(server.requests[0].headers['if-range'], undefined);
  for (const { headers } of server.requests.slice(1)) assert.equal(headers['if-range'], '"v1"');
});

test('also while the header is read', async (t) => {
  const { bytes } = wideGguf({ nTensors: 6, bytes: MB });
  const server = await serve(t, bytes, { dropAfter: 700_000, drops: 2 });
  const gguf = await openGguf(server.url, { retryDelay: 1 });
  assert.equal(server.requests.length, 3);
  assert.ok(Buffer.from(await gguf.read('t0')).equals(countedBytes(MB, 1)));
});

test('attempts that bring nothing are counted, and the last error is told', async (t) => {
  const { bytes } = wideGguf({ nTensors: 6, bytes: MB });
  const server = await serve(t, bytes);
  const gguf = await openGguf(server.url, { retryDelay: 1, retries: 3 });
  for (const [behaviour, message] of /** @type {[Behaviour, RegExp][]} */ ([
    [{ status: 503 }, /HTTP 503/],
    [{ status: 429 }, /HTTP 429/],
    [{ breakAt: 0 }, /connection failed at offset|cannot fetch/],
  ])) {
    server.requests.length = 1;
    Object.assign(server.behaviour, behaviour);
    await assert.rejects(gguf.read('t4'), (/** @type {any} */ error) => {
      assert.ok(error instanceof GgufError && message.test(error.message), String(error));
      return true;
    });
    assert.equal(rangesOf(server).length, 4, JSON.stringify(behaviour));
    for (const key of Object.keys(behaviour)) delete (/** @type {any} */ (server.behaviour)[key]);
  }
  // Errors that another attempt cannot fix are thrown at once.
  for (const status of [403, 404, 410]) {
    server.requests.length = 1;
    server.behaviour.status = status;
    await assert.rejects(gguf.read('t4'), new RegExp(`HTTP ${status}`));
    assert.equal(rangesOf(server).length, 1);
  }
});

test('the server says how long to wait; an abort ends the waiting', async (t) => {
  const { bytes } = wideGguf({ nTensors: 6, bytes: MB });
  const server = await serve(t, bytes);
  const gguf = await openGguf(server.url, { retryDelay: 1 });
  Object.assign(server.behaviour, { status: 429, retryAfter: 1 });
  const started = performance.now();
  setTimeout(() => delete server.behaviour.status, 500);
  assert.equal((await gguf.read('t4')).length, MB);
  assert.ok(performance.now() - started >= 990);
  server.behaviour.status = 503;
  server.behaviour.retryAfter = 20;
  const reason = new Error('enough');
  const abort = new AbortController();
  setTimeout(() => abort.abort(reason), 50);
  await assert.rejects(gguf.read('t4', { signal: abort.signal }), reason);
});

test('a file that changes under way is refused, however the server shows it', async (t) => {
  const fm = await kernels(t);
  const { bytes } = wideGguf({ nTensors: 6, bytes: MB });
  for (const [what, first, then] of /** @type {[string, Behaviour, Behaviour][]} */ ([
    ['ETag and If-Range', { etag: '"v1"' }, { etag: '"v2"' }],
    [
      'Last-Modified and If-Range',
      { modified: 'Tue, 01 Jan 2030 00:00:00 GMT' },
      { modified: 'Wed, 02 Jan 2030 00:00:00 GMT' },
    ],
    ['a weak ETag', { etag: 'W/"v1"' }, { etag: 'W/"v2"' }],
    ['ETag, no If-Range', { etag: '"v1"', noIfRange: true }, { etag: '"v2"' }],
    ['the size', {}, { claimMore: 5 }],
  ])) {
    const server = await serve(t, bytes, { ...first });
    const gguf = await openGguf(server.url, { retryDelay: 1 });
    Object.assign(server.behaviour, { dropAfter: 300_000, drops: 1 });
    const error = await fm
      .loadWeights(gguf, names([3, 4]), { onProgress: () => Object.assign(server.behaviour, then) })
      .catch((/** @type {unknown} */ e) => e);
    assert.ok(error instanceof GgufError && error.changed, `${what}: ${error}`);
    assert.match(error.message, /changed/);
    assert.equal(fm.memory().handles, 0);
  }
});

test('a gap between tensors: a small one is read over, a large one is not', async (t) => {
  const fm = await kernels(t);
  const data = (/** @type {number} */ seed) => countedBytes(4096, seed);
  const { bytes } = ggufBytes({
    tensors: [
      { name: 'first', typeId: 24, shape: [2_100_000], data: countedBytes(2_100_000) },
      { name: 'a', typeId: 0, shape: [1024], data: data(1) },
      { name: 'small', typeId: 24, shape: [60_000], data: countedBytes(60_000) },
      { name: 'b', typeId: 0, shape: [1024], data: data(2) },
      { name: 'large', typeId: 24, shape: [70_000], data: countedBytes(70_000) },
      { name: 'c', typeId: 0, shape: [1024], data: data(3) },
    ],
  });
  const server = await serve(t, bytes);
  const gguf = await openGguf(server.url);
  let last = { loaded: 0, total: 0 };
  const onProgress = (/** @type {typeof last} */ step) => {
    last = step;
  };
  const ws = await fm.loadWeights(gguf, ['a', 'b', 'c'], { onProgress });
  for (const [i, got] of bytesOf(fm, ws).entries()) assert.ok(got.equals(data(i + 1)), ws[i].name);
  assert.equal(rangesOf(server).length, 2);
  assert.deepEqual(last, { loaded: 3 * 4096, total: 3 * 4096 }, 'what is read over does not count');
});

test('streams of any kind, also from a fetch of the caller, whose own chunks stay as they are', async (t) => {
  const fm = await kernels(t);
  const { bytes } = wideGguf({ nTensors: 6, bytes: MB });
  /**
   * Chunks that the caller keeps, as views of one buffer.
   * @param {number} at @param {number} end
   */
  function* chunks(at, end) {
    for (let step = 1000; at < end; at += step, step += 70_001)
      yield bytes.subarray(at, Math.min(end, at + step));
  }
  /** @type {Record<string, (at: number, end: number) => BodyInit>} */
  const bodies = {
    'a stream of chunks': (at, end) => {
      const all = chunks(at, end);
      return new ReadableStream({
        pull(controller) {
          const { value, done } = all.next();
          if (done) controller.close();
          else controller.enqueue(value);
        },
      });
    },
    'a stream of bytes': (at, end) => {
      const all = chunks(at, end);
      return new ReadableStream({
        type: 'bytes',
        pull(controller) {
          const { value, done } = all.next();
          if (value) controller.enqueue(value.slice());
          if (!done) return;
          controller.close();
          controller.byobRequest?.respond(0);
        },
      });
    },
    'no stream': (at, end) => bytes.slice(at, end),
  };
  for (const [kind, body] of Object.entries(bodies)) {
    /** @param {any} _ @param {any} init */
    const fetch = async (_, { headers }) => {
      const [, from, to] = /** @type {string[]} */ (/bytes=(\d+)-(\d+)/.exec(headers.get('range')));
      const [at, end] = [Number(from), Math.min(Number(to) + 1, bytes.length)];
      const range = `bytes ${at}-${end - 1}/${bytes.length}`;
      return new Response(body(at, end), { status: 206, headers: { 'content-range': range } });
    };
    const gguf = await openGguf('http://model.invalid/model.gguf', { fetch });
    const ws = await fm.loadWeights(gguf, names([5, 1, 2, 3, 4]));
    same(fm, ws, [5, 1, 2, 3, 4], MB);
    for (const w of ws) w.free();
    assert.notEqual(bytes.length, 0, kind);
  }
});
