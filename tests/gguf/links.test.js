/**
 * Links to Hugging Face: every form leads to the same file, on the command line, on the page, in
 * openGguf and in the cache.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { modelSource } from '../../js/cli/output.js';
import { resolveLink } from '../../js/gguf/links.js';
import { deleteCachedGguf, GgufError, listCachedGgufs, openGguf } from '../../js/index.js';
import { parseLink } from '../../web/links.js';
import { sampleGguf } from '../helpers/gguf-bytes.js';
import { memoryCaches } from '../helpers/odd-server.js';
import { content, splitGguf, UNEVEN_2 } from '../helpers/split-gguf.js';

const site = 'https://huggingface.co';
const page = 'https://app.example/';
const main = `${site}/Qwen/R-GGUF/resolve/main/f.gguf`;
const inFolder = `${site}/Qwen/R-GGUF/resolve/main/Q8_0/f.gguf`;
const pull = `${site}/Qwen/R-GGUF/resolve/refs%2Fpr%2F1/f.gguf`;

/** @type {[file: string, links: string[]][]} */
const files = [
  [
    main,
    [
      `${site}/Qwen/R-GGUF/blob/main/f.gguf`,
      `${site}/Qwen/R-GGUF/resolve/main/f.gguf`,
      `${site}/Qwen/R-GGUF/raw/main/f.gguf`,
      `${site}/Qwen/R-GGUF/blame/main/f.gguf`,
      `${site}/Qwen/R-GGUF/resolve/main/f.gguf?download=true`,
      `${site}/Qwen/R-GGUF/blob/main/f.gguf#L1`,
      `${site}/Qwen/R-GGUF/blob/main/f.gguf?show_file_info=other.gguf`,
      `${site}/Qwen/R-GGUF?show_file_info=f.gguf`,
      `${site}/Qwen/R-GGUF/tree/main?show_file_info=f.gguf`,
      `${site}/Qwen/R-GGUF/?library=x&show_file_info=f.gguf`,
      `${site}/Qwen/R-GGUF/tree/main/f.gguf`,
      `${site}/Qwen/R-GGUF/f.gguf`,
      'http://huggingface.co/Qwen/R-GGUF/blob/main/f.gguf',
      'HTTPS://HuggingFace.co/Qwen/R-GGUF/blob/main/f.gguf',
      'https://www.huggingface.co/Qwen/R-GGUF/blob/main/f.gguf',
      'https://hf.co/Qwen/R-GGUF/blob/main/f.gguf',
      'hf.co/Qwen/R-GGUF/blob/main/f.gguf',
      'www.hf.co/Qwen/R-GGUF?show_file_info=f.gguf',
      'huggingface.co/Qwen/R-GGUF/resolve/main/f.gguf',
      '//huggingface.co/Qwen/R-GGUF/resolve/main/f.gguf',
      '  huggingface.co/Qwen/R-GGUF/resolve/main/f.gguf\n',
      'hf:Qwen/R-GGUF/f.gguf',
      'hf:/Qwen/R-GGUF/f.gguf',
      'hf://Qwen/R-GGUF/f.gguf',
      'HF:Qwen/R-GGUF/f.gguf?download=true',
      'hf://models/Qwen/R-GGUF/f.gguf',
      'hf:Qwen/R-GGUF@main/f.gguf',
      'hf:Qwen/R-GGUF/f.gguf@main',
      'hf:Qwen/R-GGUF/blob/main/f.gguf',
    ],
  ],
  [
    inFolder,
    [
      `${site}/Qwen/R-GGUF/blob/main/Q8_0/f.gguf`,
      `${site}/Qwen/R-GGUF?show_file_info=Q8_0%2Ff.gguf`,
      `${site}/Qwen/R-GGUF/tree/main/Q8_0?show_file_info=Q8_0%2Ff.gguf`,
      `${site}/Qwen/R-GGUF/tree/main/Q8_0/f.gguf`,
      'hf:Qwen/R-GGUF/Q8_0/f.gguf',
      'hf:Qwen/R-GGUF/Q8_0//f.gguf',
    ],
  ],
  [
    pull,
    [
      `${site}/Qwen/R-GGUF/blob/refs%2Fpr%2F1/f.gguf`,
      `${site}/Qwen/R-GGUF/blob/refs/pr/1/f.gguf`,
      `${site}/Qwen/R-GGUF/tree/refs%2Fpr%2F1?show_file_info=f.gguf`,
      'hf:Qwen/R-GGUF@refs%2Fpr%2F1/f.gguf',
      'hf://Qwen/R-GGUF@refs/pr/1/f.gguf',
    ],
  ],
  [`${site}/a/b/resolve/v1.0/f.gguf`, ['hf:a/b@v1.0/f.gguf', `${site}/a/b/blob/v1.0/f.gguf`]],
  [`${site}/a/b/resolve/feat%2Fx/f.gguf`, ['hf:a/b@feat%2Fx/f.gguf', `${site}/a/b/blob/feat%2Fx/f.gguf`]],
  [
    `${site}/a/b/resolve/main/m%20%231%20%C3%BC%25.gguf`,
    [
      'hf:a/b/m #1 ü%.gguf',
      'hf:a/b/m%20%231%20%C3%BC%25.gguf',
      `${site}/a/b?show_file_info=m+%231+ü%25.gguf`,
    ],
  ],
  [`${site}/gpt2/resolve/main/f.gguf`, [`${site}/gpt2/blob/main/f.gguf`]],
  [
    `${site}/datasets/a/b/resolve/main/f.gguf`,
    [`${site}/datasets/a/b/resolve/main/f.gguf`, 'hf://datasets/a/b/f.gguf'],
  ],
  [`${site}/api/models/a/b?x=1`, [`${site}/api/models/a/b?x=1`]],
];

