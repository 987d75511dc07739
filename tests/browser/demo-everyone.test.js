/** The demo page in Chromium: it works without a network, for everybody, and on any host. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { test } from 'node:test';
import { buildDemo, serveDemo } from '../../web/serve.js';
import { projectRoot } from '../helpers/test-data.js';
import {
  chooseFile,
  pageTest,
  paper,
  setOptions,
  shared,
  skip,
  write,
  writeTemporary,
  written,
} from './demo-page.js';
import { openPage, serveFolder, verifiedResult } from './helpers.js';

const built = join(projectRoot, 'build/web');
test('after one visit the page works without its server: it loads, writes and measures', {
  skip,
}, async () => {
  const server = await serveDemo();
  const context = await shared.browser.newContext();
  const page = await context.newPage();
  /** @type {string[]} */
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  let closed = false;
  try {
    await page.goto(server.url);
    await page.locator('[data-offline=ready]').waitFor({ timeout: 60_000 });
    const kept = await page.evaluate(async () => {
      const names = (await caches.keys()).filter((name) => name.startsWith('fused-matmul-page-'));
      const requests = await (await caches.open(names[0])).keys();
      return { names, urls: requests.map(({ url }) => new URL(url).pathname.slice(1)) };
    });
    assert.equal(kept.names.length, 1);
    const files = readdirSync(built, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !/\.map$|^sw\.js$/.test(entry.name))
      .map((entry) => relative(built, join(entry.parentPath, entry.name)))
      .filter((name) => !name.startsWith('api/')); // the reference is for reading with a network
    assert.deepEqual(kept.urls.sort(), files.map((name) => (name === 'index.html' ? '' : name)).sort());

    await server.close();
    closed = true;
    await assert.rejects(fetch(server.url));
    await page.reload();
    await written(page);
    assert.match((await paper(page)) ?? '', /^Once upon a time.{100}/s);
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    await page.getByRole('button', { name: 'Measure this file' }).click();
    await verifiedResult(page);
    // JSON takes a chunk that nothing else does.
    await setOptions(page, { 'Most tokens': '1', Seed: '7' });
    await page.locator('#form-field').getByLabel('JSON').check();
    await write(page).click();
    await written(page, { seed: '7' });
    assert.match((await paper(page)) ?? '', /^Once upon a time\s*\{/);
    await page.goto(`${server.url}?again`);
    await written(page);
    assert.deepEqual(errors, []);
  } finally {
    await context.close();
    if (!closed) await server.close();
  }
});

test('on a host without special headers the page works, says what is off, and isolates itself on reload', {
  skip,
}, async () => {
  await buildDemo();
  const plain = await serveFolder(built);
  const { page, problems, close } = await openPage(shared.browser, plain.url);
  try {
    await written(page);
    assert.equal(await page.evaluate(() => crossOriginIsolated), false);
    assert.match((await page.locator('#engine-line').textContent()) ?? '', /1 thread$/);
    assert.match((await page.locator('#engine').textContent()) ?? '', /Cross-origin isolation off/);
    assert.match((await page.locator('#engine').textContent()) ?? '', /Threads off/);
    await page.getByRole('button', { name: 'Reload with threads' }).click();
    await page.getByText('Cross-origin isolation on').waitFor();
    await written(page);
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    assert.deepEqual(problems, []);
  } finally {
    await close();
    await plain.close();
  }
});

for (const script of ['lab-worker', 'llama-host']) {
  test(`a worker whose script does not arrive is told of: ${script}`, { skip }, async () => {
    await buildDemo();
    const name = readdirSync(join(built, 'assets')).find((file) => file.replace(/-.{8}\.js$/, '') === script);
    const missing = (/** @type {any} */ _, /** @type {import('node:http').ServerResponse} */ response) =>
      response.writeHead(404).end();
    const plain = await serveFolder(built, { routes: { [`/assets/${name}`]: missing } });
    const { page, close } = await openPage(shared.browser, plain.url, { serviceWorkers: 'block' });
    try {
      await page.locator('#alerts').getByText('The worker stopped').waitFor();
      await page.getByText('Open the file again.').waitFor();
      assert.doesNotMatch((await page.locator('#alerts').textContent()) ?? '', /fused-matmul\/|Policy/);
    } finally {
      await close();
      await plain.close();
    }
  });
}

