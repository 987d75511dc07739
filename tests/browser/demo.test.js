/** The demo page in Chromium: built by Vite, served with its headers, used as a visitor uses it. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildDemo, serveDemo } from '../../web/serve.js';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium, verifiedResult } from './helpers.js';
import { ggufFile, tinyGguf } from './tiny-gguf.js';

const skip = skipWithoutChromium();
const defaultFile = 'tiny-tales-Q4_K_M.gguf';

/** @typedef {Awaited<ReturnType<typeof openPage>>} Opened */

/** @type {import('playwright-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serveDemo>>} */
let server;
/** @type {string} */
let folder;

before(async () => {
  if (skip) return;
  folder = mkdtempSync(join(tmpdir(), 'fused-matmul-demo-'));
  server = await serveDemo();
  browser = await launchChromium();
});

after(async () => {
  await browser?.close();
  await server?.close();
  if (folder) rmSync(folder, { recursive: true });
});

/**
 * One test on a fresh page that must stay free of console messages, failed and external requests.
 * @param {string} name
 * @param {(opened: Opened) => Promise<void>} body
 * @param {import('playwright-core').BrowserContextOptions} [options]
 */
function pageTest(name, body, options) {
  test(name, { skip }, async () => {
    const opened = await openPage(browser, server.url, options);
    try {
      await body(opened);
      assert.deepEqual(opened.problems, []);
    } finally {
      await opened.close();
    }
  });
}

/** @param {string} name @param {Uint8Array} data @returns {string} its path */
function writeTemporary(name, data) {
  const path = join(folder, name);
  writeFileSync(path, data);
  return path;
}

/** @param {Record<string, string>} result */
function assertVerified(result) {
  assert.equal(result.pass, 'true');
  const [error, bound, worst, ms] = [result.error, result.bound, result.worst, result.ms].map(Number);
  assert.ok(error <= bound, `error ${error}, bound ${bound}`);
  assert.ok(worst <= 1, `worst ${worst}`);
  assert.ok(ms > 0 && Number.isFinite(ms), `ms ${ms}`);
}

const alertText = (/** @type {Opened['page']} */ page) =>
  page.getByRole('alert').getByText('cannot be opened').locator('..').textContent({ timeout: 15_000 });

pageTest('the default model is opened, multiplied by and verified without a click', async ({ page }) => {
  const result = await verifiedResult(page, { file: defaultFile });
  assertVerified(result);
  assert.equal(result.isa, 'relaxed');
  assert.equal(result.type, 'Q4_K');
  assert.equal(result.activation, 'int16');
  assert.ok(Number(result.denseMs) > 0);
  assert.equal(await page.getByRole('row').count(), 1 + 29);
  assert.match((await page.locator('#source-details').textContent()) ?? '', /llama · 29 tensors · 1\.57\sMB/);
  assert.equal(await page.evaluate('crossOriginIsolated'), true);
  const panel = (await page.locator('#engine').textContent()) ?? '';
  assert.match(panel, /Relaxed SIMD, (16|32)-bit dot/);
  assert.match(panel, /passed its self-test/);
});

pageTest('every token count and activation mode is verified', async ({ page }) => {
  const { tensor } = await verifiedResult(page);
  for (const activation of ['int8', 'f32', 'int16']) {
    await page.getByRole('radio', { name: activation, exact: true }).check({ force: true });
    await verifiedResult(page, { tensor, activation });
  }
  for (const tokens of ['8', '32', '1']) {
    await page.getByRole('radio', { name: tokens, exact: true }).check({ force: true });
    assertVerified(await verifiedResult(page, { tensor, tokens, activation: 'int16' }));
  }
});

