/** The demo page in Chromium: models from files and links, their loading, and what goes wrong. */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { LinkError, parseLink, suggestions } from '../../web/links.js';
import { adviceFor, isUnrunnable, messageOf } from '../../web/problems.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { rangeHandler } from '../helpers/range-server.js';
import { projectRoot } from '../helpers/test-data.js';
import {
  chooseFile,
  defaultFile,
  pageTest,
  paper,
  renamedArchitecture,
  shared,
  skip,
  slowModel,
  storyModel,
  writeTemporary,
  written,
} from './demo-page.js';
import { openPage, serveFolder, verifiedResult } from './helpers.js';
import { ggufFile, tinyGguf } from './tiny-gguf.js';

/** @import { TestContext } from 'node:test' */
/** @typedef {import('./demo-page.js').Page} Page */

const change = (/** @type {Page} */ page) => page.getByRole('button', { name: 'Run another model' }).click();

/** @param {Page} page @param {string} link */
async function loadLink(page, link) {
  await change(page);
  await page.getByLabel('From a link').fill(link);
  await page.getByRole('button', { name: 'Load', exact: true }).click();
}

/** Waits until so many workers have a model. @param {Page} page @param {number} wanted */
async function modelWorkers(page, wanted) {
  const count = () => page.workers().filter((worker) => /\/llama-host-/.test(worker.url())).length;
  // Chromium may take seconds to end a worker on a busy machine.
  for (let i = 0; i < 1000 && count() !== wanted; i++) await page.waitForTimeout(20);
  assert.equal(count(), wanted, 'workers with a model');
}

const alert = (/** @type {Page} */ page) => page.locator('#alerts .alert');

/**
 * Answers requests for a model as a server elsewhere would, with ranges.
 * @param {import('playwright-core').Route} route @param {Buffer} file
 */
async function serveRange(route, file) {
  const [, from, to] = /bytes=(\d+)-(\d+)/.exec(route.request().headers().range ?? '') ?? [];
  const headers = {
    'Access-Control-Allow-Origin': '*',
    'Access-Control-Allow-Headers': 'range',
    'Access-Control-Expose-Headers': 'Content-Range, ETag',
    ETag: '"one"',
  };
  if (from === undefined)
    return route.fulfill({ status: 200, headers, body: route.request().method() === 'HEAD' ? '' : file });
  const end = Math.min(Number(to) + 1, file.length);
  const range = { ...headers, 'Content-Range': `bytes ${from}-${end - 1}/${file.length}` };
  return route.fulfill({ status: 206, headers: range, body: file.subarray(Number(from), end) });
}

/**
 * A test whose page may ask other hosts, which are routed; the service worker, which routes do not see, is left out.
 * @param {string} name @param {(page: Page, problems: string[], t: TestContext) => Promise<void>} body
 */
function routedTest(name, body) {
  test(name, { skip }, async (t) => {
    const { page, problems, close } = await openPage(shared.browser, shared.server.url, {
      serviceWorkers: 'block',
    });
    try {
      await body(page, problems, t);
      const expected =
        /Service Worker registration blocked|external request: https:\/\/(huggingface\.co|models\.test)\/|failed: http:\/\/127\.0\.0\.1:\d+\/other\.gguf net::ERR_ABORTED/;
      assert.deepEqual(
        problems.filter((problem) => !expected.test(problem)),
        [],
      );
    } finally {
      await close();
    }
  });
}

