/** Kernels in a worker of a page: their life, their end, and nothing left of them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { rangeHandler } from '../helpers/range-server.js';
import { modelPath } from '../helpers/workers.js';
import { launchChromium, skipWithoutChromium } from './helpers.js';
import { ISOLATION, openLibrary, PRODUCT } from './library-page.js';

/** @import { TestContext } from 'node:test' */

const skip = skipWithoutChromium();
/** @type {import('playwright-core').Browser} */
let browser;

before(async () => {
  if (!skip) browser = await launchChromium();
});
after(() => browser?.close());

/** @param {TestContext} t @param {Parameters<typeof openLibrary>[1]} [options] */
async function open(t, options) {
  const opened = await openLibrary(browser, options);
  t.after(() => opened.close());
  return opened;
}

/** Waits until the page has so many workers. @param {import('playwright-core').Page} page @param {number} count */
async function untilWorkers(page, count) {
  // Chromium may take seconds to end a worker on a busy machine.
  for (let i = 0; i < 1000 && page.workers().length !== count; i++) await page.waitForTimeout(20);
  assert.equal(page.workers().length, count, 'workers of the page');
}

test('a worker computes, loads by URL and from a Blob, and is gone after dispose', { skip }, async (t) => {
  const model = readFileSync(modelPath);
  const { page, evaluate, problems } = await open(t, {
    routes: { '/model.gguf': rangeHandler(model).handler },
  });
  const result = await evaluate(`
    const fm = globalThis.fm = await library.createWorkerKernels();
    const blob = await (await fetch('/model.gguf')).blob();
    const rows = [];
    for (const source of ['../../../model.gguf', blob, await blob.arrayBuffer()]) {
      const w = await fm.loadWeight(await library.openGguf(source), 'blk.0.ffn_gate.weight');
      rows.push(String(await fm.dequantize(w, { end: 1 })));
    }
    const here = await library.createKernels({ isa: fm.isa });
    const w = await here.loadWeight(await library.openGguf(blob), 'blk.0.ffn_gate.weight');
    return { y: await product(fm), rows, expected: String(here.dequantize(w, { end: 1 })), isa: fm.info.isa };`);
  assert.deepEqual(result.y, PRODUCT);
  for (const row of result.rows) assert.equal(row, result.expected);
  await untilWorkers(page, 1);
  await evaluate('await fm.dispose(); await fm.dispose();');
  await untilWorkers(page, 0);
  assert.deepEqual(problems, []);
});

for (const isolated of [false, true]) {
  test(`abort in the middle of a sequence, ${isolated ? 'with' : 'without'} SharedArrayBuffer`, {
    skip,
  }, async (t) => {
    const { evaluate, page } = await open(t, { headers: isolated ? ISOLATION : {} });
    const { at, caught, left, hasShared } = await evaluate(`
      const fm = await library.createWorkerKernels();
      const n = 2048;
      const w = await fm.weight({ type: 'F32', nRows: n, nCols: n });
      const [x, y, at] = await Promise.all([8 * n, 8 * n, 1].map((v) =>
        fm.tensor({ nRows: v > 1 ? 8 : 1, nCols: v > 1 ? n : 1 })));
      let reached = 0, caught;
      for (let wait = 200; reached === 0 && wait < 20000; wait *= 4) {
        const abort = new AbortController();
        const running = fm.sequence((ops) => {
          for (let i = 1; i <= 4000; i++) { ops.fusedMatmul(w, x, { out: y }); at.set(Float32Array.of(i)); }
          return ops.tensor({ nRows: 1, nCols: 1 });
        }, { signal: abort.signal });
        setTimeout(() => abort.abort('enough'), wait);
        caught = await running.catch((reason) => reason);
        [reached] = await at.toArray();
      }
      const { handles } = await fm.memory();
      await fm.dispose();
      return { at: reached, caught, left: handles, hasShared: typeof SharedArrayBuffer === 'function' };`);
    assert.equal(hasShared, isolated);
    assert.equal(caught, 'enough');
    assert.ok(at > 0 && at < 4000, `stopped after ${at}`);
    assert.equal(left, 4);
    await untilWorkers(page, 0);
  });
}

