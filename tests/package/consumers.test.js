/**
 * The tarball in new apps (tests/consumers/): each is built with its tool, and multiplies in its
 * target environment. Apps whose tools are not among this repository's dependencies are in
 * consumers-more.test.js.
 */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { build, createServer } from 'vite';
import { relaxedSimd } from 'wasm-feature-detect';
import { root } from '../../scripts/setup/run.js';
import { relaxedNode } from '../../scripts/setup.js';
import { skipWithoutChromium } from '../browser/helpers.js';
import { FIREFOX, orSkip, WEBKIT } from '../browser/self-driven.js';
import {
  checkResult,
  MODEL,
  manifest,
  Pages,
  packedPackage,
  runIn,
  runInEngine,
} from '../helpers/consumers.js';

const skip = skipWithoutChromium();
const pages = new Pages();
/** @type {ReturnType<typeof packedPackage>} */
let installed;

before(() => {
  installed = packedPackage();
});

after(async () => {
  await pages.close();
  installed?.remove();
});

/** @param {string[]} args */
const node = (...args) => JSON.parse(runIn(installed.app('node', 'node'), process.execPath, args));

/** The instruction set of this Node. */
const isa = (await relaxedSimd()) ? 'relaxed' : 'simd128';

test('Node, ES modules', async () => {
  await checkResult(node('main.js', MODEL), { isa, threads: true });
});

test('Node, in a worker thread', async () => {
  await checkResult(node('main.js', MODEL, 'worker'), { isa, threads: true });
});

test('a Node with relaxed SIMD', async () => {
  const app = installed.app('node-24', 'node');
  await checkResult(JSON.parse(runIn(app, await relaxedNode(), ['main.js', MODEL])), {
    isa: 'relaxed',
    threads: true,
  });
});

test('Node, CommonJS by require(esm)', { skip: !requires() && 'this Node has no require(esm)' }, () => {
  const { version, functions } = node('required.cjs');
  assert.deepEqual([version, functions], [manifest.version, ['function', 'function']]);
});

function requires() {
  return Boolean(/** @type {any} */ (process).features.require_module);
}

/** Puts the model into the folder of a page. @param {string} folder */
const addModel = (folder) => {
  mkdirSync(folder, { recursive: true });
  cpSync(MODEL, path.join(folder, 'model.gguf'));
};

test('a page with an import map, no bundler', { skip }, async () => {
  const app = installed.app('importmap', 'page', 'importmap');
  addModel(app);
  await checkResult(await pages.run(app), { isa: 'relaxed', threads: true });
  const plain = await pages.run(app, { headers: {} });
  await checkResult(plain, { isa: 'relaxed', threads: false });
});

/** Builds an app with Vite, with the model. @param {string} name @param {string[]} fixtures */
async function viteBuilt(name, ...fixtures) {
  const app = installed.app(name, 'page', 'vite', ...fixtures);
  addModel(path.join(app, 'public'));
  await build({ root: app, logLevel: 'error' });
  return path.join(app, 'dist');
}

test('Vite, built', { skip }, async () => {
  const result = await pages.run(await viteBuilt('vite'));
  await checkResult(result, { isa: 'relaxed', threads: true });
  assert.match(result.info.wasmUrl, /\/assets\/fused-relaxed-mt-[\w-]+\.wasm$/);
});

test('Vite, built, with a worker of its own in one file, as is the default', { skip }, async () => {
  await checkResult(await pages.run(await viteBuilt('own-worker', 'own-worker')), {
    isa: 'relaxed',
    threads: true,
  });
});

for (const engine of [FIREFOX, WEBKIT]) {
  const { name, version, lacks } = engine;
  test(
    `Vite, built, in ${name}`,
    { skip: version ? false : lacks },
    orSkip(async () => {
      await checkResult(await runInEngine(engine, await viteBuilt('vite')), { threads: true });
    }),
  );
  test(
    `Vite, built, with a worker of its own in chunks, in ${name}`,
    {
      skip: version ? false : lacks,
    },
    orSkip(async () => {
      const folder = await viteBuilt('own-worker-es', 'own-worker', 'own-worker-es');
      await checkResult(await runInEngine(engine, folder), { threads: true });
    }),
  );
}

test('Vite, development server', { skip }, async () => {
  const app = installed.app('vite-dev', 'page', 'vite');
  addModel(path.join(app, 'public'));
  const server = await createServer({ root: app, logLevel: 'error', server: { host: '127.0.0.1', port: 0 } });
  try {
    await server.listen();
    const [url] = server.resolvedUrls?.local ?? [];
    await checkResult(await pages.open(url), { isa: 'relaxed', threads: true });
  } finally {
    await server.close();
  }
});

test('esbuild', { skip }, async () => {
  const app = installed.app('esbuild', 'page', 'esbuild');
  const tool = path.join(app, 'node_modules/esbuild');
  cpSync(path.join(root, 'node_modules/esbuild'), tool, { recursive: true });
  cpSync(path.join(root, 'node_modules/@esbuild'), path.join(app, 'node_modules/@esbuild'), {
    recursive: true,
  });
  runIn(app, process.execPath, ['build.js']);
  rmSync(path.join(app, 'node_modules'), { recursive: true });
  const site = path.join(app, 'public');
  cpSync(path.join(app, 'index.html'), path.join(site, 'index.html'));
  addModel(site);
  const result = await pages.run(site);
  await checkResult(result, { isa: 'relaxed', threads: true });
  assert.match(result.info.wasmUrl, /\/dist\/fused-relaxed-mt\.wasm$/);
});
