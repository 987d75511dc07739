/** Code without an address in Chromium: a plain script, and workers from blob: URLs. As tests/package/bundles.test.js in Node. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { bundleAs } from '../helpers/bundle.js';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from './helpers.js';
import { ISOLATION } from './library-page.js';

const skip = skipWithoutChromium();
/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serveFolder>>} */
let server;

const PAGE = '/bundles.html';

before(async () => {
  if (skip) return;
  browser = await launchChromium();
  /** @param {string} type @param {string} body @returns {import('node:http').RequestListener} */
  const answer = (type, body) => (_, response) =>
    response.writeHead(200, { 'Content-Type': type, ...ISOLATION }).end(body);
  const library = "export * from './js/layer-index.js';";
  const module = "import * as lib from './js/layer-index.js'; globalThis.lib = lib;";
  server = await serveFolder(projectRoot, {
    headers: ISOLATION,
    routes: {
      [PAGE]: answer('text/html', '<!doctype html><link rel="icon" href="data:,">'),
      '/bundle.js': answer('text/javascript', await bundleAs('iife', library)),
      '/bundle.mjs': answer('text/javascript', await bundleAs('esm', module)),
    },
  });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** What is tried with the library: the answers, or name, code and message of errors. */
const TRY = `async (lib, base) => {
  const simd128 = new Uint8Array(await (await fetch(base + 'dist/fused-simd128.wasm')).arrayBuffer());
  const threaded = new Uint8Array(await (await fetch(base + 'dist/fused-simd128-mt.wasm')).arrayBuffer());
  const run = async (make) => {
    try {
      const fm = await make();
      const w = await fm.weight({ type: 'F32', nRows: 1, nCols: 4, data: Float32Array.of(1, 2, 3, 4) });
      const [y] = await fm.fusedMatmul(w, Float32Array.of(1, 10, 100, 1000));
      const { threads, threadsReason } = fm.info;
      await fm.dispose();
      return { y, threads, threadsReason };
    } catch (error) {
      return { name: error.name, code: error.code, message: error.message };
    }
  };
  return {
    nothing: await run(() => lib.createKernels()),
    bytes: await run(() => lib.createKernels({ wasm: simd128 })),
    address: await run(() => lib.createKernels({ wasm: base + 'dist/fused-simd128.wasm' })),
    threads: await run(() => lib.createKernels({ wasm: { simd128, 'simd128-mt': threaded }, threads: 2 })),
    noWorker: await run(() => lib.createWorkerKernels({ wasm: simd128 })),
    worker: await run(() => lib.createWorkerKernels({ worker: base + 'dist/worker-host.js', threads: 2 })),
  };
}`;

/** How the bundle is started: a function of the page's, which gives what TRY gives. */
const STARTS = {
  'a script of the page': `async () => {
    const script = document.createElement('script');
    script.src = '/bundle.js';
    await new Promise((resolve) => { script.onload = resolve; document.head.append(script); });
    return (${TRY})(lib, location.origin + '/');
  }`,
  'a classic worker from a blob: URL': inWorker('/bundle.js', 'classic'),
  'a module worker from a blob: URL': inWorker('/bundle.mjs', 'module'),
};

/**
 * @param {string} address
 * @param {'classic' | 'module'} type
 */
function inWorker(address, type) {
  return `async () => {
    const text = await (await fetch(${JSON.stringify(address)})).text();
    const code = text + ${JSON.stringify(`\n(${TRY})(lib, __PAGE_ADDRESS__).then(postMessage, (error) => postMessage(String(error)));`)};
    const blob = new Blob([code.replace('__PAGE_ADDRESS__', JSON.stringify(location.origin + '/'))], { type: 'text/javascript' });
    const worker = new Worker(URL.createObjectURL(blob), { type: ${JSON.stringify(type)} });
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
  }`;
}

for (const [what, start] of Object.entries(STARTS)) {
  test(`${what}: works with the files it is given, and else says what to give`, { skip }, async () => {
    const { page, problems, close } = await openPage(browser, new URL(PAGE, server.url).href);
    /** @type {any} */
    const got = await page.evaluate(`(${start})()`);
    for (const name of ['bytes', 'address', 'threads', 'worker']) assert.equal(got[name].y, 4321, name);
    assert.equal(got.threads.threads, 1);
    assert.match(got.threads.threadsReason, /^one thread: .*js\/thread\.js/);
    assert.equal(got.worker.threads, 2, got.worker.threadsReason);
    assert.deepEqual([got.nothing.name, got.nothing.code], ['LoadError', 'FM_LOAD']);
    assert.match(got.nothing.message, /blob:.*createKernels\(\{ wasm \}\)/);
    assert.deepEqual([got.noWorker.name, got.noWorker.code], ['LoadError', 'FM_LOAD']);
    assert.match(got.noWorker.message, /createWorkerKernels\(\{ worker \}\)/);
    assert.deepEqual(problems, []);
    await close();
  });
}