test('each form of a link leads to the same file, on the command line as on the page', () => {
  for (const [file, links] of files)
    for (const link of links) {
      assert.equal(resolveLink(link), file, link);
      assert.equal(modelSource(link), file, link);
      assert.equal(parseLink(link, page).url, file, link);
    }
});

test('what is no link to Hugging Face stays as it is', () => {
  for (const text of [
    'model.gguf',
    './hf.co/a/b/blob/main/f.gguf',
    'models/blob/main/f.gguf',
    'C:\\models\\f.gguf',
    'https://example.com/huggingface.co/a/b/blob/main/f.gguf',
    'https://huggingface.co.example/a/b/blob/main/f.gguf',
    'https://nothuggingface.co/a/b/blob/main/f.gguf',
    'https://cdn-lfs.hf.co/a/b/123?Signature=x',
    'https://huggingface.co:8080/a/b/blob/main/f.gguf',
    'hfx:a/b/f.gguf',
    ' a path with spaces .gguf ',
    '',
  ]) {
    assert.equal(resolveLink(text), text);
    assert.equal(modelSource(text), text);
  }
});

test('a link that leads to no file says so, and names a form that does', () => {
  for (const [link, message] of /** @type {[string, RegExp][]} */ ([
    [`${site}/a`, /no link to a file: it should look like huggingface\.co\/OWNER/],
    [`${site}`, /no link to a file/],
    [`${site}/a/b`, /repository a\/b, not a file: open "Files and versions"/],
    [`${site}/a/b/tree/main`, /repository a\/b, not a file/],
    [`${site}/a/b/tree/main/folder`, /repository a\/b, not a file/],
    [`${site}/a/b/blob/main`, /repository a\/b, not a file/],
    [`${site}/a/b/discussions/1/f.gguf`, /"discussions" of a\/b, not to a file/],
    ['hf:a', /no link to a file: it should look like hf:OWNER\/REPO\/FILE\.gguf/],
    ['hf:', /no link to a file/],
    ['hf:a/b', /repository a\/b, not a file/],
    ['hf:a/b@main', /repository a\/b, not a file/],
    ['hf:a/b:Q4_K_M', /repository a\/b, not a file \("Q4_K_M" is no file's name\)/],
    ['hf.co/a/b:Q4_K_M', /repository a\/b, not a file/],
    ['hf:a/b/../../c/d/f.gguf', /no path in a repository/],
    ['hf:a/b/%2E%2e/f.gguf', /no path in a repository/],
  ])) {
    assert.throws(
      () => resolveLink(link),
      (error) => error instanceof GgufError && message.test(error.message) && error.url !== undefined,
      link,
    );
    assert.throws(() => modelSource(link), message, link);
    const curly = new RegExp(message.source.replace(/"([^"]*)"/g, '“$1”').replace(/\\\("/g, '\\(“'));
    assert.throws(() => parseLink(link, page), { name: 'LinkError', message: curly }, link);
  }
});