test('links become addresses of files, or say what is wrong with them', () => {
  const page = 'http://127.0.0.1:4173/';
  const file = 'https://huggingface.co/a/b/resolve/main/dir/m%20x.gguf';
  for (const link of [
    'https://huggingface.co/a/b/blob/main/dir/m%20x.gguf',
    'https://huggingface.co/a/b/resolve/main/dir/m%20x.gguf?download=true',
    ' huggingface.co/a/b/raw/main/dir/m%20x.gguf ',
    'https://hf.co/a/b/blob/main/dir/m x.gguf',
  ])
    assert.deepEqual(parseLink(link, page), { url: file, file: 'm x.gguf' }, link);
  assert.equal(parseLink('https://example.com/x.gguf?key=1', page).url, 'https://example.com/x.gguf?key=1');
  assert.equal(parseLink('http://127.0.0.1:4173/x.gguf', page).file, 'x.gguf');
  for (const [link, message] of /** @type {[string, RegExp][]} */ ([
    ['', /Enter the address/],
    ['http://example.com/x.gguf', /https:\/\/, not http/],
    ['ftp://example.com/x.gguf', /not ftp/],
    ['https://', /no address/],
    ['https://huggingface.co/a', /no link to a file/],
    ['https://huggingface.co/a/b', /repository a\/b, not a file/],
    ['https://huggingface.co/a/b/tree/main', /repository a\/b, not a file/],
    ['https://huggingface.co/a/b/discussions/1/x', /“discussions” of a\/b/],
  ]))
    assert.throws(
      () => parseLink(link, page),
      (error) => error instanceof LinkError && message.test(error.message),
      link,
    );
  for (const { link } of suggestions)
    assert.match(parseLink(link, page).url, /\/resolve\/main\/[^/]+\.gguf$/);
});

test('errors come with advice where there is any', () => {
  const error = (/** @type {string} */ message, /** @type {string} */ code) =>
    Object.assign(new Error(message), { code });
  assert.match(adviceFor(error('cannot fetch https://x/y: Failed to fetch', 'FM_GGUF')), /CORS/);
  assert.match(adviceFor(error('the model needs 5 bytes', 'FM_MEMORY')), /smaller model/);
  assert.equal(adviceFor(error('something else', 'FM_GGUF')), '');
  const ended = error(
    'the worker ended: its script could not be loaded; where a build moved it, give it',
    '',
  );
  assert.equal(messageOf(ended), 'The worker stopped: its script could not be loaded');
  assert.equal(adviceFor(ended), 'Open the file again.');
  assert.equal(isUnrunnable(error('x', 'FM_MODEL')), true);
  assert.equal(isUnrunnable(error('x', 'FM_MEMORY')), false);
});

routedTest('a page of Hugging Face is turned into its file, loaded, kept, and removed', async (page) => {
  const file = storyModel();
  /** @type {string[]} */
  const asked = [];
  /** @type {(string | undefined)[]} */
  const ranges = [];
  await page.context().route('https://huggingface.co/**', (route) => {
    asked.push(route.request().url());
    ranges.push(route.request().headers().range);
    return serveRange(route, file);
  });
  await written(page);
  await loadLink(page, 'https://huggingface.co/a/b/blob/main/story.gguf');
  await page.getByText(/story\.gguf is ready/).waitFor({ state: 'attached' });
  assert.equal(await page.locator('#model-name').textContent(), 'story.gguf');
  assert.deepEqual([...new Set(asked)], ['https://huggingface.co/a/b/resolve/main/story.gguf']);
  // Two workers open it. Its bytes come once; the second asks for a byte, which tells whether it is still the same file.
  assert.deepEqual(ranges, ['bytes=0-1999999', 'bytes=0-0']);
  await page.getByRole('button', { name: 'Long ago, in a forest,' }).click();
  await page.locator('#text', { hasText: /^Long ago, in a forest,.{20}/ }).waitFor();

  await change(page);
  await page.getByRole('button', { name: 'Run story.gguf' }).waitFor();
  assert.match((await page.locator('#kept-list').textContent()) ?? '', /story\.gguf 1\.57\sMB/);
  await page.getByRole('button', { name: 'Remove story.gguf' }).click();
  await page.locator('#kept').waitFor({ state: 'hidden' });
});

routedTest('a tensor of a model from a link is multiplied by without being fetched again', async (page) => {
  const file = Buffer.from(slowModel({ nLayers: 1 }));
  /** @type {(string | undefined)[]} */
  const ranges = [];
  await page.context().route('https://huggingface.co/**', (route) => {
    ranges.push(route.request().headers().range);
    return serveRange(route, file);
  });
  await written(page);
  await loadLink(page, 'https://huggingface.co/a/b/blob/main/slow.gguf');
  await page.getByText(/slow\.gguf is ready/).waitFor({ state: 'attached' });
  ranges.splice(0);
  await page.getByRole('button', { name: 'Multiply by blk.0.ffn_down.weight' }).click();
  await verifiedResult(page, { file: 'slow.gguf', tensor: 'blk.0.ffn_down.weight' });
  assert.deepEqual(ranges, ['bytes=0-0'], 'it asks only whether the file is still the same');
});

