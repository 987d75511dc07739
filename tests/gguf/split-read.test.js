/**
 * Models in parts: how they are requested, held, read, and loaded as weights, in this thread and in
 * a worker.
 */
import assert from 'node:assert/strict';
import { truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createKernels, openGguf } from '../../js/index.js';
import { Llama } from '../../js/llama/index.js';
import { addressIn } from '../../js/wasm/handles.js';
import { memoryOf } from '../../js/wasm/kernels.js';
import {
  content,
  dataOf,
  inFolder,
  isWhole,
  names,
  pairs,
  ROWS,
  refusal,
  serveParts,
  shuffled,
  splitGguf,
  UNEVEN_2,
  UNEVEN_5,
} from '../helpers/split-gguf.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { workerKernels } from '../helpers/workers.js';

test('opening goes in parallel, a few at a time, with short requests for later parts; an abort ends it', async (t) => {
  const nParts = 9;
  const files = splitGguf(
    content,
    Array.from({ length: nParts }, () => 1),
  );
  const server = await serveParts(t, files, { delay: 60 });
  const gguf = await openGguf(server.url(files[0].name));
  assert.equal(gguf.parts.length, nParts);
  assert.ok(server.open.most > 1 && server.open.most <= 4, `${server.open.most} requests at a time`);
  assert.equal(server.asked.length, nParts);
  assert.equal(
    server.asked[0],
    `/${files[0].name}`,
    'the others are not asked for before the first says what it is',
  );
  for (const { name } of files.slice(1)) assert.equal(server.requests(name)[0].range, 'bytes=0-262143');
  const abort = new AbortController();
  const before = server.asked.length;
  const opening = openGguf(server.url(files[0].name), { signal: abort.signal });
  setTimeout(() => abort.abort(new Error('enough')), 90);
  await assert.rejects(opening, /enough/);
  assert.ok(server.asked.length - before < nParts, `${server.asked.length - before} were asked for`);
  await assert.rejects(
    openGguf(
      files.map(({ name }) => server.url(name)),
      { signal: abort.signal },
    ),
    /enough/,
  );
  // A missing part ends the opening of the others.
  const few = await serveParts(t, files.toSpliced(1, 1), { delay: 30 });
  await assert.rejects(openGguf(few.url(files[0].name)), refusal(/part 2 of 9.*HTTP 404/));
  assert.ok(few.asked.length <= 6, `${few.asked.length} were asked for`);
});

test('servers without Range support: parts are held up to a limit for all together', async (t) => {
  const files = splitGguf(content, UNEVEN_5);
  const server = await serveParts(t, files, { behaviour: { ignoreRange: true } });
  await isWhole(await openGguf(server.url(files[0].name)), files, 'held');
  assert.equal(server.open.most, 1);
  /** Parts of 100 MB: the third exceeds the limit, so the fourth is never requested. */
  const large = 100 * 2 ** 20;
  /** @type {string[]} */
  const asked = [];
  const bodies = Array.from({ length: 4 }, (_, i) => {
    const spec = [{ name: `t${i}`, typeId: 24, shape: [large], data: new Uint8Array(0) }];
    const [part] = splitGguf({ pairs, tensors: spec }, [1], {
      change: ({ tensors }) => ({
        pairs: [
          ['split.no', 'u16', i],
          ['split.count', 'u16', 4],
          ['split.tensors.count', 'i32', 4],
        ],
        tensors,
      }),
    });
    return part.bytes;
  });
  /** @type {typeof fetch} */
  const own = async (url) => {
    asked.push(String(url));
    const bytes = bodies[Number(/-0000(\d)-of/.exec(String(url))?.[1]) - 1];
    return new Response(new Blob([bytes, new Uint8Array(large)]));
  };
  await assert.rejects(
    openGguf('https://host.invalid/m-00001-of-00004.gguf', { fetch: own }),
    refusal(/m-00003-of-00004\.gguf: the server does not answer Range.*larger than the 268435456/),
  );
  assert.equal(asked.length, 3);
});