test('on the command line a path that is there comes before a link', (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'fm-links-'));
  const before = process.cwd();
  t.after(() => {
    process.chdir(before);
    rmSync(folder, { recursive: true });
  });
  process.chdir(folder);
  writeFileSync('hf:', '');
  assert.equal(modelSource('hf:'), 'hf:');
});

test('openGguf takes them as well; the cache knows one file by all of them', async (t) => {
  memoryCaches(t);
  const { bytes } = sampleGguf();
  /** @type {string[]} */
  const asked = [];
  /** @type {typeof globalThis.fetch} */
  const fetch = async (url) => {
    asked.push(String(url));
    return new Response(bytes);
  };
  for (const link of [
    'hf:Qwen/R-GGUF/f.gguf',
    new URL('hf://Qwen/R-GGUF/f.gguf'),
    `${site}/Qwen/R-GGUF/blob/main/f.gguf`,
  ])
    assert.equal((await openGguf(link, { fetch, cache: true })).byteLength, bytes.length);
  assert.deepEqual([...new Set(asked)], [main]);
  assert.deepEqual(
    (await listCachedGgufs()).map(({ url }) => url),
    [main],
  );
  await deleteCachedGguf('hf:Qwen/R-GGUF/f.gguf');
  assert.deepEqual(await listCachedGgufs(), []);
  await assert.rejects(openGguf('hf:Qwen/R-GGUF', { fetch }), GgufError);
});

test('a link to the first part of a split model: the other parts are found by its name', async () => {
  const parts = splitGguf(content, UNEVEN_2);
  const [{ name }] = parts;
  /** @type {typeof globalThis.fetch} */
  const fetch = async (url) => {
    const part = parts.find((one) => String(url) === `${site}/a/b/resolve/main/Q8_0/${one.name}`);
    return part ? new Response(part.bytes) : new Response('Entry not found', { status: 404 });
  };
  for (const link of [
    `hf:a/b/Q8_0/${name}`,
    `${site}/a/b/blob/main/Q8_0/${name}`,
    `${site}/a/b?show_file_info=Q8_0%2F${name}`,
  ])
    assert.equal((await openGguf(link, { fetch })).parts.length, 2, link);
  await assert.rejects(openGguf(`hf:a/b/${name}`, { fetch }), (/** @type {any} */ error) => {
    assert.deepEqual([error.status, error.url], [404, `${site}/a/b/resolve/main/${name}`]);
    return true;
  });
});

test('an error of a part keeps the status and the address', async () => {
  const [first, second] = splitGguf(content, UNEVEN_2);
  /** @type {typeof globalThis.fetch} */
  const fetch = async (url) =>
    String(url).endsWith(first.name) ? new Response(first.bytes) : new Response('', { status: 403 });
  await assert.rejects(openGguf(`hf:a/b/${first.name}`, { fetch }), (/** @type {any} */ error) => {
    assert.match(error.message, /^part 2 of 2 cannot be opened/);
    assert.deepEqual([error.status, error.url], [403, `${site}/a/b/resolve/main/${second.name}`]);
    return true;
  });
});
