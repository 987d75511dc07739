/** The demo page in Chromium: conversations that are kept, JSON, and models that are kept. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { suggestions } from '../../web/links.js';
import {
  chatModel,
  chooseFile,
  pageTest,
  paper,
  setOptions,
  shared,
  skip,
  storyModel,
  write,
  writeTemporary,
  written,
} from './demo-page.js';
import { openPage } from './helpers.js';

/** @typedef {import('./demo-page.js').Page} Page */

/** A template that wants question and answer in turns, as those of many models do. */
const TEMPLATE =
  "{% for m in messages if m.role != 'system' %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}" +
  "{{ raise_exception('not in turns') }}{% endif %}{% endfor %}{% for m in messages %}{{ m.content }} {% endfor %}";

const button = (/** @type {Page} */ page, /** @type {string} */ name) =>
  page.getByRole('button', { name, exact: true });
const line = (/** @type {Page} */ page) => page.locator('#outcome-line').textContent();
const conversation = (/** @type {Page} */ page, /** @type {string} */ title) =>
  page.locator('#conversation-list').getByRole('button', { name: title, exact: true });
const titles = (/** @type {Page} */ page) => page.locator('#conversation-list button').allTextContents();

/** The texts of the conversation on the paper. @param {Page} page */
const turns = async (page) =>
  (await page.locator('.turn').allTextContents()).map((text) => text.replace(/^(You|The model): /, ''));

/** @param {Page} page @param {string} path */
async function loadChatModel(page, path) {
  await chooseFile(page, path);
  await page.getByText(/chat\.gguf is ready/).waitFor({ state: 'attached' });
}

/** @param {Page} page @param {() => Promise<void>} begin */
async function answered(page, begin) {
  // The words about the text before are not waited for again.
  await page.locator('#stats').evaluate((node) => node.removeAttribute('data-state'));
  await begin();
  await written(page);
}

/** Axe, and the width, in both colour schemes. @param {Page} page @param {string} when */
async function accessible(page, when) {
  for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
    await page.emulateMedia({ colorScheme });
    const report = /** @type {any} */ (
      await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')
    );
    const violations = report.violations.map((/** @type {any} */ { id, nodes }) => [id, nodes[0].html]);
    assert.deepEqual(violations, [], `${when}, ${colorScheme}`);
  }
  const { width, view } = await page.evaluate(() => ({
    width: document.documentElement.scrollWidth,
    view: innerWidth,
  }));
  assert.ok(width <= view, `${when}: the page is ${width} px wide, its window ${view}`);
}