test('weights come from all parts: progress, requests within a part, broken connections, an abort', async (t) => {
  const files = splitGguf(content, UNEVEN_5);
  const server = await serveParts(t, files, { behaviour: { etag: '"v1"' } });
  const gguf = await openGguf(server.url(files[0].name), { retryDelay: 1 });
  const fm = await createKernels();
  t.after(() => fm.dispose());
  /** @param {any[]} weights */
  const same = (weights) => {
    for (const [i, w] of weights.entries()) {
      const memory = memoryOf(fm);
      const at = addressIn(w, memory);
      const bytes = memory.u8.slice(at, at + w.byteLength);
      assert.ok(Buffer.from(bytes).equals(dataOf(i)), names[i]);
      w.free();
    }
  };
  /** @type {{ loaded: number, total: number }[]} */
  const steps = [];
  Object.assign(server.behaviour(files[2].name), { dropAfter: 500_000, drops: 2 });
  const before = files.map(({ name }) => server.requests(name).length);
  same(await fm.loadWeights(gguf, names, { onProgress: (step) => steps.push({ ...step }) }));
  const total = ROWS.reduce((sum, nRows) => sum + nRows * 1024, 0);
  assert.deepEqual(steps.at(-1), { loaded: total, total });
  assert.ok(steps.every(({ loaded }, i) => i === 0 || loaded > steps[i - 1].loaded));
  const counts = files.map(({ name }, i) => server.requests(name).length - before[i]);
  // Neighbouring tensors of a part take one request, and the break takes two more. Bytes of the
  // first request are not requested again.
  assert.deepEqual([counts[1], counts[2]], [0, 3]);
  assert.ok(
    counts.every((count) => count <= 3),
    String(counts),
  );
  for (const { name } of files)
    for (const { range } of server.requests(name).slice(1))
      assert.notEqual(range?.startsWith('bytes=0-'), true, 'headers are not read again');

  const { inUse } = fm.memory();
  const abort = new AbortController();
  await assert.rejects(
    fm.loadWeights(gguf, names, { signal: abort.signal, onProgress: () => abort.abort(new Error('enough')) }),
    /enough/,
  );
  assert.equal(fm.memory().inUse, inUse);
  server.behaviour(files[2].name).status = 404;
  await assert.rejects(fm.loadWeights(gguf, names), refusal(/model-00003-of-00005\.gguf.*HTTP 404/));
  assert.equal(fm.memory().inUse, inUse);
  gguf.close();
  await assert.rejects(gguf.read('t0'), /is closed/);
});

test('a part that changes after it was opened is named', async (t) => {
  const files = splitGguf(content, UNEVEN_2);
  const folder = await inFolder(t, files);
  const gguf = await openGguf(join(folder, files[0].name));
  await truncate(join(folder, files[1].name), 100);
  assert.ok(Buffer.from(await gguf.read('t1')).equals(dataOf(1)));
  await assert.rejects(gguf.read('t8'), refusal(/model-00002-of-00002\.gguf: it has changed/));
});

test('in a worker, from URLs, paths, Blobs and bytes', async (t) => {
  const files = splitGguf(content, UNEVEN_5);
  const folder = await inFolder(t, files);
  const server = await serveParts(t, files);
  const fm = await workerKernels(t);
  for (const source of [
    server.url(files[0].name),
    join(folder, files[0].name),
    files.map(({ bytes }) => new Blob([bytes])),
    files.map(({ bytes }, i) => (i === 1 ? bytes : new Blob([bytes]))),
  ]) {
    const gguf = await openGguf(source);
    const weights = await fm.loadWeights(gguf, names);
    for (const i of [0, 2, 5, 8]) {
      const values = await fm.dequantize(weights[i]);
      const expected = new Float32Array(dataOf(i).buffer);
      assert.deepEqual(
        new Uint8Array(values.buffer, 0, 1024),
        new Uint8Array(expected.buffer, 0, 1024),
        names[i],
      );
      await weights[i].free();
    }
    for (const i of [1, 3, 4, 6, 7]) await weights[i].free();
  }
  for (const { name } of files)
    for (const { range } of server.requests(name).slice(1))
      assert.equal(range?.startsWith('bytes=0-'), false, 'headers are not read again');
});

test('a model in parts computes what the whole one does', async (t) => {
  const made = makeModel({ nLayers: 3 });
  const count = made.file.tensors.length;
  const prompt = [3, 9, 27, 5];
  const load = async (/** @type {any} */ source) => {
    const model = await Llama.load(source, { threads: 1 });
    try {
      return Array.from(await model.logits(prompt));
    } finally {
      model.dispose();
    }
  };
  const expected = await load(made.bytes);
  for (const sizes of [
    [count - 3, 3],
    [0, 1, 11, 2, count - 14],
  ]) {
    const files = splitGguf(made.file, sizes);
    const folder = await inFolder(t, files);
    const server = await serveParts(t, files);
    assert.deepEqual(await load(join(folder, files[0].name)), expected);
    assert.deepEqual(await load(server.url(files[0].name)), expected);
    assert.deepEqual(await load(shuffled(files).map(({ bytes }) => new Blob([bytes]))), expected);
    const gguf = await openGguf(join(folder, files[0].name));
    assert.deepEqual(await load(gguf), expected);
    assert.equal((await gguf.read('output_norm.weight')).length, 256, 'an open file stays open');
  }
});
