/** The demo page in Chromium: under the hood, and the benchmark. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { browserName, reportText } from '../../web/report.js';
import { stretches } from '../../web/views/speed.js';
import { chooseFile, defaultFile, pageTest, scrollTensors, writeTemporary, written } from './demo-page.js';
import { verifiedResult } from './helpers.js';
import { ggufFile, tinyGguf } from './tiny-gguf.js';

/** @typedef {import('./demo-page.js').Page} Page */

/** @param {Record<string, string>} result */
function assertVerified(result) {
  assert.equal(result.pass, 'true');
  const [error, bound, worst, ms] = [result.error, result.bound, result.worst, result.ms].map(Number);
  assert.ok(error <= bound, `error ${error}, bound ${bound}`);
  assert.ok(worst <= 1, `worst ${worst}`);
  assert.ok(ms > 0 && Number.isFinite(ms), `ms ${ms}`);
}

const plain = (/** @type {string | null} */ text) => (text ?? '').replaceAll('\u00a0', ' ');

pageTest('weights by type, with the kernels that serve them; what the loader tried', async ({ page }) => {
  await written(page);
  const rows = await page.locator('#types tbody tr').allTextContents();
  assert.deepEqual(rows.map(plain), [
    'Q4_K191.2 MB77.1 %4.5relaxed · int8',
    'Q6_K3349 kB22.5 %6.56relaxed · int8',
    'F3277.17 kB0.461 %32simd128 · f32',
  ]);
  assert.equal(await page.locator('#types .stack span').count(), 3);
  assert.match(
    plain(await page.locator('#model-facts').textContent()),
    /3 layers, width 256.*256 tokens in F16/,
  );
  const panel = plain(await page.locator('#engine').textContent());
  assert.match(panel, /Relaxed SIMD, (16|32)-bit dot/);
  assert.match(panel, /passed its self-test/);
  assert.match(panel, /Cross-origin isolation on/);

  await page.locator('#options summary').click();
  await page.locator('#composer [name=activation][value=int16]').check({ force: true });
  await page.locator('#types tbody', { hasText: 'simd128 · int16' }).waitFor();
  await scrollTensors(page);
  assert.equal(await page.locator('#tensors .kernel', { hasText: 'simd128 · int16' }).count(), 22);
});

pageTest(
  'a tensor is multiplied by and verified, in every mode and for every token count',
  async ({ page }) => {
    await written(page);
    await page.getByRole('button', { name: 'Measure this file' }).click();
    const first = await verifiedResult(page, { file: defaultFile });
    assertVerified(first);
    assert.equal(first.isa, 'relaxed');
    assert.equal(first.type, 'Q4_K');
    assert.equal(first.activation, 'int16');
    assert.ok(Number(first.denseMs) > 0);
    const { tensor } = first;
    const radio = (/** @type {string} */ name) =>
      page.locator('#controls').getByRole('radio', { name, exact: true });
    for (const activation of ['int8', 'f32', 'int16']) {
      await radio(activation).check({ force: true });
      assertVerified(await verifiedResult(page, { tensor, activation }));
    }
    for (const tokens of ['8', '32']) {
      await radio(tokens).check({ force: true });
      assertVerified(await verifiedResult(page, { tensor, tokens, activation: 'int16' }));
    }
  },
);

pageTest('the tensors of a file are listed, with what cannot be multiplied and why', async ({ page }) => {
  await written(page);
  await chooseFile(page, writeTemporary('mine.gguf', tinyGguf()));
  await page.locator('#alerts .alert').getByText('mine.gguf cannot write').waitFor();
  const cells = async (/** @type {string} */ name) => {
    const texts = await page.getByRole('row').filter({ hasText: name }).getByRole('cell').allTextContents();
    return texts.map(plain);
  };
  assert.deepEqual(await cells('norm.weight'), [
    'F32',
    'simd128 · f32',
    '256',
    '1.02 kB',
    'vector, not a matrix',
  ]);
  assert.deepEqual(await cells('odd.weight'), ['I8', 'none', '2 × 32', '64 B', 'type not supported yet']);
  assert.deepEqual(await cells('small.weight'), ['Q4_K', 'relaxed · int8', '5 × 256', '720 B', 'Multiply']);
  await page.getByRole('button', { name: 'Multiply by half.weight' }).click();
  const half = await verifiedResult(page, { tensor: 'half.weight' });
  assertVerified(half);
  assert.equal(half.servedActivation, 'f32');
  await page.getByLabel(/Show only tensors/).fill('small');
  assert.equal(await page.locator('#tensors tr:visible').count(), 1);
  await page.getByLabel(/Show only tensors/).fill('nothing like this');
  await page.getByText('No tensor matches.').waitFor();
});

