/** The demo page in Chromium, as a visitor uses it: writing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { digits } from '../../web/format.js';
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

/** The same text without a browser: greedy, and with activations that differ by rounding only. @param {Buffer} file */
async function reference(file) {
  return Llama.load(file, { activation: 'f32' });
}

pageTest('the story model loads, writes, and says how fast, without a click', async ({ page }) => {
  const stats = await written(page);
  const text = (await paper(page)) ?? '';
  assert.match(text, /^Once upon a time.{100}/s);
  assert.ok(Number(stats.tokens) > 50, `${stats.tokens} tokens`);
  assert.equal(await page.locator('#tps').textContent(), digits(Number(stats.tps)));
  assert.match(
    (await page.locator('#stat-prompt').textContent()) ?? '',
    /^(\d+ of )?\d+\stokens, [\d.,]+\/s$/,
  );
  assert.match((await page.locator('#outcome-line').textContent()) ?? '', /end · \d+ tokens · seed 11/);
  assert.equal(await page.evaluate('crossOriginIsolated'), true);
  assert.match((await page.locator('#engine-line').textContent()) ?? '', /Relaxed SIMD · \d+ threads?/);
  assert.match(
    (await page.locator('#model-details').textContent()) ?? '',
    /llama · 2\.56\smillion parameters · 3 layers · 1\.57\sMB/,
  );
  // What nobody asked for is not read out.
  assert.doesNotMatch((await page.locator('#announce').textContent()) ?? '', /Once upon/);
});

pageTest(
  'what is written is what the model writes; all of it is shown, and read out once',
  async ({ page }) => {
    await written(page);
    await page.evaluate(() => {
      /** @type {string[]} */
      const said = [];
      Object.assign(globalThis, { said });
      const region = /** @type {HTMLElement} */ (document.getElementById('announce'));
      new MutationObserver(() => said.push(region.textContent ?? '')).observe(region, { childList: true });
    });
    await page.locator('#options summary').click();
    await page.locator('[name=activation][value=f32]').first().check({ force: true });
    await page.getByText(/tiny-tales.* is ready/).waitFor({ state: 'attached' });
    await page.locator('[name=temperature]').fill('0');
    const model = await reference(storyModel());
    for (const prompt of ['One day, a little fox', 'Long ago, in a forest,']) {
      await page.getByLabel('How the text begins').fill(prompt);
      await page.getByLabel('Seed').fill(String(prompt.length));
      await page.getByLabel('How the text begins').press('Enter');
      await written(page, { seed: String(prompt.length) });
      const expected = prompt + (await model.generate(prompt, { temperature: 0, maxTokens: 240 }).text());
      assert.equal(await paper(page), expected);
      const said = await page.evaluate(() => /** @type {any} */ (globalThis).said.splice(0));
      assert.ok(said.length <= 4, `announced ${said.length} times: ${JSON.stringify(said)}`);
      assert.ok(said.at(-1).endsWith(expected), said.at(-1));
    }
    model.dispose();
  },
);

pageTest(
  'seeds repeat a text; it can be continued, copied and cleared',
  async ({ page }) => {
    await written(page);
    const withSeed = async (/** @type {string} */ seed) => {
      await setOptions(page, { Seed: seed, 'Most tokens': '20' });
      await write(page).click();
      await written(page, { seed, reason: 'length' });
      return paper(page);
    };
    const first = await withSeed('5');
    assert.notEqual(await withSeed('6'), first);
    assert.equal(await withSeed('5'), first);
    assert.match(
      (await page.locator('#outcome-line').textContent()) ?? '',
      /^As long as asked for · 20 tokens/,
    );

    await page.getByLabel('Seed').fill('7');
    await page.getByRole('button', { name: 'Continue', exact: true }).click();
    await written(page, { seed: '7' });
    const longer = (await paper(page)) ?? '';
    assert.ok(longer.startsWith(first ?? '?') && longer.length > (first?.length ?? 0) + 20, longer);

    await page.getByRole('button', { name: 'Copy text' }).click();
    await page.getByText('Copied.').first().waitFor({ state: 'attached' });
    assert.equal(await page.evaluate('navigator.clipboard.readText()'), longer);

    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await paper(page), '');
    assert.equal(await page.getByRole('button', { name: 'Continue', exact: true }).isVisible(), false);
  },
  { permissions: ['clipboard-read', 'clipboard-write'] },
);

pageTest('examples write at once; what cannot be is said', async ({ page }) => {
  await written(page);
  await page.getByRole('button', { name: 'One day, a little fox' }).click();
  await page.locator('#text', { hasText: /^One day, a little fox.{20}/ }).waitFor();
  await page.locator('#stats[data-state=done]').waitFor();
  const before = await paper(page);

  await page.getByLabel('How the text begins').fill('   ');
  await write(page).click();
  await page.getByText('Give the text a beginning first.').waitFor();
  await page.getByLabel('How the text begins').fill('Once');
  await setOptions(page, { 'Most tokens': '0' });
  await write(page).click();
  assert.equal(await page.locator('[name=maxTokens]:invalid').count(), 1);
  assert.equal(await paper(page), before);

  await setOptions(page, { 'Most tokens': '50' });
  await page.getByLabel('How the text begins').fill('There was a word. '.repeat(100));
  await write(page).click();
  await page
    .getByRole('alert')
    .getByText(/context has room for 256/)
    .waitFor();
  await page.getByText('Shorten the text').waitFor();
  await page.getByLabel('How the text begins').fill('Once');
  await write(page).click();
  await page.locator('#text', { hasText: /^Once.{20}/ }).waitFor();
  assert.equal(await page.locator('#alerts').textContent(), '');
});

pageTest('a model with a template is talked to, and remembers the turns', async ({ page }) => {
  await written(page);
  const template = '{% for m in messages %}{{ m.content }} {% endfor %}';
  const file = chatModel(template);
  await chooseFile(page, writeTemporary('chat.gguf', file));
  await page.getByText(/chat\.gguf is ready/).waitFor({ state: 'attached' });
  await page.locator('#options summary').click();
  await page.locator('[name=activation][value=f32]').first().check({ force: true });
  await page.getByText(/chat\.gguf is ready/).waitFor({ state: 'attached' });
  await page.locator('[name=temperature]').fill('0');
  await page.getByLabel('Most tokens').fill('30');
  await page.getByLabel('System prompt').fill('Long ago,');
  const model = await reference(file);
  const messages = [{ role: 'system', content: 'Long ago,' }];
  for (const [i, question] of ['One day, a little fox', 'The fox was happy'].entries()) {
    await page.getByLabel('Your message').fill(question);
    await page.getByLabel('Seed').fill(String(i));
    await page.getByRole('button', { name: 'Send' }).click();
    await written(page, { seed: String(i) });
    messages.push({ role: 'user', content: question });
    const answer = await (await model.chat(messages, { temperature: 0, maxTokens: 30 })).text();
    messages.push({ role: 'assistant', content: answer });
    assert.equal(await page.locator('.turn').last().textContent(), `The model: ${answer}`);
  }
  assert.equal(await page.locator('.turn').count(), 4);
  assert.equal(await page.getByLabel('Your message').inputValue(), '');
  model.dispose();

  await page.locator('[name=mode][value=text]').check({ force: true });
  assert.equal(await paper(page), '');
  await page.getByLabel('How the text begins').fill('Once upon a time');
  await write(page).click();
  await page.locator('#text', { hasText: /^Once upon a time.{20}/ }).waitFor();
});

test('these tests ran', { skip }, (t) =>
  t.diagnostic(`ran: demo page in Chromium ${shared.browser.version()}`),
);