pageTest(
  'conversations are answered again, kept, opened, gone on with and deleted',
  async ({ page }) => {
    await written(page);
    assert.equal(await page.locator('#conversations').isVisible(), false);
    const file = chatModel(TEMPLATE);
    const path = writeTemporary('chat.gguf', file);
    await setOptions(page, {});
    await page.locator('#activation-field').getByLabel('f32').check();
    await loadChatModel(page, path);
    await page.locator('[name=temperature]').fill('0');
    await setOptions(page, { 'Most tokens': '20', 'System prompt': 'Long ago,' });
    const model = await Llama.load(file, { activation: 'f32' });
    /** @param {string} system @param {string[]} texts */
    const expected = async (system, ...texts) => {
      const messages = texts.map((content, i) => ({ role: i % 2 ? 'assistant' : 'user', content }));
      const all = [{ role: 'system', content: system }, ...messages];
      return (await model.chat(all, { temperature: 0, maxTokens: 20 })).text();
    };

    // The answer again: under another system prompt it is another one, in the place of the first.
    const ask = async (/** @type {string} */ question) => {
      await page.getByLabel('Your message').fill(question);
      await answered(page, () => button(page, 'Send').click());
    };
    await ask('One day, a little fox');
    const first = await expected('Long ago,', 'One day, a little fox');
    assert.deepEqual(await turns(page), ['One day, a little fox', first]);
    await setOptions(page, { 'System prompt': 'The sun was hot.' });
    await answered(page, () => button(page, 'Regenerate').click());
    const second = await expected('The sun was hot.', 'One day, a little fox');
    assert.notEqual(second, first);
    assert.deepEqual(await turns(page), ['One day, a little fox', second]);

    // A question that cannot be answered is given back, and the conversation is as it was.
    const long = 'There was a word. '.repeat(100).trim();
    await page.getByLabel('Your message').fill(long);
    await button(page, 'Send').click();
    await page.locator('#alerts').getByText('The model could not go on').waitFor();
    await page.locator('#write-button:enabled').waitFor();
    assert.deepEqual(await turns(page), ['One day, a little fox', second]);
    assert.equal(await page.getByLabel('Your message').inputValue(), long);
    // The next question, typed meanwhile, stays behind it.
    await page.evaluate(() => {
      /** @type {HTMLElement} */ (document.querySelector('#write-button')).click();
      /** @type {HTMLTextAreaElement} */ (document.querySelector('#prompt')).value = 'Why?';
    });
    await page.locator('#write-button:enabled').waitFor();
    assert.deepEqual(await turns(page), ['One day, a little fox', second]);
    assert.equal(await page.getByLabel('Your message').inputValue(), `${long}\n\nWhy?`);

    await button(page, 'New conversation').click();
    assert.equal(await paper(page), '');
    assert.equal(await page.getByLabel('System prompt').inputValue(), '');
    await setOptions(page, { 'System prompt': 'Once' });
    await ask('A cat');
    assert.deepEqual(await titles(page), ['A cat', 'One day, a little fox']);

    // The other one again, with its system prompt.
    await conversation(page, 'One day, a little fox').click();
    assert.deepEqual(await turns(page), ['One day, a little fox', second]);
    assert.equal(await page.getByLabel('System prompt').inputValue(), 'The sun was hot.');
    assert.equal(await line(page), '2 messages with chat.gguf.');
    const current = page.locator('#conversation-list [aria-current=true]');
    assert.equal(await current.textContent(), 'One day, a little fox');
    assert.equal(await current.evaluate((node) => node === document.activeElement), true);
    // From the mode for texts, too, it is opened to be gone on with.
    await page.locator('[name=mode][value=text]').check();
    await conversation(page, 'One day, a little fox').click();
    assert.equal(await page.locator('[name=mode][value=chat]').isChecked(), true);
    await ask('The fox ran');
    const third = await expected('The sun was hot.', 'One day, a little fox', second, 'The fox ran');
    model.dispose();
    const all = ['One day, a little fox', second, 'The fox ran', third];
    assert.deepEqual(await turns(page), all);

    // To the text and back.
    await page.locator('[name=mode][value=text]').check();
    assert.equal(await paper(page), '');
    await page.locator('[name=mode][value=chat]').check();
    assert.deepEqual(await turns(page), all);
    await page.addScriptTag({ path: createRequire(import.meta.url).resolve('axe-core') });
    await accessible(page, 'in a conversation');

    // With a model that holds no conversation they can be read, and deleted, which is asked for.
    await page.reload();
    await written(page);
    assert.deepEqual(await titles(page), ['One day, a little fox', 'A cat']);
    await conversation(page, 'One day, a little fox').click();
    assert.deepEqual(await turns(page), all);
    assert.match((await line(page)) ?? '', /^4 messages with chat\.gguf\. Only a chat model can go on/);
    await conversation(page, 'A cat').click();
    await button(page, 'Delete conversation').click();
    assert.equal((await titles(page)).length, 2);
    await button(page, 'Delete for good?').click();
    assert.equal(await paper(page), '');
    assert.equal(await page.locator('#system').inputValue(), '');
    await page.locator('#outcome-line', { hasText: 'Deleted.' }).waitFor();
    /** A conversation that was closed before an answer. */
    const putUnanswered = async () => {
      const opening = indexedDB.open('fused-matmul-page');
      await new Promise((resolve) => opening.addEventListener('success', resolve));
      const store = opening.result.transaction('conversations', 'readwrite').objectStore('conversations');
      const messages = ['word '.repeat(200), 'Hello.', 'Why?'].map((content, i) => ({
        role: i % 2 ? 'assistant' : 'user',
        content,
      }));
      const used = Date.now() + 1000;
      const put = store.put({ id: 'x', used, system: 'Yes', model: { name: 'x.gguf' }, messages });
      await new Promise((resolve) => put.addEventListener('success', resolve));
      opening.result.close();
    };
    await page.evaluate(putUnanswered);
    await page.reload();
    await written(page);
    const title = `${'word '.repeat(12).slice(0, 59)}…`;
    assert.deepEqual(await titles(page), [title, 'One day, a little fox']);

    // Where a model holds one, the last is on the paper, and the question can be asked again.
    await loadChatModel(page, path);
    assert.deepEqual((await turns(page)).slice(1), ['Hello.']);
    assert.equal(await page.getByLabel('Your message').inputValue(), 'Why?');
    assert.equal(await page.getByLabel('System prompt').inputValue(), 'Yes');
    // Another tab writes it, too: both are kept.
    await page.evaluate(putUnanswered);
    await answered(page, () => button(page, 'Send').click());
    assert.equal((await turns(page)).length, 4);
    assert.match((await line(page)) ?? '', / · the oldest 2 messages were left out: the context is full$/);
    assert.deepEqual(await titles(page), [title, title, 'One day, a little fox']);
    await conversation(page, 'One day, a little fox').click();
    assert.deepEqual(await turns(page), all);
  },
  { bypassCSP: true, viewport: { width: 360, height: 740 } },
);

