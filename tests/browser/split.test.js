/** Models in parts in Chromium: dropped and chosen on the page, opened by a link, and kept in Cache Storage as one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedBytes, ggufBytes } from '../helpers/gguf-bytes.js';
import { rangeHandler } from '../helpers/range-server.js';
import { splitGguf } from '../helpers/split-gguf.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { chooseFile, pageTest, shared, skip, writeTemporary, written } from './demo-page.js';
import { openLibrary } from './library-page.js';

/** @typedef {import('./demo-page.js').Page} Page */

const made = makeModel({});
const nTensors = made.file.tensors.length;
const files = splitGguf(made.file, [1, 0, 9, 2, nTensors - 12]);
const alert = (/** @type {Page} */ page) => page.locator('#alerts .alert');

pageTest('all parts are dropped at once, or chosen; what is missing is named', async ({ page }) => {
  await written(page);
  /** @param {typeof files} dropped */
  const drop = async (dropped) => {
    const transfer = await page.evaluateHandle(
      (/** @type {{ name: string, base64: string }[]} */ items) => {
        const data = new DataTransfer();
        for (const { name, base64 } of items)
          data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], name));
        return data;
      },
      dropped.map(({ name, bytes }) => ({ name, base64: Buffer.from(bytes).toString('base64') })),
    );
    await page.dispatchEvent('body', 'drop', { dataTransfer: transfer });
  };
  await drop(files.toReversed());
  await page.getByText(/model-00001-of-00005\.gguf and 4 more is ready/).waitFor({ state: 'attached' });
  assert.equal(await page.locator('#model-name').textContent(), 'model-00001-of-00005.gguf and 4 more');
  assert.match(
    (await page.locator('#model-details').textContent()) ?? '',
    /[\d.]+\skB in 5\sparts, loaded in/,
  );

  await drop(files.toSpliced(2, 1));
  await alert(page)
    .getByText(/^Part 3 of 5 is missing from the list \("model-00003-of-00005\.gguf"\)/)
    .waitFor();
  await alert(page).getByText('Choose or drop all parts together, or give the link of the first.').waitFor();
  await drop([files[1]]);
  await alert(page)
    .getByText(/part 2 of 5: open the first, "model-00001-of-00005\.gguf"/)
    .waitFor();

  const paths = files.map(({ name, bytes }) => writeTemporary(name, bytes));
  await chooseFile(page, /** @type {any} */ (paths));
  await page.getByText(/and 4 more is ready/).waitFor({ state: 'attached' });
  assert.equal(await alert(page).count(), 0);
  await chooseFile(page, paths[0]);
  await alert(page)
    .getByText(/part 1 of 5: give all 5 parts as a list/)
    .waitFor();
});

pageTest('a link to the first part', async ({ page, problems }) => {
  await written(page);
  const link = async (/** @type {typeof files} */ there) => {
    for (const { name, bytes } of there)
      await page
        .context()
        .route(new RegExp(`/${name}\\?key=1$`), (route) =>
          route.fulfill({ status: 200, body: Buffer.from(bytes) }),
        );
    await page.getByRole('button', { name: 'Run another model' }).click();
    await page.getByLabel('From a link').fill(`${shared.server.url}${there[0].name}?key=1`);
    await page.getByRole('button', { name: 'Load', exact: true }).click();
  };
  await link(files);
  await page.getByText(/model-00001-of-00005\.gguf is ready/).waitFor({ state: 'attached' });
  await page.context().route(/\/half-00002-of/, (route) => route.fulfill({ status: 404, body: 'not here' }));
  await link(splitGguf(made.file, [nTensors - 1, 1], { stem: 'half' }).slice(0, 1));
  await alert(page)
    .getByText(/^Part 2 of 2 cannot be opened: .*half-00002-of-00002\.gguf\?key=1: HTTP 404/)
    .waitFor();
  // The browser itself tells of the answer, whose text is not waited for.
  assert.ok(
    problems.every((problem) => /half-00002-of-00002/.test(problem)),
    problems.join('\n'),
  );
  problems.length = 0;
});

