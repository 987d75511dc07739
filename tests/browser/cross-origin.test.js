/** Files of other origins in a page: read where the server allows it, and what is told where it does not; blob: URLs. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { wideGguf } from '../helpers/gguf-bytes.js';
import { answer, serve } from '../helpers/odd-server.js';
import { launchChromium, skipWithoutChromium } from './helpers.js';
import { openLibrary } from './library-page.js';

const skip = skipWithoutChromium();
const MB = 2 ** 20;
const { bytes } = wideGguf({ nTensors: 3, bytes: MB });
/** @type {import('playwright-core').Browser} */
let browser;

before(async () => {
  if (!skip) browser = await launchChromium();
});
after(() => browser?.close());

/** What reading a tensor beyond the first request gives. */
const READ = `async (url) => {
  try {
    const gguf = await library.openGguf(url, { retryDelay: 1, retries: 2 });
    return { size: gguf.byteLength, read: (await gguf.read('t2')).length };
  } catch (error) {
    return { name: error.name, code: error.code, message: error.message, url: error.url };
  }
}`;

test('a server that allows other pages: with the size and the range exposed or hidden', {
  skip,
}, async (t) => {
  const opened = await openLibrary(browser);
  t.after(() => opened.close());
  for (const expose of ['Content-Range, ETag', undefined]) {
    const { url } = await serve(t, (request, response) =>
      answer(request, response, bytes, {
        cap: 900_000,
        headers: {
          'access-control-allow-origin': '*',
          'access-control-expose-headers': expose,
          'access-control-allow-headers': 'range',
          etag: 'W/"x"',
        },
      }),
    );
    assert.deepEqual(
      await opened.evaluate(`return (${READ})('${url}')`),
      { size: bytes.length, read: MB },
      String(expose),
    );
  }
});

test('a server that does not is told from one that is away', { skip }, async (t) => {
  const opened = await openLibrary(browser);
  t.after(() => opened.close());
  const { url, requests } = await serve(t, (request, response) => answer(request, response, bytes));
  const refused = await opened.evaluate(`return (${READ})('${url}')`);
  assert.deepEqual([refused.code, refused.url], ['FM_GGUF', url], JSON.stringify(refused));
  assert.match(
    refused.message,
    /the server answers, but does not let pages of http.* read the file \(CORS\)/,
  );
  assert.ok(requests.length <= 4, `it is not asked again and again: ${requests.length}`);
  const away = await opened.evaluate(`return (${READ})('http://127.0.0.1:1/x.gguf')`);
  assert.match(away.message, /cannot fetch .*network may be down.*CORS/, JSON.stringify(away));
});

test('a blob: URL is read, until it is revoked', { skip }, async (t) => {
  const opened = await openLibrary(browser);
  t.after(() => opened.close());
  const encoded = Buffer.from(bytes).toString('base64');
  await opened.evaluate(`
    const bytes = Uint8Array.from(atob('${encoded}'), (letter) => letter.charCodeAt(0));
    globalThis.blobUrl = URL.createObjectURL(new Blob([bytes]));`);
  assert.deepEqual(await opened.evaluate(`return (${READ})(blobUrl)`), { size: bytes.length, read: MB });
  const revoked = await opened.evaluate(`URL.revokeObjectURL(blobUrl); return (${READ})(blobUrl)`);
  assert.match(revoked.message, /blob: URL works in the page that made it.*pass the Blob itself/);
});
