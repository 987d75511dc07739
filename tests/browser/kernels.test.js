/** The kernels in Chromium: every instruction set and activation mode against float64, without a bundler. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from './helpers.js';
import { checkAnswer, makeCases, VARIANTS } from './kernel-cases.js';

const skip = skipWithoutChromium();

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serveFolder>>} */
let server;
/** @type {Awaited<ReturnType<typeof openPage>>} */
let opened;

before(async () => {
  if (skip) return;
  server = await serveFolder(projectRoot);
  browser = await launchChromium();
  opened = await openPage(browser, `${server.url}tests/browser/fixtures/kernels.html`);
  await opened.page.waitForFunction('globalThis.libraryReady === true');
});

after(async () => {
  await browser?.close();
  await server?.close();
});

for (const variant of VARIANTS) {
  const { isa, dot } = variant;
  test(`Chromium, ${[isa, dot].filter(Boolean).join(' ')}: every type and activation mode against float64`, {
    skip,
  }, async () => {
    const cases = makeCases(await opened.page.evaluate('servedTypes'));
    const answer = await opened.page.evaluate(
      (/** @type {any} */ given) => /** @type {any} */ (globalThis).runKernels(given),
      { isa, dot, cases: cases.map(({ sent }) => sent) },
    );
    checkAnswer(answer, variant, cases);
  });
}

test('Chromium: nothing was reported on the console and nothing fetched from elsewhere', { skip }, (t) => {
  t.diagnostic(`ran: every instruction set in Chromium ${browser.version()}`);
  assert.deepEqual(opened.problems, []);
});
