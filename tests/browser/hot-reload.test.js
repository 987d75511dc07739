/** Vite's development server replaces a module that owns a worker: the old worker ends, the page stays. */
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { createServer } from 'vite';
import { root } from '../../scripts/setup/run.js';
import { launchChromium, openPage, skipWithoutChromium } from './helpers.js';

const skip = skipWithoutChromium();
const folder = path.join(root, 'build/hot-reload');
/** @type {import('playwright-core').Browser} */
let browser;
/** @type {import('vite').ViteDevServer} */
let server;

/** As the README shows it. @param {number} version */
const engine = (version) => `
import { createWorkerKernels } from 'fused-matmul';
export const version = ${version};
export const fm = await createWorkerKernels();
import.meta.hot?.dispose(() => fm.dispose());
`;
const main = `
import * as first from './engine.js';
globalThis.engine = first;
globalThis.started = Math.random();
import.meta.hot.accept('./engine.js', (next) => { globalThis.engine = next; });
`;

before(async () => {
  if (skip) return;
  mkdirSync(folder, { recursive: true });
  const write = (/** @type {string} */ name, /** @type {string} */ text) =>
    writeFileSync(path.join(folder, name), text);
  write(
    'index.html',
    '<!doctype html><link rel="icon" href="data:,"><script type="module" src="./main.js"></script>',
  );
  write('main.js', main);
  write('engine.js', engine(1));
  server = await createServer({
    root: folder,
    configFile: false,
    logLevel: 'silent',
    cacheDir: path.join(folder, '.vite'),
    resolve: { alias: { 'fused-matmul': path.join(root, 'js/index.js') } },
    server: { host: '127.0.0.1', port: 0, fs: { allow: [root] } },
  });
  await server.listen();
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await server?.close();
  rmSync(folder, { recursive: true, force: true });
});

test('a module is replaced: one worker, before and after', { skip }, async (t) => {
  const address = server.httpServer?.address() ?? assert.fail('it does not listen');
  const { port } = /** @type {import("node:net").AddressInfo} */ (address);
  const { page, close } = await openPage(browser, `http://127.0.0.1:${port}/`);
  t.after(close);
  const product = async (/** @type {number} */ version) => {
    await page.waitForFunction(`globalThis.engine?.version === ${version}`, undefined, { timeout: 30_000 });
    return page.evaluate(`(async () => {
      const { fm } = engine;
      const w = await fm.weight({ type: 'F32', nRows: 1, nCols: 2, data: Float32Array.of(2, 3) });
      return [...(await fm.fusedMatmul(w, Float32Array.of(10, 1)))];
    })()`);
  };
  assert.deepEqual(await product(1), [23]);
  const started = await page.evaluate('globalThis.started');
  for (const version of [2, 3, 4]) {
    const old = page.workers()[0];
    assert.equal(page.workers().length, 1, `before version ${version}`);
    writeFileSync(path.join(folder, 'engine.js'), engine(version));
    assert.deepEqual(await product(version), [23]);
    for (let i = 0; i < 1000 && page.workers().length !== 1; i++) await page.waitForTimeout(20);
    assert.equal(page.workers().length, 1, `after version ${version}`);
    assert.notEqual(page.workers()[0], old);
  }
  assert.equal(await page.evaluate('globalThis.started'), started, 'the page was not loaded anew');
});
