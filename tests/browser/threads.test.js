/** Threads in Chromium: on the main thread and in workers of a page that is isolated; the reason where one is not. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { build, createServer } from 'vite';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from './helpers.js';

const skip = skipWithoutChromium();
const ISOLATED = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};
const STRICT =
  "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; img-src data:";

/** @type {import('playwright-core').Browser} */
let browser;
/** A folder with an application in it that has the package installed. @type {string} */
let app;
/** The application, built. @type {string} */
let built;

const APP = `import { createKernels, createWorkerKernels } from 'fused-matmul';
const data = new Uint8Array(1024 * 2 * 144).map((_, i) => (i % 144 === 1 || i % 144 === 3 ? 0x24 : (i * 37) & 0x7f));
const x = Float32Array.from({ length: 24 * 512 }, (_, i) => Math.sin(i));
const facts = ({ threads, threadsReason, memory64, isa }) => ({ threads, threadsReason, memory64, isa });
globalThis.measure = async (options) => {
  const [one, many] = [await createKernels({ threads: 1 }), await createKernels(options)];
  const [a, b] = [one, many].map((fm) => {
    const w = fm.weight({ type: 'Q4_K', nRows: 1024, nCols: 512, data });
    return Array.from({ length: 50 }, () => fm.fusedMatmul(w, x));
  });
  const { info } = many;
  for (const fm of [one, many]) fm.dispose();
  return { ...facts(info), same: a.every((y, r) => y.every((value, i) => value === b[r][i])) };
};
globalThis.measureInWorker = async (options) => {
  const fm = await createWorkerKernels(options);
  const w = await fm.weight({ type: 'Q4_K', nRows: 1024, nCols: 512, data });
  const y = await fm.fusedMatmul(w, x);
  const info = facts(fm.info);
  await fm.dispose();
  return { ...info, finite: y.every(Number.isFinite) };
};
globalThis.ready = true;
`;

before(async () => {
  if (skip) return;
  app = await mkdtemp(path.join(tmpdir(), 'fused-matmul-app-'));
  await writeFile(path.join(app, 'main.js'), APP);
  await writeFile(
    path.join(app, 'index.html'),
    '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/main.js"></script>',
  );
  await writeFile(
    path.join(app, 'package.json'),
    JSON.stringify({ type: 'module', dependencies: { 'fused-matmul': '*' } }),
  );
  await symlink(path.join(projectRoot, 'node_modules'), path.join(app, 'node_modules')).catch(() => {});
  built = path.join(app, 'dist');
  await build({ root: app, logLevel: 'silent', resolve: { alias }, build: { outDir: built } });
  browser = await launchChromium();
});

const alias = { 'fused-matmul': path.join(projectRoot, 'js/index.js') };

after(async () => {
  await browser?.close();
  if (app) await rm(app, { recursive: true, force: true });
});

/**
 * @param {import('node:test').TestContext} t @param {string} url
 * @returns {Promise<{ page: import('playwright-core').Page, problems: string[] }>}
 */
async function appPage(t, url) {
  const { page, problems, close } = await openPage(browser, url);
  t.after(close);
  await page.waitForFunction('globalThis.ready === true');
  return { page, problems };
}

/** @param {import('playwright-core').Page} page @param {object} [options] @param {string} [name] @returns {Promise<any>} */
const measure = (page, options = {}, name = 'measure') =>
  page.evaluate(
    ([call, given]) => /** @type {any} */ (globalThis)[call](given),
    /** @type {const} */ ([name, options]),
  );

for (const [what, policy] of /** @type {const} */ ([
  ['isolated', undefined],
  ['isolated, strict Content-Security-Policy', STRICT],
])) {
  test(`threads in a page, ${what}`, { skip }, async (t) => {
    const headers = { ...ISOLATED, ...(policy && { 'Content-Security-Policy': policy }) };
    const server = await serveFolder(built, { headers });
    t.after(() => server.close());
    const { page, problems } = await appPage(t, server.url);
    const three = await measure(page, { threads: 3 });
    assert.deepEqual(three, { ...three, threads: 3, threadsReason: '3 threads were asked for', same: true });
    const usual = await measure(page);
    const processors = await page.evaluate(() => navigator.hardwareConcurrency);
    assert.equal(usual.threads > 1, processors > 1);
    assert.ok(usual.same);
    const wide = await measure(page, { threads: 2, memory64: true });
    assert.deepEqual([wide.memory64, wide.threads, wide.same], [true, 2, true]);
    const inWorker = await measure(page, { threads: 2 }, 'measureInWorker');
    assert.deepEqual([inWorker.threads, inWorker.finite], [2, true], inWorker.threadsReason);
    assert.deepEqual(problems, []);
  });
}

test('threads in a page that is not isolated: one, and how to have more', { skip }, async (t) => {
  const server = await serveFolder(built);
  t.after(() => server.close());
  const { page, problems } = await appPage(t, server.url);
  for (const options of [{}, { threads: 4 }]) {
    const { threads, threadsReason, same } = await measure(page, options);
    assert.deepEqual([threads, same], [1, true]);
    assert.match(
      threadsReason,
      /not cross-origin isolated.*Opener-Policy: same-origin.*Embedder-Policy: require-corp/,
    );
  }
  assert.deepEqual(problems, []);
});

test('threads in a page without workers, by policy', { skip }, async (t) => {
  const policy = `${STRICT.replace("worker-src 'self'", "worker-src 'none'")}`;
  const server = await serveFolder(built, { headers: { ...ISOLATED, 'Content-Security-Policy': policy } });
  t.after(() => server.close());
  const { page } = await appPage(t, server.url);
  const { threads, threadsReason, same } = await measure(page, { threads: 2 });
  assert.deepEqual([threads, same], [1, true]);
  assert.match(threadsReason, /one thread: a thread could not be run/);
});

test('threads in Vite’s development server', { skip }, async (t) => {
  const server = await createServer({
    root: app,
    logLevel: 'silent',
    cacheDir: path.join(app, '.vite'),
    resolve: { alias },
    server: { host: '127.0.0.1', port: 0, headers: ISOLATED, fs: { strict: false } },
  });
  t.after(() => server.close());
  await server.listen();
  const { page } = await appPage(t, /** @type {string} */ (server.resolvedUrls?.local[0]));
  const two = await measure(page, { threads: 2 });
  assert.deepEqual([two.threads, two.same], [2, true], two.threadsReason);
  t.diagnostic(`ran: 2 threads in Chromium ${browser.version()}`);
});