test('parts are kept and forgotten as one file, read in a worker too', { skip }, async (t) => {
  const state = { gone: false };
  const routes = Object.fromEntries(
    files.map(({ name, bytes }, i) => {
      const { handler } = rangeHandler(bytes, { etag: `"${i}"` });
      /** @type {import('node:http').RequestListener} */
      const answer = (request, response) => {
        if (state.gone) request.socket.destroy();
        else handler(request, response);
      };
      return [`/${name}`, answer];
    }),
  );
  const opened = await openLibrary(shared.browser, { routes });
  t.after(() => opened.close());
  const { evaluate } = opened;
  await evaluate(`
    globalThis.load = async (create) => {
      const fm = await library[create]({ isa: 'scalar' });
      try {
        const gguf = await library.openGguf('/${files[0].name}', { cache: true, retries: 0 });
        const weights = await fm.loadWeights(gguf, gguf.tensors.keys());
        let sum = 0;
        for (const w of weights) for (const value of await fm.dequantize(w)) sum += value;
        return { sum, parts: gguf.parts.length, cached: gguf.cached };
      } finally { await fm.dispose(); }
    };`);
  const size = files.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const first = await evaluate("return load('createKernels')");
  assert.equal(first.parts, 5);
  assert.deepEqual([first.cached.name, first.cached.stored], ['fused-matmul', size]);
  state.gone = true;
  for (const create of ['createKernels', 'createWorkerKernels']) {
    const again = await evaluate(`return load('${create}')`);
    assert.equal(again.sum, first.sum);
    assert.ok(again.cached.hits >= size && again.cached.stored === 0, JSON.stringify(again));
  }
  const listed = await evaluate('return library.listCachedGgufs()');
  assert.deepEqual(
    listed.map((/** @type {any} */ { url, size, bytes }) => [url.replace(/^.*\//, ''), size, bytes]),
    [[files[0].name, size, size]],
  );
  await evaluate(`await library.deleteCachedGguf('/${files[3].name}')`);
  assert.deepEqual(await evaluate('return library.listCachedGgufs()'), []);
  assert.equal(await evaluate("return (await (await caches.open('fused-matmul')).keys()).length"), 0);
});

test('no room: another file goes, never a part of the one that is read', { skip }, async (t) => {
  const MB = 2 ** 20;
  const tensors = Array.from({ length: 6 }, (_, i) => {
    return { name: `t${i}`, typeId: 0, shape: [256, 1024], data: countedBytes(MB, i + 1) };
  });
  const large = splitGguf({ pairs: [], tensors }, [2, 2, 2], { stem: 'large' });
  const { bytes: other } = ggufBytes({ tensors });
  const all = [...large, { name: 'other.gguf', bytes: other }];
  const routes = Object.fromEntries(
    all.map(({ name, bytes }) => [`/${name}`, rangeHandler(bytes, { etag: `"${name}"` }).handler]),
  );
  const opened = await openLibrary(shared.browser, { routes });
  t.after(() => opened.close());
  const { evaluate } = opened;
  // There is room for the other file and the first part; the second and the third are opened at the same time.
  await evaluate(`
    globalThis.load = async (url) => {
      const fm = await library.createKernels({ isa: 'scalar' });
      try {
        const gguf = await library.openGguf(url, { cache: true });
        await fm.loadWeights(gguf, gguf.tensors.keys());
        return gguf.cached.error?.name ?? 'kept';
      } finally { fm.dispose(); }
    };
    const put = Cache.prototype.put;
    globalThis.quota = 8.9 * ${MB};
    let refused = 0;
    const room = async () => (await library.listCachedGgufs()).reduce((left, { bytes }) => left - bytes, quota);
    Cache.prototype.put = async function (request, response) {
      if ((await room()) < ${MB}) {
        // One that was asked for at the same time as the first would come too late to see what that made room for.
        await new Promise((resolve) => setTimeout(resolve, refused++ > 0 ? 600 : 200));
        throw new DOMException('full', 'QuotaExceededError');
      }
      return put.call(this, request, response);
    };`);
  assert.equal(await evaluate("return load('/other.gguf')"), 'kept');
  assert.equal(await evaluate(`return load('/${large[0].name}')`), 'kept');
  const listed = await evaluate('return library.listCachedGgufs()');
  const size = large.reduce((sum, { bytes }) => sum + bytes.length, 0);
  assert.deepEqual(
    listed.map((/** @type {any} */ { url, bytes }) => [url.replace(/^.*\//, ''), bytes]),
    [[large[0].name, size]],
  );
  // What does not fit as a whole is kept in part, and none of it goes for the rest.
  await evaluate(`await library.clearCachedGgufs(); globalThis.quota = 4.5 * ${MB};`);
  assert.equal(await evaluate(`return load('/${large[0].name}')`), 'QuotaExceededError');
  const [{ bytes }] = await evaluate('return library.listCachedGgufs()');
  assert.ok(bytes > 3 * MB && bytes < 5 * MB, String(bytes));
});

test('a FileList is a list', { skip }, async (t) => {
  const opened = await openLibrary(shared.browser, {});
  t.after(() => opened.close());
  await opened.page.evaluate(() => {
    const input = document.createElement('input');
    Object.assign(input, { type: 'file', multiple: true, id: 'parts' });
    document.body.append(input);
  });
  const paths = files.map(({ name, bytes }) => writeTemporary(name, bytes));
  await opened.page.locator('#parts').setInputFiles(paths);
  assert.equal(
    await opened.evaluate(
      "return (await library.openGguf(document.querySelector('#parts').files)).tensors.size",
    ),
    nTensors,
  );
});
