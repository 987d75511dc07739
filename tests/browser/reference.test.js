/** The reference of the library, beside the demo page and under its policy: readable, searchable, in the colours one chose. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildDocs } from '../../scripts/docs.js';
import { shared, skip } from './demo-page.js';
import { openPage } from './helpers.js';

test('no page of it has code in it', async () => {
  const { folder } = await buildDocs();
  const pages = /** @type {string[]} */ (readdirSync(folder, { recursive: true })).filter((name) =>
    name.endsWith('.html'),
  );
  assert.ok(pages.length > 50, `${pages.length} pages`);
  for (const name of pages) {
    const html = readFileSync(join(folder, name), 'utf8');
    assert.doesNotMatch(html, /<script(?![^>]*\bsrc=)|<style|\sstyle="|\son[a-z]+="|javascript:/, name);
    assert.match(html, /<script src="(\.\.\/)?assets\/theme\.js">/, name);
  }
});

test('in Chromium, with the headers of the demo', { skip }, async () => {
  const { page, problems, close } = await openPage(shared.browser, `${shared.server.url}api/index.html`);
  try {
    const response = await fetch(page.url());
    assert.match(
      response.headers.get('content-security-policy') ?? '',
      /script-src 'self' 'wasm-unsafe-eval';/,
    );
    await page.getByRole('link', { name: 'fused-matmul/llama' }).first().waitFor();
    await page.locator('#tsd-search-trigger').click();
    await page.locator('#tsd-search-input').fill('fusedMatmul');
    await page.locator('#tsd-search-results a', { hasText: 'fusedMatmul' }).first().click();
    await page.waitForURL(/\/api\/(classes|interfaces)\//);
    await page.getByText('y[t][r]').first().waitFor();
    // The navigation comes out of a script of its own.
    await page.locator('#tsd-nav-container a', { hasText: 'fused-matmul/layer' }).first().waitFor();
    await page.locator('#tsd-theme').selectOption('dark');
    await page.goto(`${shared.server.url}api/modules/fused-matmul.html`);
    await page.locator('html[data-theme=dark]').waitFor();
    assert.notEqual(
      await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
      'rgb(255, 255, 255)',
    );
    assert.deepEqual(problems, []);
  } finally {
    await close();
  }
});