pageTest('JSON is written, of a schema if there is one', async ({ page }) => {
  await written(page);
  assert.equal(await page.locator('#speed-device').textContent(), 'on the CPU');
  await setOptions(page, { 'Most tokens': '1' });
  await page.locator('[name=temperature]').fill('0');
  await page.locator('#form-field').getByLabel('JSON').check();
  const prompt = 'Once upon a time';
  const json = async () => ((await paper(page)) ?? '').slice(prompt.length);
  await answered(page, () => write(page).click());
  assert.match(await json(), /^\s*\{/);
  assert.match((await line(page)) ?? '', /^As long as asked for .* · the JSON is cut off$/);
  assert.equal(await button(page, 'Continue').isVisible(), false);

  const schema = {
    type: 'object',
    properties: { name: { enum: ['Ruby', 'Tom'] }, age: { type: 'integer', minimum: 3, maximum: 5 } },
    required: ['name', 'age'],
    additionalProperties: false,
  };
  await setOptions(page, { 'Most tokens': '60', 'JSON schema': JSON.stringify(schema) });
  await answered(page, () => write(page).click());
  const { name, age, ...rest } = JSON.parse(await json());
  assert.ok(schema.properties.name.enum.includes(name) && age >= 3 && age <= 5, await json());
  assert.deepEqual(rest, {});
  assert.match((await line(page)) ?? '', / · valid JSON$/);

  const before = await paper(page);
  await setOptions(page, { 'JSON schema': '{ type' });
  await write(page).click();
  assert.match(
    await page.locator('#schema').evaluate((node) => /** @type {any} */ (node).validationMessage),
    /^This is no JSON: /,
  );
  assert.equal(await paper(page), before);
  await setOptions(page, { 'JSON schema': '{ "type": "object", "dependentSchemas": {} }' });
  await write(page).click();
  await page.locator('#alerts').getByText('Change the JSON schema under Options').waitFor();
  assert.match((await page.locator('#alerts').textContent()) ?? '', /The schema.*dependentSchemas/);
  await page.locator('#form-field').getByLabel('Text').check();
  await answered(page, () => write(page).click());
  assert.equal(await page.locator('#alerts').textContent(), '');
});

/** The path of the file behind a page of Hugging Face. @param {string} link */
const pathOf = (link) => new URL(link).pathname.replace('/blob/', '/resolve/');

test('small models are listed with size and licence, kept when loaded, and removed at once', {
  skip,
}, async () => {
  const { page, problems, close } = await openPage(shared.browser, shared.server.url, {
    serviceWorkers: 'block',
  });
  try {
    const story = storyModel();
    const talker = chatModel(TEMPLATE);
    const [first, second] = suggestions;
    /** @type {string[]} */
    const asked = [];
    await page.context().route('https://huggingface.co/**', (route) => {
      const { pathname } = new URL(route.request().url());
      asked.push(pathname);
      const file = pathname === pathOf(first.link) ? story : talker;
      const [, from, to] = /bytes=(\d+)-(\d+)/.exec(route.request().headers().range ?? '') ?? [];
      const end = Math.min(Number(to) + 1, file.length);
      const headers = {
        'Access-Control-Allow-Origin': '*',
        'Access-Control-Expose-Headers': 'Content-Range, ETag',
        'Content-Range': `bytes ${from}-${end - 1}/${file.length}`,
        ETag: '"one"',
      };
      return route.fulfill({ status: 206, headers, body: file.subarray(Number(from), end) });
    });
    await written(page);
    const open = () => button(page, 'Run another model').click();
    await open();
    const rows = await page.locator('#suggestions li').allTextContents();
    assert.equal(rows.length, suggestions.length);
    for (const [i, { name, type, licence }] of suggestions.entries())
      assert.match(rows[i], new RegExp(`^${name} ${type} · \\d+\\s.B · ${licence}Load$`), rows[i]);
    assert.equal(await page.locator('#kept').isVisible(), false);
    assert.deepEqual(asked, [], 'nothing is fetched unasked');

    for (const { name, link } of [first, second]) {
      await page.getByRole('button', { name: `Load ${name}, ` }).click();
      const path = pathOf(link);
      await page.getByText(`${path.split('/').at(-1)} is ready`).waitFor({ state: 'attached' });
      assert.equal(asked.at(-1), path);
      await open();
      await button(page, `Run ${name}`).waitFor();
    }
    await page
      .getByText(/^2\smodels, 3\.15\sMB\. The browser has about [\d.,]+\s.B left for this page\.$/)
      .waitFor();
    await button(page, 'Free space').click();
    assert.equal(await page.locator('#kept-list li').count(), 2);
    await button(page, 'Remove 2\u00a0models?').click();
    await page.locator('#kept').waitFor({ state: 'hidden' });
    await page.getByRole('button', { name: `Load ${first.name}, ` }).waitFor();
    assert.equal(await page.locator('#conversations-note').isVisible(), false);
    await page.addInitScript(() => {
      Object.defineProperty(globalThis, 'indexedDB', { value: undefined });
    });
    await page.reload();
    await written(page);
    await open();
    await page.waitForTimeout(200);
    assert.equal(await page.locator('#kept').isVisible(), false);
    // The second one holds conversations, which a browser without a database does not keep.
    await page.getByRole('button', { name: `Load ${second.name}, ` }).click();
    await page.getByText(/conversations: they are lost when/).waitFor();
    const expected = /Service Worker registration blocked|external request: https:\/\/huggingface\.co\//;
    assert.deepEqual(
      problems.filter((problem) => !expected.test(problem)),
      [],
    );
  } finally {
    await close();
  }
});