pageTest('a chosen file is listed, with what cannot be multiplied and why', async ({ page }) => {
  await verifiedResult(page);
  await page.locator('#file').setInputFiles(writeTemporary('mine.gguf', tinyGguf()));
  assertVerified(await verifiedResult(page, { file: 'mine.gguf', tensor: 'large.weight' }));
  const cells = async (/** @type {string} */ name) => {
    const texts = await page.getByRole('row').filter({ hasText: name }).getByRole('cell').allTextContents();
    return texts.map((text) => text.replaceAll('\u00a0', ' '));
  };
  assert.deepEqual(await cells('norm.weight'), ['F32', '256', '1.02 kB', 'vector, not a matrix']);
  assert.deepEqual(await cells('odd.weight'), ['I8', '2 × 32', '64 B', 'type not supported yet']);
  assert.deepEqual(await cells('small.weight'), ['Q4_K', '5 × 256', '720 B', 'Multiply']);
  await page.getByRole('button', { name: 'Multiply by half.weight' }).click();
  const half = await verifiedResult(page, { tensor: 'half.weight' });
  assertVerified(half);
  assert.equal(half.servedActivation, 'f32');

  await page.getByLabel(/Show only tensors/).fill('small');
  assert.equal(await page.getByRole('row').count(), 1 + 1);
  await page.getByLabel(/Show only tensors/).fill('nothing like this');
  await page.getByText('No tensor matches.').waitFor();
});

pageTest('bad files give a message, and the page stays usable', async ({ page }) => {
  await verifiedResult(page);
  const input = page.locator('#file');
  const good = tinyGguf();
  const bad = {
    'truncated.gguf': good.subarray(0, good.length - 600),
    'header-only.gguf': good.subarray(0, 30),
    'picture.gguf': Buffer.from('\x89PNG\r\n\x1a\n and then some more bytes of a picture'),
    'empty.gguf': Buffer.alloc(0),
  };
  for (const [name, data] of Object.entries(bad)) {
    await input.setInputFiles(writeTemporary(name, data));
    await page.getByRole('alert').getByText(`${name} cannot be opened`).waitFor({ timeout: 15_000 });
    const text = (await alertText(page)) ?? '';
    assert.ok(
      text.length > `${name} cannot be opened`.length + 15,
      `${name}: the message says too little: ${text}`,
    );
    assert.doesNotMatch(text, /undefined|null|\[object/, name);
  }
  assert.equal(await page.locator('#source-name').textContent(), defaultFile);
  await page.getByRole('button', { name: 'Multiply by blk.0.attn_q.weight' }).click();
  assertVerified(await verifiedResult(page, { file: defaultFile, tensor: 'blk.0.attn_q.weight' }));
  assert.equal(await page.getByRole('alert').textContent(), '');

  await input.setInputFiles(writeTemporary('nothing.gguf', ggufFile([])));
  await page.getByText('No tensor of this file can be multiplied yet.').first().waitFor();
});

pageTest('a file can be dropped anywhere', async ({ page }) => {
  await verifiedResult(page);
  const transfer = await page.evaluateHandle((/** @type {string} */ base64) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    data.items.add(new File([bytes], 'dropped.gguf'));
    return data;
  }, tinyGguf().toString('base64'));
  await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer });
  await page.getByText('Drop the GGUF file to open it').waitFor();
  await page.dispatchEvent('body', 'drop', { dataTransfer: transfer });
  assertVerified(await verifiedResult(page, { file: 'dropped.gguf' }));
});

pageTest('everything can be done from the keyboard', async ({ page }) => {
  // Choosers are intercepted from the first listener on, but not at once: this one is there long before Enter is pressed.
  page.on('filechooser', () => {});
  await verifiedResult(page);
  const focused = () =>
    page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id");
  const tabTo = async (/** @type {(label: string) => boolean} */ wanted) => {
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press('Tab');
      if (wanted(await focused())) return;
    }
    assert.fail('Tab does not get there');
  };
  await tabTo((label) => label === 'choose');
  const chooser = page.waitForEvent('filechooser');
  await page.keyboard.press('Enter');
  await (await chooser).setFiles(writeTemporary('keyboard.gguf', tinyGguf()));
  const first = await verifiedResult(page, { file: 'keyboard.gguf' });
  assert.equal(first.tokens, '1');
  await tabTo((label) => label === 'default');
  await page.keyboard.press('Tab');
  await page.keyboard.press('ArrowRight');
  await verifiedResult(page, { file: 'keyboard.gguf', tokens: '8' });
  await tabTo((label) => label === 'Multiply by small.weight');
  await page.keyboard.press('Enter');
  await verifiedResult(page, { tensor: 'small.weight', tokens: '8' });
});