test('terminated, closed, crashed, disposed in the middle of work: typed errors, no worker left', {
  skip,
}, async (t) => {
  const { page, evaluate } = await open(t, { headers: ISOLATION });
  const errors = await evaluate(`
    const make = () => globalThis.raw = new Worker('/dist/worker-host.js', { type: 'module' });
    const busy = async (fm) => {
      const x = await fm.tensor({ nRows: 64, nCols: 1024 });
      const w = await fm.weight({ type: 'F32', nRows: 1024, nCols: 1024 });
      return fm.sequence((ops) => { for (let i = 0; i < 5000; i++) ops.fusedMatmul(w, x); });
    };
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const ends = {
      terminated: () => raw.terminate(),
      disposed: (fm) => fm.dispose(),
    };
    const result = {};
    for (const [name, end] of Object.entries(ends)) {
      const fm = await library.createWorkerKernels({ worker: make });
      const pending = busy(fm).catch(describe);
      await pause(100);
      end(fm);
      result[name] = [await pending, await fm.memory().catch(describe), fm.disposed];
      await fm.dispose();
    }
    // The worker closes itself, or an error is thrown outside of any call.
    for (const [name, act] of Object.entries({ closed: 'close();', crashed: "throw new Error('boom');" })) {
      const code = \`import '\${location.origin}/dist/worker-host.js';
        addEventListener('message', ({ data }) => data.kind === 'run' && setTimeout(() => { \${act} }));\`;
      const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
      const fm = await library.createWorkerKernels({ worker: () => new Worker(url, { type: 'module' }) });
      while (!result[name]) result[name] = await fm.memory().then(() => pause(10)).catch(describe);
    }
    return result;`);
  const [pending, later, disposed] = errors.terminated;
  assert.deepEqual(
    [pending.code, later.code, disposed],
    ['FM_WORKER', 'FM_WORKER', true],
    JSON.stringify(errors),
  );
  assert.match(pending.message, /terminated/);
  const [inWork, after] = errors.disposed;
  assert.deepEqual([inWork.code, inWork.reason, after.reason], ['FM_HANDLE', 'disposed', 'disposed']);
  for (const [name, why] of Object.entries({ closed: /it was closed/, crashed: /boom/ })) {
    assert.equal(errors[name].code, 'FM_WORKER', JSON.stringify(errors[name]));
    assert.match(errors[name].message, why);
  }
  await untilWorkers(page, 0);
});

test('a worker that cannot be started: LoadError, no worker left', { skip }, async (t) => {
  const { page, evaluate } = await open(t);
  const [missing, broken, badWasm] = await evaluate(`
    const broken = URL.createObjectURL(new Blob(['this is no JavaScript'], { type: 'text/javascript' }));
    return Promise.all([
      library.createWorkerKernels({ worker: '/dist/no-such-file.js' }).catch(describe),
      library.createWorkerKernels({ worker: broken }).catch(describe),
      library.createWorkerKernels({ wasm: new Uint8Array([0, 97, 115, 109, 9, 9, 9, 9]) }).catch(describe),
    ]);`);
  for (const error of [missing, broken, badWasm]) assert.equal(error.code, 'FM_LOAD', JSON.stringify(error));
  for (const error of [missing, broken]) assert.match(error.message, /worker cannot be started/);
  await untilWorkers(page, 0);
});

test('a policy without worker-src: LoadError that names it', { skip }, async (t) => {
  const headers = {
    'Content-Security-Policy':
      "default-src 'self'; script-src 'self' 'nonce-fixture' 'wasm-unsafe-eval'; worker-src 'none'; img-src data:",
  };
  const { page, evaluate } = await open(t, { headers });
  const error = await evaluate('return library.createWorkerKernels().catch(describe);');
  assert.equal(error.code, 'FM_LOAD', JSON.stringify(error));
  assert.match(error.message, /worker-src/);
  assert.equal(
    (await evaluate("return run('createKernels')")).y[0],
    PRODUCT[0],
    'the page itself can compute',
  );
  await untilWorkers(page, 0);
});

test('two at once, with threads of their own on an isolated page, and none of them left', {
  skip,
}, async (t) => {
  const { page, evaluate, problems } = await open(t, { headers: ISOLATION });
  const [a, b, threads] = await evaluate(`
    globalThis.both = await Promise.all([1, 2].map(() => library.createWorkerKernels({ threads: 2 })));
    return [await product(both[0]), await product(both[1]), both.map((fm) => [fm.info.threads, fm.info.threadsReason])];`);
  assert.deepEqual([a, b], [PRODUCT, PRODUCT]);
  for (const [count, reason] of threads) assert.equal(count, 2, reason);
  assert.ok(page.workers().length >= 2);
  const rest = await evaluate('await both[0].dispose(); return product(both[1]);');
  assert.deepEqual(rest, PRODUCT);
  await evaluate('await both[1].dispose();');
  await untilWorkers(page, 0);
  assert.deepEqual(problems, []);
});