routedTest('loading shows its progress in bytes, and can be cancelled', async (page, _, t) => {
  const file = slowModel({ nLayers: 1 });
  const models = await serveFolder(projectRoot, {
    routes: {
      '/slow.gguf': rangeHandler(file, { rate: 4 }).handler,
      '/other.gguf': rangeHandler(file, { rate: 1 }).handler,
    },
  });
  t.after(() => models.close());
  await page
    .context()
    .route(/\/(slow|other)\.gguf$/, (route) =>
      route.continue({ url: route.request().url().replace(shared.server.url, models.url) }),
    );
  await written(page);
  await page.evaluate(() => {
    /** @type {[string, number][]} */
    const seen = [];
    Object.assign(globalThis, { seen });
    const bar = /** @type {HTMLProgressElement} */ (document.getElementById('progress-bar'));
    const label = /** @type {HTMLElement} */ (document.getElementById('progress-label'));
    new MutationObserver(() => seen.push([label.textContent ?? '', bar.value])).observe(label, {
      childList: true,
    });
  });
  await loadLink(page, `${shared.server.url}slow.gguf`);
  await page.getByText(/^Loading slow\.gguf: [\d.]+\s.?B of [\d.]+\sMB, [\d.]+\s.?B\/s/).waitFor();
  assert.ok(await page.locator('.map.loading').isVisible());
  await page.getByText(/slow\.gguf is ready/).waitFor({ state: 'attached', timeout: 30_000 });
  assert.equal(await page.locator('#progress').isVisible(), false);
  assert.equal(await page.locator('.map.loading').count(), 0);
  const seen = await page.evaluate(
    () => /** @type {[string, number][]} */ (/** @type {any} */ (globalThis).seen),
  );
  const values = seen.filter(([label]) => label.startsWith('Loading slow.gguf: ')).map(([, value]) => value);
  assert.ok(values.length > 5, `${values.length} steps of progress`);
  assert.deepEqual(
    values,
    [...values].sort((a, b) => a - b),
  );
  assert.equal(values.at(-1), 1);

  await loadLink(page, `${shared.server.url}other.gguf`);
  await page.getByText(/^Loading other\.gguf: /).waitFor();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.getByText('Loading was cancelled.').waitFor();
  await modelWorkers(page, 0);
  assert.equal(await page.locator('#write-button').isEnabled(), false);
  assert.equal(await page.locator('#progress').isVisible(), false);
  await change(page);
  await page.getByRole('button', { name: 'Use the story model' }).click();
  await page.getByText(new RegExp(`${defaultFile} is ready`)).waitFor({ state: 'attached' });
  await page.getByRole('button', { name: 'Write', exact: true }).click();
  await page.locator('#text', { hasText: /^Once upon a time.{20}/ }).waitFor();
  await modelWorkers(page, 1);
});

routedTest('what is chosen or cancelled while the page starts is obeyed', async (page) => {
  await written(page);
  // The story model comes late.
  let late = Promise.resolve();
  await page.context().route(`**/${defaultFile}`, async (route) => {
    await late;
    await route.continue();
  });
  /** @type {() => void} */
  let release = () => {};
  const arrive = async () => {
    const arrived = page.waitForEvent('requestfinished', (request) => request.url().endsWith(defaultFile));
    release();
    await arrived;
    await page.waitForTimeout(1000);
  };
  const holdBack = () => {
    late = new Promise((resolve) => {
      release = resolve;
    });
  };
  holdBack();
  await page.reload();
  await page.getByText(`Opening ${defaultFile}`).waitFor();
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.locator('#progress').waitFor({ state: 'hidden' });
  await arrive();
  await modelWorkers(page, 0);
  assert.equal(await paper(page), '');

  holdBack();
  await page.reload();
  await page.getByText(`Opening ${defaultFile}`).waitFor();
  await chooseFile(page, writeTemporary('other.gguf', storyModel()));
  await page.getByText(/other\.gguf is ready/).waitFor({ state: 'attached' });
  await arrive();
  await modelWorkers(page, 1);
  assert.equal(await page.locator('#model-name').textContent(), 'other.gguf');

  await page.addInitScript(() =>
    addEventListener('DOMContentLoaded', () => {
      const selector = '#options [name=activation][value=f32]';
      const radio = /** @type {HTMLInputElement} */ (document.querySelector(selector));
      radio.checked = true;
      radio.dispatchEvent(new Event('change', { bubbles: true }));
    }),
  );
  await page.reload();
  await written(page);
  assert.equal(await page.locator('#types tbody tr', { hasText: '· f32' }).count(), 3);
  await modelWorkers(page, 1);
});

