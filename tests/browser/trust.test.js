/**
 * The library in Chromium under the strictest Content-Security-Policy that it works with, and with Subresource Integrity: a page
 * of its own origin that allows nothing but its scripts, wasm, and reading from itself.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
import { sampleGguf } from '../helpers/gguf-bytes.js';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from './helpers.js';

const skip = skipWithoutChromium();
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'";
const folder = mkdtempSync(path.join(tmpdir(), 'fm-trust-'));

const MAIN = `
import { createKernels, openGguf } from './js/layer-index.js';
globalThis.multiply = async (options) => {
  const fm = await createKernels(options);
  const gguf = await openGguf('./model.gguf');
  const w = await fm.loadWeight(gguf, 'norm.weight');
  const [y] = fm.fusedMatmul(w, new Float32Array(5).fill(1));
  const [s] = fm.softmax(new Float32Array(4));
  fm.dispose();
  return { y, s, isa: fm.info.isa, url: fm.info.wasmUrl };
};
globalThis.withIntegrity = async (url, integrity) => {
  const response = await fetch(url, { integrity });
  return globalThis.multiply({ wasm: await response.arrayBuffer(), isa: 'scalar' });
};
let made;
try { new Function('return 1')(); made = true; } catch { made = false; }
globalThis.codeFromStrings = made;
`;

/** @param {string} file  in the folder */
const integrityOf = (file) =>
  `sha384-${createHash('sha384')
    .update(readFileSync(path.join(folder, file)))
    .digest('base64')}`;

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serveFolder>>} */
let server;

before(async () => {
  if (skip) return;
  // As a page has it: its code bundled to one script, the files that the library fetches beside it.
  mkdirSync(path.join(folder, 'js'));
  const { outputFiles } = await build({
    stdin: { contents: MAIN.replaceAll("'./js/", "'./"), resolveDir: path.join(projectRoot, 'js') },
    bundle: true,
    format: 'esm',
    platform: 'browser',
    external: ['../dist/*'],
    write: false,
  });
  writeFileSync(path.join(folder, 'js/main.js'), outputFiles[0].text);
  cpSync(path.join(projectRoot, 'dist'), path.join(folder, 'dist'), { recursive: true });
  writeFileSync(path.join(folder, 'model.gguf'), sampleGguf().bytes);
  const script = (/** @type {string} */ integrity) =>
    `<!doctype html><title>trust</title><script type="module" src="/js/main.js" integrity="${integrity}"></script>`;
  writeFileSync(path.join(folder, 'index.html'), script(integrityOf('js/main.js')));
  writeFileSync(path.join(folder, 'changed.html'), script(integrityOf('dist/gguf-parser.js')));
  server = await serveFolder(folder, { headers: { 'Content-Security-Policy': POLICY } });
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await server?.close();
  rmSync(folder, { recursive: true, force: true });
});

test(`Chromium, ${POLICY}: kernels, files and results`, { skip }, async (t) => {
  const { page, problems, close } = await openPage(browser, server.url);
  t.after(close);
  await page.waitForFunction('globalThis.multiply !== undefined');
  assert.equal(await page.evaluate('globalThis.codeFromStrings'), false, 'the policy is in force');
  for (const options of ['undefined', '{ isa: "simd128" }', '{ isa: "scalar" }']) {
    const result = /** @type {any} */ (await page.evaluate(`globalThis.multiply(${options})`));
    assert.equal(result.y, 15, options);
    assert.equal(result.s, 0.25, options);
    assert.ok(result.url.startsWith(`${server.url}dist/fused-`), result.url);
  }
  assert.deepEqual(problems, []);
  t.diagnostic('ran: Content-Security-Policy and Subresource Integrity in Chromium');
});

test('Chromium: modules and scripts by their hash; others are refused', { skip }, async (t) => {
  const { page, close } = await openPage(browser, server.url);
  t.after(close);
  await page.waitForFunction('globalThis.multiply !== undefined');
  const right = integrityOf('dist/fused-scalar.wasm');
  const wrong = integrityOf('dist/fused-simd128.wasm');
  const get = (/** @type {string} */ integrity) =>
    page.evaluate(
      ([url, hash]) => /** @type {any} */ (globalThis).withIntegrity(url, hash),
      ['/dist/fused-scalar.wasm', integrity],
    );
  assert.equal((await get(right)).y, 15);
  await assert.rejects(get(wrong), /Failed to fetch/);
  const changed = await openPage(browser, `${server.url}changed.html`);
  t.after(changed.close);
  assert.equal(await changed.page.evaluate('globalThis.multiply === undefined'), true);
  assert.ok(
    changed.problems.some((problem) => /integrity/i.test(problem)),
    changed.problems.join(),
  );
});
