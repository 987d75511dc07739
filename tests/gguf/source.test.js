/** All sources of GGUF files, and the error of each when it breaks. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { ArgumentError, GgufError, openGguf } from '../../js/index.js';
import { countedBytes, ggufBytes, sampleGguf } from '../helpers/gguf-bytes.js';
import { startServer } from '../helpers/range-server.js';

/** @import { TestContext } from 'node:test' */
/** @import { Behaviour } from '../helpers/range-server.js' */

/** @param {TestContext} t @param {Uint8Array} file @param {Behaviour} [behaviour] */
async function serve(t, file, behaviour) {
  const server = await startServer(file, behaviour);
  t.after(() => server.close());
  return server;
}

/** @param {TestContext} t @param {Uint8Array} file */
async function inFolder(t, file) {
  const folder = await mkdtemp(join(tmpdir(), 'fused-matmul-'));
  t.after(() => rm(folder, { recursive: true }));
  const path = join(folder, 'model #1.gguf');
  await writeFile(path, file);
  return path;
}

/**
 * A file of 5 MB, so that it takes several chunks and requests. The second tensor is beyond the
 * first request.
 */
function largeGguf() {
  return ggufBytes({
    tensors: [
      { name: 'first', typeId: 24, shape: [2_400_000], data: countedBytes(2_400_000) },
      { name: 'second', typeId: 24, shape: [2_600_000], data: countedBytes(2_600_000, 2) },
    ],
  });
}

/** @param {RegExp} message */
const refusal = (message) => (/** @type {any} */ error) => {
  assert.ok(error instanceof GgufError, `${error.name}: ${error.message}`);
  assert.match(error.message, message);
  return true;
};

test('the same bytes from memory, a Blob, a path and a URL', async (t) => {
  const { bytes } = largeGguf();
  const path = await inFolder(t, bytes);
  const server = await serve(t, bytes);
  const offset = new Uint8Array(bytes.length + 3);
  offset.set(bytes, 3);
  const shared = new SharedArrayBuffer(bytes.length);
  new Uint8Array(shared).set(bytes);
  const sources = {
    Uint8Array: bytes,
    ArrayBuffer: bytes.buffer,
    'a view at an offset': offset.subarray(3),
    DataView: new DataView(bytes.buffer),
    SharedArrayBuffer: shared,
    Blob: new Blob([bytes]),
    File: new File([bytes], 'model.gguf'),
    path,
    'file: URL': pathToFileURL(path),
    'file: string': pathToFileURL(path).href,
    'http string': server.url,
    'http URL': new URL(server.url),
  };
  for (const [kind, source] of Object.entries(sources)) {
    const gguf = await openGguf(source);
    assert.equal(gguf.byteLength, bytes.length, kind);
    for (const [name, seed, length] of /** @type {[string, number, number][]} */ ([
      ['first', 1, 2_400_000],
      ['second', 2, 2_600_000],
    ])) {
      const read = await gguf.read(name);
      assert.ok(Buffer.from(read).equals(countedBytes(length, seed)), `${kind}: ${name}`);
      let streamed = 0;
      for await (const chunk of gguf.stream(name)) {
        assert.equal(chunk[0], read[streamed], kind);
        streamed += chunk.length;
      }
      assert.equal(streamed, length, kind);
    }
  }
});

test('a source of no known kind', async () => {
  for (const source of [undefined, null, 5, {}, []]) {
    await assert.rejects(openGguf(/** @type {any} */ (source)), ArgumentError);
  }
});

test('a path that is not there, a folder, a file that shrinks or changes', async (t) => {
  const { bytes } = sampleGguf();
  const path = await inFolder(t, bytes);
  await assert.rejects(openGguf(`${path}.missing`), refusal(/ENOENT/));
  await assert.rejects(openGguf(join(path, '..')), GgufError);
  const gguf = await openGguf(path);
  await truncate(path, bytes.length - 100);
  await assert.rejects(gguf.read('other.weight'), refusal(/has changed/));
});

test('of a URL only the header and the tensors that are read are fetched', async (t) => {
  const server = await serve(t, largeGguf().bytes);
  const gguf = await openGguf(server.url, { headers: { authorization: 'Bearer x' } });
  assert.deepEqual(
    server.requests.map(({ range }) => range),
    ['bytes=0-1999999'],
  );
  const { offset, byteLength } = gguf.tensor('second');
  await gguf.read('second');
  assert.equal(server.requests[1].range, `bytes=${offset}-${offset + byteLength - 1}`);
  for (const { headers } of server.requests) assert.equal(headers.authorization, 'Bearer x');
});

test('a fetch of the caller is used', async () => {
  const { bytes } = sampleGguf();
  /** @type {string[]} */
  const asked = [];
  /** @type {typeof fetch} */
  const own = async (url) => {
    asked.push(String(url));
    return new Response(bytes);
  };
  const gguf = await openGguf('https://host.invalid/model.gguf', { fetch: own });
  assert.deepEqual(await gguf.read('a.weight'), countedBytes(864));
  assert.deepEqual(asked, ['https://host.invalid/model.gguf']);
});

test('a server without Range: the file is held whole', async (t) => {
  for (const noLength of [false, true]) {
    const server = await serve(t, largeGguf().bytes, { ignoreRange: true, noLength });
    const gguf = await openGguf(server.url);
    assert.ok(Buffer.from(await gguf.read('second')).equals(countedBytes(2_600_000, 2)));
    assert.equal(server.requests.length, 1);
  }
});

