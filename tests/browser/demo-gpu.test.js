/** The demo page in Chromium: models and the benchmark on a GPU, which a driver that computes on the processor stands in for. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { LONGEST_PRODUCT_MS } from '../../web/bench-gpu.js';
import { reportText } from '../../web/report.js';
import { foundWords } from '../../web/views/device.js';
import { modelPath } from '../helpers/workers.js';
import { LONG_TASK_MS, longestTask, TRACED } from './calm.js';
import { defaultFile, pageTest, paper, setOptions, shared, skip, write, written } from './demo-page.js';
import { launchChromium, openPage } from './helpers.js';

/** @typedef {import('./demo-page.js').Page} Page */

/** Drivers on the processor compile slowly. */
const SLOW_MS = 240_000;

/** @type {import('playwright-core').Browser | undefined} */
let withGpu;
after(() => withGpu?.close());

/**
 * A test on a fresh page of a browser with WebGPU.
 * @param {string} name
 * @param {string} query
 * @param {(page: Page, browser: import('playwright-core').Browser) => Promise<void>} body
 * @param {{ bypassCSP?: boolean, isLong?: boolean }} [options]  isLong: it runs with FM_TEST_DEEP only
 */
function gpuTest(name, query, body, { bypassCSP = false, isLong = false } = {}) {
  const tooLong = isLong && !process.env.FM_TEST_DEEP && 'it compiles for minutes: FM_TEST_DEEP=1 runs it';
  test(name, { skip: skip || tooLong }, async () => {
    withGpu ??= await launchChromium({ gpu: true });
    const permissions = ['clipboard-read', 'clipboard-write'];
    // The policy is lifted only so that axe can be put into the page.
    const opened = await openPage(withGpu, shared.server.url + query, { permissions, bypassCSP });
    opened.page.setDefaultTimeout(SLOW_MS);
    try {
      await body(opened.page, withGpu);
      assert.deepEqual(opened.problems, []);
    } finally {
      await opened.close();
    }
  });
}

const device = (/** @type {Page} */ page, /** @type {string} */ name) =>
  page.getByRole('radio', { name, exact: true });
const textOf = (/** @type {Page} */ page, /** @type {string} */ selector) =>
  page.locator(selector).textContent();

/** What the model writes without chance, and what the page says that it runs on. @param {Page} page */
async function story(page) {
  await setOptions(page, { 'Most tokens': '12' });
  await page.locator('[name=temperature]').fill('0');
  await page.locator('#prompt').fill('Once upon a time');
  await write(page).click();
  await page.locator('#stats[data-state=done][data-tokens="12"]').waitFor();
  return { text: await paper(page), line: await textOf(page, '#device-line') };
}

test('the words of the switch', () => {
  const words = (/** @type {string} */ problem, usable = false) => foundWords({ name: 'X', problem }, usable);
  assert.match(words('unavailable'), /^No GPU: this browser does not offer WebGPU/);
  assert.match(words('adapter'), /^No GPU: the browser finds none/);
  assert.match(words('software'), /^No GPU: the only adapter, X, computes on the processor/);
  assert.equal(words('software', true), 'The GPU is X, which computes on the processor.');
  assert.equal(words('', true), 'GPU: X.');
});

pageTest('without a GPU the switch is off, and says why', async ({ page }) => {
  await written(page);
  await page.getByText('No GPU: the browser finds none that WebGPU may use.').waitFor();
  assert.equal(await device(page, 'GPU').isDisabled(), true);
  assert.equal(await device(page, 'CPU').isChecked(), true);
  assert.match((await textOf(page, '#device-line')) ?? '', /^CPU: Relaxed SIMD, .*, \d+ threads?$/);
});

gpuTest('an adapter that computes on the processor is not offered', '', async (page) => {
  await page.getByText(/^No GPU: the only adapter, .*swiftshader.*, computes on the processor\.$/i).waitFor();
  assert.equal(await device(page, 'GPU').isDisabled(), true);
});

