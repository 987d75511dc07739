/** A model in Chromium whose GPU process is killed in the middle of a text, in a page and in a worker: the text goes on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from './helpers.js';

const PROMPT = [1, 17];
const OPTIONS = { temperature: 0, maxTokens: 10, ignoreEnd: true };
const { bytes } = makeModel({});

/** @param {import('playwright-core').Browser} browser */
async function gpuProcess(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  return processInfo.find(({ type }) => type === 'GPU')?.id;
}

/** FM_TEST_DEEP: in the page too. */
const PLACES = process.env.FM_TEST_DEEP ? ['page', 'worker'] : ['worker'];

for (const place of PLACES) {
  test(`the GPU process is killed in the middle of a text, ${place}`, {
    skip: skipWithoutChromium(),
  }, async (t) => {
    const browser = await launchChromium({ gpu: true });
    t.after(() => browser.close());
    /** @type {number[]} */
    const killed = [];
    const server = await serveFolder(projectRoot, {
      routes: {
        '/model.gguf': (_, response) => response.end(bytes),
        '/end': async (_, response) => {
          const id = await gpuProcess(browser);
          if (id) {
            process.kill(id, 'SIGKILL');
            killed.push(id);
          }
          response.end();
        },
      },
    });
    t.after(() => server.close());
    const { page } = await openPage(browser, `${server.url}tests/browser/fixtures/gpu.html`);
    await page.waitForFunction('"gpuCall" in globalThis');
    const call = (/** @type {string} */ method, /** @type {unknown} */ given = {}) =>
      page.evaluate(`gpuCall('${place}', '${method}', ${JSON.stringify(given)})`);
    const { lacks } = /** @type {any} */ (await call('open'));
    if (lacks) return t.skip(`Chromium ${browser.version()}: ${lacks}`);
    const given = { model: '/model.gguf', end: '/end', prompt: PROMPT, options: OPTIONS, nPieces: 3 };
    const { tokens, backend } = /** @type {any} */ (await call('writeLosing', given));

    const model = await Llama.load(bytes, { threads: 1, kvType: 'F32', activation: 'f32' });
    const run = model.generate(PROMPT, OPTIONS);
    await run.text();
    model.dispose();
    assert.equal(killed.length, 1);
    assert.deepEqual(tokens, run.tokens);
    assert.match(backend.reason, /^the GPU was lost after [4-9] tokens: opened again$/);
    assert.equal(backend.name, 'gpu');
    assert.notEqual(await gpuProcess(browser), killed[0]);
    t.diagnostic(`ran: Chromium ${browser.version()}, ${place}: ${backend.steps.join('; ')}`);
  });
}