test('a server without Range and a file too large to hold', async () => {
  const bytes = new Uint8Array(64);
  const headers = { 'content-length': String(300 * 2 ** 20) };
  const huge = async () => new Response(bytes, { headers });
  await assert.rejects(
    openGguf('http://host.invalid/', { fetch: huge }),
    refusal(/does not answer Range requests.*314572800.*268435456/),
  );
});

test('a server that hides the size from us', async (t) => {
  const { bytes } = largeGguf();
  const server = await serve(t, bytes, { hideSize: true });
  const gguf = await openGguf(server.url);
  assert.equal(gguf.byteLength, bytes.length);
  assert.equal(server.requests[1].method, 'HEAD');
  assert.ok(Buffer.from(await gguf.read('second')).equals(countedBytes(2_600_000, 2)));
  const worse = await serve(t, bytes, { hideSize: true, noHead: true });
  await assert.rejects(openGguf(worse.url), refusal(/size.*Content-Range/));
});

test('HTTP errors, also between two reads', async (t) => {
  const server = await serve(t, largeGguf().bytes, { status: 404 });
  await assert.rejects(openGguf(server.url), refusal(/HTTP 404/));
  delete server.behaviour.status;
  const gguf = await openGguf(server.url);
  for (const [change, message] of /** @type {[Behaviour, RegExp][]} */ ([
    [{ status: 503 }, /HTTP 503/],
    [{ ignoreRange: true }, /stopped answering Range/],
    [{ shift: 5 }, /answered from offset/],
    [{ claimMore: 1 }, /changed from \d+ to \d+ bytes/],
    [{ hideSize: true, shift: 5 }, /got \d+ of \d+ bytes/],
  ])) {
    Object.assign(server.behaviour, change);
    await assert.rejects(gguf.read('second'), refusal(message));
    for (const key of Object.keys(change)) delete server.behaviour[/** @type {keyof Behaviour} */ (key)];
  }
  assert.equal((await gguf.read('second')).length, 2_600_000);
});

test('a file that changes on the server', async (t) => {
  const server = await serve(t, largeGguf().bytes, { etag: '"1"' });
  const gguf = await openGguf(server.url);
  server.behaviour.etag = '"2"';
  await assert.rejects(gguf.read('second'), refusal(/changed since it was opened/));
});

test('a connection that breaks', async (t) => {
  const { bytes } = largeGguf();
  const server = await serve(t, bytes, { breakAt: 1000 });
  await assert.rejects(openGguf(server.url), refusal(/failed at offset \d+/));
  server.behaviour.breakAt = 4_000_000;
  const gguf = await openGguf(server.url);
  await assert.rejects(gguf.read('second'), refusal(/failed at offset \d+/));
  delete server.behaviour.breakAt;
  assert.equal((await gguf.read('second')).length, 2_600_000);
  await server.close();
  await assert.rejects(gguf.read('second'), refusal(/cannot fetch .*ECONNREFUSED/));
});

test('a file that ends early at the server', async (t) => {
  const { bytes } = sampleGguf();
  for (let length = 0; length < bytes.length; length += 37) {
    const server = await startServer(bytes.slice(0, length), { ignoreRange: length % 2 === 0 });
    await assert.rejects(openGguf(server.url), GgufError, `${length}`);
    await server.close();
  }
  const server = await serve(t, bytes.slice(0, 600), { claimMore: bytes.length - 600 });
  await assert.rejects(openGguf(server.url), refusal(/got 600 of \d+ bytes/));
});

test('a file cut at any byte, as a Blob and as a path', async (t) => {
  const { bytes } = sampleGguf();
  const path = await inFolder(t, bytes);
  for (let length = bytes.length - 1; length >= 0; length -= 13) {
    await truncate(path, length);
    await assert.rejects(openGguf(path), GgufError, `path, ${length}`);
    await assert.rejects(openGguf(new Blob([bytes.slice(0, length)])), GgufError, `Blob, ${length}`);
  }
});

test('aborting: before, while the header is awaited, while a tensor is read', async (t) => {
  const { bytes } = largeGguf();
  const reason = new Error('enough');
  await assert.rejects(openGguf(bytes, { signal: AbortSignal.abort(reason) }), reason);
  const server = await serve(t, bytes, { stallAt: 500 });
  const opening = new AbortController();
  setTimeout(() => opening.abort(reason), 50);
  await assert.rejects(openGguf(server.url, { signal: opening.signal }), reason);
  delete server.behaviour.stallAt;
  const gguf = await openGguf(server.url);
  server.behaviour.stallAt = 3_000_000;
  const reading = new AbortController();
  setTimeout(() => reading.abort(reason), 50);
  await assert.rejects(gguf.read('second', { signal: reading.signal }), reason);
  for (const source of [bytes, new Blob([bytes]), await inFolder(t, bytes)]) {
    const local = new AbortController();
    const stream = (await openGguf(source)).stream('second', { signal: local.signal });
    await assert.rejects(async () => {
      for await (const chunk of stream) if (chunk.length > 0) local.abort(reason);
    }, reason);
  }
});

test('a stream that is left early lets go of its connection', async (t) => {
  const server = await serve(t, largeGguf().bytes);
  const gguf = await openGguf(server.url);
  server.behaviour.stallAt = 2_500_000;
  for await (const chunk of gguf.stream('second')) {
    assert.ok(chunk.length > 0);
    break;
  }
  for (let wait = 0; wait < 100 && server.left.early === 0; wait++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.equal(server.left.early, 1);
});
