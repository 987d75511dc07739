/**
 * The peak memory of loading: the weights and at most 16 MB. A separate process loads 256 MB while
 * its memory is watched: everything that the engine accounts for (linear memory, buffers, chunks
 * not yet collected), the heap, and for a file the memory that the system counts.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { countedBytes, ggufBytes } from '../helpers/gguf-bytes.js';
import { startServer } from '../helpers/range-server.js';

const MB = 2 ** 20;
const LIMIT = 16 * MB;
const program = fileURLToPath(new URL('../helpers/load-peak.js', import.meta.url));

/** @type {string} */
let folder;
/** @type {string} */
let file;
/** @type {Uint8Array} */
let bytes;

before(async () => {
  const large = { typeId: 0, shape: [256, 32 * 1024], data: countedBytes(32 * MB) };
  const tensors = [{ name: 'tiny', typeId: 0, shape: [256], data: countedBytes(1024) }];
  for (let i = 0; i < 8; i++) tensors.push({ ...large, name: `t${i}` });
  bytes = ggufBytes({ tensors }).bytes;
  folder = await mkdtemp(path.join(tmpdir(), 'fused-matmul-peak-'));
  file = path.join(folder, 'model.gguf');
  await writeFile(file, bytes);
});
after(() => rm(folder, { recursive: true }));

/** @param {string[]} args */
async function peakOf(...args) {
  const child = spawn(process.execPath, ['--expose-gc', program, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    output += chunk;
  });
  assert.equal(await new Promise((resolve) => child.on('close', resolve)), 0);
  const peak = JSON.parse(output);
  assert.equal(peak.bytes, 256 * MB);
  return peak;
}

/** @param {import('node:test').TestContext} t @param {any} peak @param {string[]} keys */
function check(t, { over, heap }, keys) {
  const text = Object.entries({ ...over, heap }).map(([key, value]) => `${key} ${(value / MB).toFixed(1)}`);
  t.diagnostic(`MB beyond the weights: ${text.join(', ')}`);
  for (const key of keys) assert.ok(over[key] <= LIMIT, `${key}: ${over[key] / MB} MB beyond the weights`);
  assert.ok(heap <= LIMIT, `heap: ${heap / MB} MB`);
}

test('from a file', async (t) => check(t, await peakOf(file), ['linear', 'external', 'rss']));

test('from a file, in a worker', async (t) => check(t, await peakOf(file, 'worker'), ['linear', 'rss']));

test('from a URL', async (t) => {
  const server = await startServer(bytes);
  t.after(() => server.close());
  check(t, await peakOf(server.url), ['linear', 'external']);
});