gpuTest(
  'the model writes the same on the CPU and on the GPU',
  '?software-gpu',
  async (page) => {
    await written(page);
    await device(page, 'GPU').and(page.locator(':enabled')).waitFor({ state: 'attached' });
    await page.locator('#options summary').click();
    await page.locator('#activation-field').getByLabel('f32').check();
    const onCpu = await story(page);
    assert.match(onCpu.line ?? '', /^CPU: /);

    await device(page, 'GPU').check();
    await page.locator('#device-line', { hasText: 'GPU: ' }).waitFor();
    const onGpu = await story(page);
    assert.match(onGpu.line ?? '', /^GPU: .*swiftshader.*, which computes on the processor$/i);
    assert.equal(onGpu.text, onCpu.text);
    const model = await Llama.load(modelPath, { activation: 'f32', threads: 1 });
    const expected = await model.generate('Once upon a time', { temperature: 0, maxTokens: 12 }).text();
    model.dispose();
    assert.equal(onGpu.text, `Once upon a time${expected}`);
    assert.match((await textOf(page, '#engine-line')) ?? '', /^GPU · /);
    assert.match((await textOf(page, '#options-summary')) ?? '', /· GPU$/);
    assert.equal(await textOf(page, '#speed-device'), 'on the GPU');
    assert.match((await textOf(page, '#types')) ?? '', /webgpu · f32/);
    await page.addScriptTag({ path: createRequire(import.meta.url).resolve('axe-core') });
    const report = /** @type {any} */ (
      await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')
    );
    assert.deepEqual(
      report.violations.map((/** @type {any} */ { id }) => id),
      [],
    );

    await device(page, 'CPU').check();
    await page.locator('#device-line', { hasText: 'CPU: ' }).waitFor();
    assert.match((await textOf(page, '#engine-line')) ?? '', /^Relaxed SIMD/);
  },
  { bypassCSP: true },
);

gpuTest(
  'the benchmark measures both and draws them side by side, and the page stays calm',
  '?software-gpu',
  async (page, browser) => {
    // A download that the reload ends would count as a problem.
    await written(page);
    await browser.startTracing(page, { categories: TRACED });
    await page.reload();
    await written(page);
    await device(page, 'GPU').and(page.locator(':enabled')).waitFor({ state: 'attached' });
    await page.getByRole('button', { name: 'Run the benchmark' }).click();
    await page.locator('#bench-result[data-state=done]').waitFor();
    const longest = longestTask(await browser.stopTracing(), shared.server.url);
    assert.ok(longest < LONG_TASK_MS, `a task of the page took ${longest} ms of processor time`);
    await page.getByRole('button', { name: 'Copy as JSON' }).click();
    await page.locator('#copy-json', { hasText: 'Copied' }).waitFor();
    const report = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
    assert.equal(report.gpu.problem, undefined);
    assert.match(report.gpu.name, /swiftshader/i);
    assert.equal(report.gpu.software, true);
    const flops = 2 * report.nRows * report.nCols;
    for (const { type, nTokens, gpu } of report.rows) {
      const [{ gpu: one }] = report.rows.filter((/** @type {any} */ row) => row.type === type);
      const expected = (nTokens * flops) / one.gflops / 1e6;
      assert.equal(Boolean(gpu), nTokens === 1 || expected <= LONGEST_PRODUCT_MS, `${type}, ${nTokens}`);
      if (!gpu) continue;
      const gflops = (nTokens * flops) / gpu.ms / 1e6;
      assert.ok(Math.abs(gpu.gflops / gflops - 1) < 1e-9, `${type}, ${nTokens}: ${JSON.stringify(gpu)}`);
    }
    assert.deepEqual([report.model.backend, report.gpu.model.backend], ['cpu', 'gpu']);
    assert.ok(report.model.decodeTokensPerSecond > 0 && report.gpu.model.decodeTokensPerSecond > 0);
    const drawn = report.rows.filter((/** @type {any} */ { gpu }) => gpu).length;
    assert.equal(await page.locator('#bench-result .bench-bar.gpu').count(), drawn);
    const shown = (await textOf(page, '#bench-result')) ?? '';
    assert.ok(shown.includes(`written by ${defaultFile} on the CPU`), shown);
    assert.ok(shown.includes(`written by ${defaultFile} on the GPU`), shown);
    assert.match(shown, /GPU: .*swiftshader \(computes on the processor\)/i);
    const text = reportText(report);
    assert.match(text, /^\| type \|.*1 token, GPU \| 128 tokens, GPU \|$|^\| type \|.*GPU \|$/m);
    assert.match(text, /reads .* writes .*, GPU\)$/m);
  },
  { isLong: true },
);