const wide = { width: 1280, height: 800 };
const narrow = { width: 360, height: 740 };
const views = /** @type {const} */ ([
  ['light', wide],
  ['dark', narrow],
]);
for (const [colorScheme, viewport] of views) {
  // The policy is lifted here only so that axe can be put into the page.
  pageTest(
    `${colorScheme}, ${viewport.width} px: no accessibility violation, no horizontal overflow`,
    async ({ page }) => {
      await page.addScriptTag({ path: createRequire(import.meta.url).resolve('axe-core') });
      const check = async (/** @type {string} */ when) => {
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= viewport.width, `${when}: the page is ${width} px wide`);
        const report = /** @type {any} */ (
          await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')
        );
        const violations = report.violations.map((/** @type {any} */ violation) => ({
          rule: violation.id,
          nodes: violation.nodes.map((/** @type {any} */ node) => `${node.target}: ${node.failureSummary}`),
        }));
        assert.deepEqual(violations, [], when);
      };
      await written(page);
      await page.locator('#options summary').click();
      await check('written');
      await page.getByRole('button', { name: 'Run another model' }).click();
      await page.getByLabel('From a link').fill('http://example.com/x.gguf');
      await page.getByRole('button', { name: 'Load', exact: true }).click();
      await check('choosing');
      await page.keyboard.press('Escape');
      await chooseFile(page, writeTemporary('bad.gguf', Buffer.from('no GGUF file at all')));
      await page.locator('#alerts').getByText('bad.gguf cannot be opened').waitFor();
      await check('failed');
      await page.getByRole('button', { name: 'Measure this file' }).click();
      await verifiedResult(page);
      if (viewport === narrow || colorScheme === 'dark') {
        await page.getByRole('button', { name: 'Run the benchmark' }).click();
        await check('measuring');
        await page.locator('#bench-result[data-state=done]').waitFor({ timeout: 120_000 });
      }
      await check('measured');
      const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(
        Number(/\d+/.exec(background)?.[0]) > 128,
        colorScheme === 'light',
        `background ${background}`,
      );
    },
    { colorScheme, viewport, bypassCSP: true },
  );
}

pageTest(
  'nothing moves for those who asked for that',
  async ({ page }) => {
    await written(page);
    const moving = await page.evaluate(() => {
      document
        .getElementById('text')
        ?.append(Object.assign(document.createElement('span'), { className: 'caret' }));
      const timed = [...document.querySelectorAll('*')].filter((node) => {
        const { animationName, transitionDuration } = getComputedStyle(node);
        return animationName !== 'none' || transitionDuration.split(', ').some((time) => time !== '0s');
      });
      return [
        getComputedStyle(document.documentElement).scrollBehavior,
        ...timed.map(({ className }) => className),
      ];
    });
    assert.deepEqual(moving, ['auto']);
  },
  { reducedMotion: 'reduce' },
);

test('the policy that is served allows no inline code, scripts of this origin only, and wasm', {
  skip,
}, async (t) => {
  t.diagnostic(`ran: demo page in Chromium ${shared.browser.version()}`);
  const response = await fetch(shared.server.url);
  const policy = response.headers.get('content-security-policy') ?? '';
  assert.ok((await response.text()).includes(`content="${policy}"`), 'the page and the header say the same');
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /script-src 'self' 'wasm-unsafe-eval';/);
  assert.match(policy, /connect-src 'self' https:;/);
  assert.equal(response.headers.get('cross-origin-opener-policy'), 'same-origin');
  assert.equal(response.headers.get('cross-origin-embedder-policy'), 'require-corp');
  const worker = readFileSync(join(built, 'sw.js'), 'utf8');
  assert.ok(worker.includes(JSON.stringify(policy)), 'the service worker sends the same');
});
