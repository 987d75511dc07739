/**
 * Other files given in place of a GGUF file by mistake: each is refused by name, from memory, a
 * path and a URL.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { GgufError, openGguf } from '../../js/index.js';
import { sampleGguf } from '../helpers/gguf-bytes.js';
import { answer, serve } from '../helpers/odd-server.js';

const { bytes: gguf } = sampleGguf();

/**
 * A file of the given size that begins with these bytes.
 * @param {(number | string)[]} parts @param {number} [size]
 */
function starting(parts, size = 5000) {
  const bytes = new Uint8Array(size).fill(0xa5);
  bytes.set(Buffer.concat(parts.map((part) => Buffer.from(typeof part === 'string' ? part : [part]))));
  return bytes;
}

/** @param {string} header */
function safetensors(header) {
  const bytes = new Uint8Array(8 + header.length + 100);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(header.length), true);
  bytes.set(Buffer.from(header), 8);
  return bytes;
}

function bigEndian() {
  const bytes = gguf.slice();
  bytes.set([0, 0, 0, 3], 4);
  return bytes;
}

function tar() {
  const bytes = new Uint8Array(1024);
  bytes.set(Buffer.from('model.gguf'));
  bytes.set(Buffer.from('ustar'), 257);
  return bytes;
}

const pointer =
  'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 491400032\n';
const s3 =
  '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>';

/** @type {Record<string, [bytes: Uint8Array | string, message: RegExp]>} */
const others = {
  'an HTML page': [
    '<!DOCTYPE html>\n<html><head><title>Log in\n – Hub</title>'.padEnd(9000),
    /an HTML page \("Log in – Hub"\): a login or an error page/,
  ],
  'an HTML page behind a mark, a comment and a break': [
    '\ufeff\n<!-- x -->\n<HTML lang=en>',
    /an HTML page: a login/,
  ],
  'a short HTML page': ['<html></html>', /an HTML page.*ends at 13 bytes/],
  'an HTML page in UTF-16': [Buffer.from('\ufeff<html><body>nope</body></html>', 'utf16le'), /an HTML page/],
  'the error of an object store': [s3, /an XML document with the error "AccessDenied"/],
  'a Git LFS pointer': [
    pointer,
    /a Git LFS pointer in place of the file of 491400032 bytes: run "git lfs pull"/,
  ],
  safetensors: [
    safetensors('{"a.weight":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'),
    /a safetensors file: convert it/,
  ],
  'a zip, or .pth': [starting(['PK\x03\x04']), /a zip archive.*\.pth/],
  'an empty zip': [starting(['PK\x05\x06'], 22), /an empty zip archive/],
  gzip: [gzipSync(gguf), /compressed by gzip/],
  zstd: [starting([0x28, 0xb5, 0x2f, 0xfd]), /compressed by zstd/],
  xz: [starting([0xfd, '7zXZ', 0]), /compressed by xz/],
  '7z': [starting(['7z', 0xbc, 0xaf, 0x27, 0x1c]), /a 7z archive/],
  tar: [tar(), /a tar archive/],
  GGML: [starting(['lmgg']), /old GGML format/],
  GGMF: [starting(['fmgg', 1, 0, 0, 0]), /old GGMF format/],
  GGJT: [starting(['tjgg', 3, 0, 0, 0]), /old GGJT format.*August 2023/],
  'a pickle': [starting([0x80, 2, '}q']), /a Python pickle/],
  JSON: ['{"error":"Invalid username or password."}', /JSON text: "\{\\"error\\":\\"Invalid username/],
  'a JSON array': ['[1, 2, 3]', /JSON text/],
  'a text': ['Not Found', /a text: "Not Found".*ends at 9 bytes/],
  'a text with letters of two bytes, cut': [`a${'ü'.repeat(4000)}`, /a text: "aü/],
  nothing: [new Uint8Array(0), /it is an empty file; the file ends at 0 bytes/],
  zeros: [new Uint8Array(100_000), /zeros.*downloads/],
  'big-endian': [bigEndian(), /big-endian/],
  'big-endian, by its magic': [starting(['FUGG']), /big-endian/],
  noise: [starting([1, 2, 3, 4]), /does not start with "GGUF", at offset 0$/],
  'the first bytes of a GGUF file': [gguf.slice(0, 3), /ends at 3 bytes.*download complete/],
  'half a header': [gguf.slice(0, 300), /ends at 300 bytes.*download complete/],
  'half the data': [
    gguf.slice(0, gguf.length - 100),
    /but the file ends at \d+ \(is the download complete\?\)/,
  ],
};

for (const [what, [given, message]] of Object.entries(others))
  test(`${what} is refused by name`, async (t) => {
    const bytes = new Uint8Array(Buffer.from(given));
    const folder = mkdtempSync(path.join(tmpdir(), 'fm-not-gguf-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = path.join(folder, 'model.gguf');
    writeFileSync(file, bytes);
    const ranges = await serve(t, (request, response) =>
      bytes.length === 0
        ? response.writeHead(416, { 'content-range': 'bytes */0' }).end()
        : answer(request, response, bytes),
    );
    const whole = await serve(t, (_, response) => response.end(bytes));
    for (const source of [bytes, new Blob([bytes]), file, ranges.url, whole.url])
      await assert.rejects(openGguf(source), (/** @type {any} */ error) => {
        assert.ok(error instanceof GgufError, String(error));
        if (bytes.length > 0 || source !== ranges.url) assert.match(error.message, message);
        else assert.match(error.message, /empty file/);
        assert.ok(error.message.length < 600, error.message);
        return true;
      });
  });

test('a blob: URL of this process is read in Node; one that was revoked is refused', async () => {
  const url = URL.createObjectURL(new Blob([gguf]));
  const opened = await openGguf(url, { cache: true });
  assert.equal(opened.byteLength, gguf.length);
  assert.equal((await opened.read('a.weight')).length, 864);
  URL.revokeObjectURL(url);
  await assert.rejects(openGguf(url, { retryDelay: 600_000 }), (/** @type {any} */ error) => {
    assert.ok(error instanceof GgufError);
    assert.match(error.message, /revoked.*pass the Blob itself/);
    assert.equal(error.url, url);
    return true;
  });
});