routedTest('links that do not work say why, and what to do', async (page, problems) => {
  await page.context().route('https://models.test/**', (route) => {
    const url = route.request().url();
    if (url.includes('blocked')) return route.abort('failed');
    return route.fulfill({
      status: url.includes('private') ? 401 : 404,
      headers: { 'Access-Control-Allow-Origin': '*' },
      body: 'no',
    });
  });
  await written(page);
  for (const [name, what, advice] of [
    ['missing.gguf', 'HTTP 404', 'check the link'],
    ['private.gguf', 'HTTP 401', 'private'],
    ['blocked.gguf', 'cannot fetch', 'CORS'],
  ]) {
    await loadLink(page, `https://models.test/${name}`);
    await alert(page).getByText(`${name} cannot be opened`).waitFor({ timeout: 30_000 });
    const text = (await alert(page).textContent()) ?? '';
    assert.match(text, new RegExp(what, 'i'), text);
    assert.ok(text.includes(advice), text);
  }
  await loadLink(page, 'https://huggingface.co/a/b');
  await page.getByText(/repository a\/b, not a file/).waitFor();
  await page.keyboard.press('Escape');
  // The model that was there still writes.
  await page.getByRole('button', { name: 'Long ago, in a forest,' }).click();
  await page.locator('#text', { hasText: /^Long ago, in a forest,.{20}/ }).waitFor();
  // The browser itself tells the console about failed requests; the page must not.
  const own = problems.filter(
    (problem) => !/^(40[14]|failed|console error: Failed to load resource)/.test(problem),
  );
  problems.splice(0, problems.length, ...own);
});

pageTest('an unknown architecture is named, and its tensors can be multiplied by', async ({ page }) => {
  await written(page);
  await chooseFile(page, writeTemporary('gemma.gguf', renamedArchitecture('gemma')));
  await alert(page).getByText('gemma.gguf cannot write').waitFor();
  const text = (await alert(page).textContent()) ?? '';
  assert.match(text, /architecture "gemma" is not supported; supported are llama, /);
  assert.match(text, /under the hood/);
  assert.equal(await page.locator('#write-button').isEnabled(), false);
  await page.locator('#table-note', { hasText: /^29 tensors/ }).waitFor({ state: 'attached' });
  await page.getByRole('button', { name: 'Measure this file' }).click();
  await page
    .locator('[data-testid=verified][data-state=pass][data-file="gemma.gguf"]')
    .waitFor({ timeout: 30_000 });
  await chooseFile(page, writeTemporary('gemma.gguf', renamedArchitecture('gemma')));
  await alert(page).getByRole('button', { name: 'Use the story model' }).click();
  await page.getByText(new RegExp(`${defaultFile} is ready`)).waitFor({ state: 'attached' });
  assert.equal(await alert(page).count(), 0);
});

