/** The reference of the library, beside the demo page, under a policy of its own: readable, searchable, in the colours one chose. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildDocs, DOCS_POLICY } from '../../scripts/docs.js';
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
  const openSettings = () =>
    page.locator('.tsd-navigation.settings details').evaluate((details) => details.setAttribute('open', ''));
  try {
    const response = await fetch(page.url());
    assert.equal(response.headers.get('content-security-policy'), DOCS_POLICY);
    assert.ok(
      (await response.text()).includes(`content="${DOCS_POLICY}"`),
      'the page and the header say the same',
    );
    assert.equal(response.headers.get('cross-origin-opener-policy'), 'same-origin');
    const demo = await fetch(shared.server.url);
    assert.match(demo.headers.get('content-security-policy') ?? '', /'wasm-unsafe-eval'/);
    await page.getByRole('link', { name: 'fused-matmul/llama' }).first().waitFor();
    await page.locator('#tsd-search-trigger').click();
    await page.locator('#tsd-search-input').fill('fusedMatmul');
    await page.locator('#tsd-search-results a', { hasText: 'fusedMatmul' }).first().click();
    await page.waitForURL(/\/api\/(classes|interfaces)\//);
    await page.getByText('y[t][r]').first().waitFor();
    // The navigation comes out of a script of its own.
    await page.locator('#tsd-nav-container a').nth(5).waitFor({ state: 'attached' });
    await openSettings();
    await page.locator('#tsd-theme').selectOption('dark');
    await page.goto(`${shared.server.url}api/modules/fused-matmul.html`);
    await page.locator('html[data-theme=dark]').waitFor();
    assert.notEqual(
      await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
      'rgb(255, 255, 255)',
    );
    // Members that come from elsewhere are hidden by a style sheet that the page makes.
    await page.goto(`${shared.server.url}api/classes/fused-matmul.Weight.html`);
    const inherited = page.locator('section.tsd-member.tsd-is-inherited').first();
    await inherited.waitFor();
    await openSettings();
    await page.locator('#tsd-filter-inherited').setChecked(false, { force: true });
    await inherited.waitFor({ state: 'hidden' });
    assert.deepEqual(problems, []);
  } finally {
    await close();
  }
});