pageTest(
  'rows of tensors are made as they are seen: by scrolling, by keyboard, by filter',
  async ({ page }) => {
    const nTensors = 2000;
    const data = new Uint8Array(4 * 32);
    const many = Array.from({ length: nTensors }, (_, i) => {
      return { name: `blk.${i >> 1}.${i & 1 ? 'odd' : 'even'}.weight`, typeId: 0, shape: [32, 1], data };
    });
    await written(page);
    await chooseFile(page, writeTemporary('many.gguf', ggufFile(many)));
    const rows = page.locator('#tensors tr');
    const table = page.locator('#table-frame table');
    await page.locator('#table-note', { hasText: '2,000 tensors, 2,000 can be multiplied.' }).waitFor();
    assert.equal(await table.getAttribute('aria-rowcount'), String(nTensors + 1));
    await page.locator('#table-frame').scrollIntoViewIfNeeded();
    await page.waitForFunction(() => document.querySelectorAll('#tensors tr').length > 16);
    const seen = await rows.count();
    assert.ok(seen < 80, `${seen} rows before anything was scrolled`);
    // From button to button, further than the rows there were.
    await page.getByRole('button', { name: 'Multiply by blk.0.even.weight' }).focus();
    for (let i = 0; i < seen + 10; i++) await page.keyboard.press('Tab');
    const row = page.locator('#tensors tr:focus-within');
    assert.equal(await row.getAttribute('aria-rowindex'), String(seen + 10 + 2));
    await page.getByLabel(/Show only tensors/).fill('99.odd');
    await page.locator('#table-note', { hasText: /^10 of 2,000 tensors/ }).waitFor();
    await scrollTensors(page);
    assert.equal(await rows.count(), 10);
    assert.equal(await table.getAttribute('aria-rowcount'), '11');
    await page.getByRole('button', { name: 'Multiply by blk.999.odd.weight' }).click();
    await verifiedResult(page, { tensor: 'blk.999.odd.weight' });
    assert.equal(
      await page.locator('#tensors [aria-current=true]').getAttribute('data-name'),
      'blk.999.odd.weight',
    );
    await page.getByLabel(/Show only tensors/).fill('.odd');
    await page.getByLabel(/Show only tensors/).fill('999');
    assert.equal(await page.locator('#tensors [aria-current=true]').count(), 1);
  },
);

pageTest(
  'the benchmark measures kernels and the model, draws them, and can be stopped and copied',
  async ({ page }) => {
    await written(page);
    await page.getByRole('button', { name: 'Run the benchmark' }).click();
    await page.getByText(/^Measuring Q4_K/).waitFor();
    await page.locator('#bench-stop').click();
    await page.locator('#bench-result[data-state=stopped]').waitFor({ timeout: 20_000 });
    await page.getByRole('button', { name: 'Run the benchmark' }).click();
    await page.locator('#bench-result[data-state=done]').waitFor({ timeout: 120_000 });
    await page.getByRole('button', { name: 'Copy as JSON' }).click();
    await page.locator('#copy-json', { hasText: 'Copied' }).waitFor();
    const report = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
    assert.equal(report.isa, 'relaxed');
    assert.equal(report.file, defaultFile);
    assert.equal(report.cores, await page.evaluate(() => navigator.hardwareConcurrency));
    assert.deepEqual(
      report.rows.map((/** @type {any} */ { type, nTokens }) => `${type} ${nTokens === 1 ? 'one' : 'many'}`),
      ['Q4_K', 'Q6_K', 'Q8_0', 'Q4_0'].flatMap((type) => [`${type} one`, `${type} many`]),
    );
    for (const { type, nTokens, one, all, naive } of report.rows) {
      for (const timing of [one, all, naive].filter(Boolean)) {
        assert.ok(timing.ms > 0 && timing.min <= timing.ms && timing.rounds >= 1, type);
        const gflops = (2 * nTokens * report.nRows * report.nCols) / timing.ms / 1e6;
        assert.ok(
          Math.abs(timing.gflops / gflops - 1) < 1e-9,
          `${type}: ${timing.gflops} GFLOP/s in ${timing.ms} ms`,
        );
      }
      assert.equal(Boolean(naive), nTokens === 1, type);
      assert.equal(Boolean(all), report.threads > 1, type);
      if (naive) assert.ok(naive.gflops < one.gflops, `${type}: dequantising first is as fast`);
    }
    assert.ok(report.model.decodeTokensPerSecond > 0 && report.model.promptTokensPerSecond > 0);
    assert.equal(report.model.promptTokens, 128);
    // The bars are as long as the numbers say.
    const bars = await page
      .locator('.bench-bar')
      .evaluateAll((nodes) =>
        nodes.map((node) => [
          Number(/** @type {HTMLElement} */ (node.querySelector('.fill')).style.getPropertyValue('--part')),
          Number(/: ([\d.,]+)/.exec(node.textContent ?? '')?.[1].replace(',', '')),
        ]),
      );
    const longest = Math.max(...bars.map(([, value]) => value));
    for (const [part, value] of bars)
      assert.ok(Math.abs(part - value / longest) < 0.02, `${part}, ${value} of ${longest}`);

    await page.getByRole('button', { name: 'Copy as text' }).click();
    await page.locator('#copy-text', { hasText: 'Copied' }).waitFor();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(text, reportText(report));
    assert.match(text, /^fused-matmul \d.*Chrome \d+, Linux.*relaxed/);
    assert.match(text, /\| Q4_K \|.*tiny-tales-Q4_K_M\.gguf: reads/s);
  },
  { permissions: ['clipboard-read', 'clipboard-write'] },
);

test('browsers are called by their names', () => {
  const chrome =
    'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36';
  assert.equal(browserName(chrome), 'Chrome 126, Windows');
  assert.equal(browserName(`${chrome} Edg/126.0.1`), 'Edge 126, Windows');
  assert.equal(
    browserName('Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0'),
    'Firefox 127, Linux',
  );
  const safari =
    'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15';
  assert.equal(browserName(safari), 'Safari 17, Mac OS X');
});

test('the course of speed is made of means of stretches', () => {
  /** @type {[number, number][]} */
  const course = Array.from({ length: 101 }, (_, i) => [i * 2, i * 10]);
  assert.deepEqual(stretches(course, 10), new Array(9).fill(200));
  assert.deepEqual(stretches([[1, 5]], 10), []);
});