pageTest('bad files give a message, and the page stays usable', async ({ page }) => {
  await written(page);
  const good = tinyGguf();
  const bad = {
    'truncated.gguf': good.subarray(0, good.length - 600),
    'header-only.gguf': good.subarray(0, 30),
    'picture.gguf': Buffer.from('\x89PNG\r\n\x1a\n and then some more bytes of a picture'),
    'empty.gguf': Buffer.alloc(0),
  };
  for (const [name, data] of Object.entries(bad)) {
    await chooseFile(page, writeTemporary(name, data));
    await alert(page).getByText(`${name} cannot be opened`).waitFor({ timeout: 15_000 });
    const text = (await alert(page).textContent()) ?? '';
    assert.ok(
      text.length > `${name} cannot be opened`.length + 15,
      `${name}: the message says too little: ${text}`,
    );
    assert.doesNotMatch(text, /undefined|null|\[object/, name);
  }
  assert.equal(await page.locator('#model-name').textContent(), defaultFile);
  await page.getByRole('button', { name: 'Write', exact: true }).click();
  await page.locator('#alerts:empty').waitFor({ state: 'attached' });
  await written(page);
  await page.getByLabel(/Show only tensors/).fill('attn_q');
  await page.getByRole('button', { name: 'Multiply by blk.0.attn_q.weight' }).click();
  await page.locator('[data-state=pass][data-tensor="blk.0.attn_q.weight"]').waitFor({ timeout: 30_000 });

  await chooseFile(page, writeTemporary('nothing.gguf', ggufFile([])));
  await page.getByText('No tensor of this file can be multiplied yet.').waitFor();
  await alert(page).getByText('nothing.gguf cannot write').waitFor();
});

pageTest(
  'a model that no memory can hold is refused with the numbers, before it is read',
  async ({ page }) => {
    await written(page);
    const nEmbd = 4096;
    const nVocab = 5_000_000;
    const { bytes } = ggufBytes({
      pairs: [
        ['general.architecture', 'string', 'llama'],
        ['llama.block_count', 'u32', 1],
        ['llama.context_length', 'u32', 256],
        ['llama.embedding_length', 'u32', nEmbd],
        ['llama.feed_forward_length', 'u32', 256],
        ['llama.attention.head_count', 'u32', 32],
        ['llama.attention.layer_norm_rms_epsilon', 'f32', 1e-5],
        ['tokenizer.ggml.model', 'string', 'llama'],
        ['tokenizer.ggml.tokens', 'array', { of: 'string', items: ['<unk>', 'a'] }],
        ['tokenizer.ggml.scores', 'array', { of: 'f32', items: [0, 0] }],
        ['tokenizer.ggml.token_type', 'array', { of: 'i32', items: [2, 1] }],
      ],
      tensors: [{ name: 'token_embd.weight', typeId: 8, shape: [nEmbd, nVocab], data: new Uint8Array(0) }],
    });
    // 20 GB, of which nothing but the header is on the disk.
    const path = join(shared.folder, 'huge.gguf');
    const descriptor = openSync(path, 'w');
    writeSync(descriptor, bytes);
    ftruncateSync(descriptor, bytes.length + (nEmbd / 32) * 34 * nVocab);
    closeSync(descriptor);
    await chooseFile(page, path);
    await alert(page)
      .getByText(/huge\.gguf cannot/)
      .waitFor();
    await page.getByRole('button', { name: 'Multiply by token_embd.weight' }).click();
    await alert(page).getByText('Multiplying by token_embd.weight failed').waitFor();
    assert.match((await alert(page).textContent()) ?? '', /\d{11}.*smaller model/);
  },
);

pageTest('a file can be dropped anywhere, and chosen from the keyboard', async ({ page }) => {
  // Choosers are intercepted from the first listener on, but not at once: this one is there long before Enter is pressed.
  page.on('filechooser', () => {});
  await written(page);
  const transfer = await page.evaluateHandle((/** @type {string} */ base64) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    data.items.add(new File([bytes], 'dropped.gguf'));
    return data;
  }, storyModel().toString('base64'));
  await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer });
  await page.getByText('Drop the GGUF file to run it').waitFor();
  await page.dispatchEvent('body', 'drop', { dataTransfer: transfer });
  await page.getByText(/dropped\.gguf is ready/).waitFor({ state: 'attached' });

  const focused = () =>
    page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.id);
  const tabTo = async (/** @type {string} */ wanted) => {
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press('Tab');
      if ((await focused()) === wanted) return;
    }
    assert.fail(`Tab does not get to ${wanted}`);
  };
  await tabTo('change');
  await page.keyboard.press('Enter');
  await page.locator('#chooser[open]').waitFor();
  await tabTo('choose');
  const chooser = page.waitForEvent('filechooser');
  await page.keyboard.press('Enter');
  await (await chooser).setFiles(writeTemporary('keyboard.gguf', storyModel()));
  await page.getByText(/keyboard\.gguf is ready/).waitFor({ state: 'attached' });
  assert.equal(await page.locator('#chooser[open]').count(), 0);
  await tabTo('prompt');
  await page.keyboard.press('End');
  await page.keyboard.type(' there');
  await page.keyboard.press('Enter');
  await page.locator('#text', { hasText: /^Once upon a time there.{20}/ }).waitFor();
  await page.locator('#stats[data-state=done]').waitFor();
  assert.ok(((await paper(page)) ?? '').length > 60);
});