pageTest('work that takes long can be cancelled', async ({ page }) => {
  await verifiedResult(page);
  await page.getByRole('radio', { name: '32', exact: true }).check({ force: true });
  await verifiedResult(page, { tokens: '32' });
  const nRows = 4096;
  const nCols = 4096;
  const data = Buffer.alloc((nRows * nCols * 144) / 256);
  const path = writeTemporary(
    'large.gguf',
    ggufFile([{ name: 'large.weight', typeId: 12, shape: [nCols, nRows], data }]),
  );
  await page.locator('#file').setInputFiles(path);
  await page
    .getByText(/^Multiplying by large\.weight/)
    .first()
    .waitFor();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByText('Cancelled.').waitFor({ state: 'attached' });
  await page.getByRole('button', { name: 'Cancel' }).waitFor({ state: 'hidden' });
  await page.getByRole('button', { name: 'Use the default model' }).click();
  assertVerified(await verifiedResult(page, { file: defaultFile, tokens: '32' }));
});

const views = [
  {
    name: 'light, wide',
    options: { colorScheme: /** @type {const} */ ('light'), viewport: { width: 1280, height: 900 } },
  },
  {
    name: 'dark, wide',
    options: { colorScheme: /** @type {const} */ ('dark'), viewport: { width: 1280, height: 900 } },
  },
  {
    name: 'light, 360 px',
    options: { colorScheme: /** @type {const} */ ('light'), viewport: { width: 360, height: 740 } },
  },
  {
    name: 'dark, 360 px',
    options: { colorScheme: /** @type {const} */ ('dark'), viewport: { width: 360, height: 740 } },
  },
];
for (const { name, options } of views) {
  // The policy is lifted here only so that axe can be put into the page.
  pageTest(
    `${name}: no accessibility violation, no horizontal overflow`,
    async ({ page }) => {
      await verifiedResult(page);
      await page
        .locator('#file')
        .setInputFiles(writeTemporary('bad.gguf', Buffer.from('no GGUF file at all')));
      await alertText(page);
      const width = await page.evaluate('document.documentElement.scrollWidth');
      assert.ok(width <= options.viewport.width, `the page is ${width} px wide`);
      await page.addScriptTag({ path: createRequire(import.meta.url).resolve('axe-core') });
      const report = await page.evaluate('axe.run(document, { resultTypes: ["violations"] })');
      const violations = /** @type {any} */ (report).violations.map((/** @type {any} */ violation) => ({
        rule: violation.id,
        nodes: violation.nodes.map((/** @type {any} */ node) => `${node.target}: ${node.failureSummary}`),
      }));
      assert.deepEqual(violations, []);
      const background = await page.evaluate('getComputedStyle(document.body).backgroundColor');
      const [red] = /** @type {RegExpMatchArray} */ (/** @type {string} */ (background).match(/\d+/)).map(
        Number,
      );
      assert.equal(red > 128, options.colorScheme === 'light', `background ${background}`);
    },
    { ...options, bypassCSP: true },
  );
}

test('the policy that is served allows no inline code, no other origin, and wasm', { skip }, async (t) => {
  t.diagnostic(`ran: demo page in Chromium ${browser.version()}`);
  const response = await fetch(server.url);
  const policy = response.headers.get('content-security-policy') ?? '';
  assert.ok((await response.text()).includes(`content="${policy}"`), 'the page and the header say the same');
  assert.match(policy, /default-src 'none'/);
  assert.match(policy, /script-src 'self' 'wasm-unsafe-eval';/);
  assert.equal(response.headers.get('cross-origin-opener-policy'), 'same-origin');
  assert.equal(response.headers.get('cross-origin-embedder-policy'), 'require-corp');
});

test('on a host without special headers the page works, and says what is off', { skip }, async () => {
  await buildDemo();
  const plain = await serveFolder(join(projectRoot, 'build/web'));
  const { page, problems, close } = await openPage(browser, plain.url);
  try {
    assertVerified(await verifiedResult(page, { file: defaultFile }));
    assert.match(
      (await page.locator('#engine').textContent()) ?? '',
      /Cross-origin isolation off.*Cross-Origin-Opener-Policy/,
    );
    assert.deepEqual(problems, []);
  } finally {
    await close();
    await plain.close();
  }
});
