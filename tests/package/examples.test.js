/** The examples of the tarball run, in Node and in pages; that of Next.js is only packed. */
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'vite';
import { root } from '../../scripts/setup/run.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from '../browser/helpers.js';
import { changedGguf } from '../helpers/changed-gguf.js';
import { ISOLATION, MODEL, packedPackage, runIn } from '../helpers/consumers.js';

const TEMPLATE = '{% for m in messages %}{{ m.content }}\n{% endfor %}';
const skip = skipWithoutChromium();
/** @type {ReturnType<typeof packedPackage>} */
let installed;
/** An app with the examples as the tarball has them, beside a model with a chat template. */
let app = '';
/** @type {import('playwright-core').Browser | undefined} */
let browser;

before(async () => {
  installed = packedPackage();
  app = installed.app('examples');
  cpSync(path.join(app, 'node_modules/fused-matmul/examples'), app, { recursive: true });
  const bytes = await changedGguf(MODEL, { metadata: { 'tokenizer.chat_template': TEMPLATE } });
  writeFileSync(path.join(app, 'model.gguf'), new Uint8Array(bytes));
});

after(async () => {
  await browser?.close();
  installed?.remove();
});

/** @param {string[]} args */
const node = (...args) => runIn(app, process.execPath, args);

test('examples: the list has all of them', () => {
  const list = readFileSync(path.join(app, 'README.md'), 'utf8');
  const names = readdirSync(path.join(root, 'examples')).filter((name) => name !== 'README.md');
  for (const name of names) assert.ok(list.includes(`[${name}](${name})`), name);
});

test('examples: kernels.mjs', () => {
  assert.match(node('kernels.mjs', 'model.gguf'), /^3 x 768 values by \w+, the first is -?\d\.\d+\n$/);
});

test('examples: embeddings.mjs', () => {
  const lines = node('embeddings.mjs', 'model.gguf', 'a small fox', 'the sea', 'a small fox', 'a train')
    .trim()
    .split('\n');
  assert.equal(lines[0], '1.0000 a small fox');
  assert.equal(lines.length, 3);
});

test('examples: json.mjs', () => {
  const out = node('json.mjs', 'model.gguf', 'Anna, 31, has a dog called Rex.');
  assert.match(out, /^\{\s+name: ['"]/);
});

test("examples: ai-sdk.mjs, with Vercel's packages", () => {
  for (const name of ['ai', '@ai-sdk/openai-compatible']) {
    const link = path.join(app, 'node_modules', name);
    mkdirSync(path.dirname(link), { recursive: true });
    symlinkSync(path.join(root, 'node_modules', name), link, 'junction');
  }
  assert.match(node('ai-sdk.mjs', 'model.gguf', 'Once upon a time'), /\w+[\s\S]*\n60 tokens\n$/);
});

/**
 * Opens a page of a folder, and works with it.
 * @param {string} folder @param {string} name
 * @param {(page: import('playwright-core').Page, url: string) => Promise<void>} work
 */
async function onPage(folder, name, work) {
  browser ??= await launchChromium();
  const server = await serveFolder(folder, { headers: ISOLATION });
  const { page, problems, close } = await openPage(browser, server.url + name);
  try {
    await work(page, server.url);
    // The browser itself reports a file that is missing on purpose.
    assert.deepEqual(
      problems.filter((one) => !/404|missing\.gguf/.test(one)),
      [],
    );
  } finally {
    await close();
    await server.close();
  }
}

test('examples: page.html, which has at most 26 lines', { skip }, async () => {
  assert.ok(readFileSync(path.join(app, 'page.html'), 'utf8').trim().split('\n').length <= 26);
  await onPage(app, 'page.html', async (page, url) => {
    await page.fill('#address', `${url}model.gguf`);
    await page.press('#address', 'Tab');
    await page.waitForFunction("document.getElementById('loading').value === 1");
    for (const question of ['Once upon a time', 'And then']) {
      await page.fill('#question', question);
      await page.click('text=Send');
      const answers = question === 'And then' ? 2 : 1;
      await page.waitForFunction(
        (n) => (document.getElementById('text')?.textContent?.match(/tokens\/s\)/g) ?? []).length === n,
        answers,
      );
    }
    assert.match((await page.textContent('#text')) ?? '', /^[\s\S]*\w[\s\S]*\n\(\d+\.\d tokens\/s\)\n\n/);
    await page.fill('#address', `${url}missing.gguf`);
    await page.press('#address', 'Tab');
    await page.waitForFunction("/missing\\.gguf/.test(document.getElementById('text').textContent)");
  });
});

test('examples: vite-chat, built', { skip }, async () => {
  const folder = path.join(app, 'vite-chat');
  await build({ root: folder, logLevel: 'error' });
  await onPage(path.join(folder, 'dist'), '', async (page) => {
    await page.setInputFiles('#file', path.join(app, 'model.gguf'));
    await page.waitForFunction("!document.getElementById('send').disabled");
    assert.match((await page.textContent('#status')) ?? '', /^llama, on the \w+$/);
    await page.fill('#question', 'Once upon a time');
    await page.click('#send');
    await page.waitForFunction("/tokens, .* per second/.test(document.getElementById('status').textContent)");
    assert.match((await page.textContent('.assistant')) ?? '', /\w/);
    assert.match((await page.textContent('#status')) ?? '', /\((end|length|context)\)$/);
  });
});
