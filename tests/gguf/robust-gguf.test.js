/**
 * Hostile GGUF files: every file cut anywhere in its header, and mutants of valid ones. Opening
 * gives a GgufError, or a consistent file that can be read to its last byte. There is never another
 * error, a hang, or memory out of proportion.
 *
 * FM_FUZZ_MUTANTS sets their number and FM_FUZZ_SEED the seed. A message names seed and mutant, so
 * that it can be repeated.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FmError, GgufError, openGguf } from '../../js/index.js';
import { countedBytes, ggufBytes, KV, sampleGguf } from '../helpers/gguf-bytes.js';
import { Prng } from '../helpers/prng.js';

/** @import { Pair } from '../helpers/gguf-bytes.js' */

const N_MUTANTS = Number(process.env.FM_FUZZ_MUTANTS ?? 10_000);
const SEED = Number(process.env.FM_FUZZ_SEED ?? 20261124);
/**
 * Memory that opening all of these files of a few KB may add to the process, including the growth
 * of V8 itself.
 */
const MAX_GROWTH_BYTES = 200e6;
const MAX_MS_A_FILE = 2000;

/** Valid files, each with different parts of the format. */
const samples = [
  sampleGguf(),
  ggufBytes({
    pairs: [['general.alignment', 'u32', 64]],
    tensors: [
      { name: 'w', typeId: 14, shape: [256, 2, 3], data: countedBytes(6 * 210) },
      { name: 'b', typeId: 30, shape: [9], data: countedBytes(18) },
    ],
    alignment: 64,
  }),
  ggufBytes({
    version: 2,
    pairs: Object.keys(KV)
      .filter((kind) => kind !== 'array' && kind !== 'string')
      .map((kind) => /** @type {Pair} */ ([`k.${kind}`, kind, 1])),
    tensors: [],
  }),
  ggufBytes({
    pairs: [
      ['s', 'array', { of: 'string', items: ['one', 'two', 'three', ''] }],
      ['n', 'array', { of: 'array', items: [{ of: 'array', items: [{ of: 'u16', items: [1, 2] }] }] }],
    ],
    tensors: [{ name: 'q', typeId: 8, shape: [64, 4], data: countedBytes(8 * 34) }],
  }),
];

/**
 * Opens the file and reads everything.
 * @param {Uint8Array<ArrayBuffer>} bytes @param {string} what @returns {Promise<boolean>}
 */
async function survives(bytes, what) {
  const started = performance.now();
  try {
    const gguf = await openGguf(bytes);
    let end = 0;
    for (const { name, offset, byteLength, nRows, nCols } of gguf.tensors.values()) {
      assert.ok(
        Number.isSafeInteger(nRows * nCols) && nRows > 0 && nCols > 0,
        `${what}: ${nRows} x ${nCols}`,
      );
      assert.ok(offset >= 24 && offset + byteLength <= bytes.length, `${what}: ${offset} + ${byteLength}`);
      const read = await gguf.read(name);
      assert.deepEqual(read, bytes.slice(offset, offset + byteLength), what);
      end = Math.max(end, offset + byteLength);
    }
    JSON.stringify(gguf.metadata, (_, value) => (typeof value === 'bigint' ? `${value}` : value));
    return true;
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
    assert.ok(error instanceof GgufError && error instanceof FmError, `${what}: ${error}`);
    assert.ok(error.message.length > 10 && error.message.length < 2000, `${what}: ${error.message}`);
    return false;
  } finally {
    const ms = performance.now() - started;
    assert.ok(ms < MAX_MS_A_FILE, `${what}: took ${ms} ms`);
  }
}

test('a file cut at every byte of its header is refused', async () => {
  for (const [i, { bytes, dataStart }] of samples.entries()) {
    for (let length = 0; length < dataStart; length++) {
      const isWhole = await survives(bytes.slice(0, length), `sample ${i}, ${length} bytes`);
      // Without tensors, the padding behind the header may be missing.
      assert.ok(!isWhole || (i === 2 && length >= samples[i].headerEnd), `sample ${i}, ${length} bytes`);
    }
  }
});

const EXTREMES = [
  0n,
  1n,
  2n ** 64n - 1n,
  2n ** 63n,
  2n ** 53n,
  2n ** 53n - 1n,
  2n ** 32n,
  2n ** 32n - 1n,
  2n ** 31n,
  2n ** 40n,
  1000000n,
];

/**
 * One to four changes in the header: bits, bytes, numbers of the format at any place, and pieces
 * that are removed, doubled or moved.
 * @param {Uint8Array<ArrayBuffer>} whole @param {number} headerEnd @param {Prng} prng
 */
function mutate(whole, headerEnd, prng) {
  let bytes = whole.slice();
  for (let n = prng.int(1, 4); n > 0; n--) {
    const at = prng.int(0, Math.min(headerEnd, bytes.length - 8) - 1);
    const view = new DataView(bytes.buffer);
    const span = prng.int(1, 24);
    const kind = prng.int(0, 8);
    if (kind === 0) bytes[at] ^= 1 << prng.int(0, 7);
    else if (kind === 1) bytes[at] = prng.int(0, 255);
    else if (kind === 2) view.setBigUint64(at, prng.pick(EXTREMES), true);
    else if (kind === 3) view.setUint32(at, prng.pick([0, 1, 8, 9, 12, 13, 255, 2 ** 31, 2 ** 32 - 1]), true);
    else if (kind === 4) view.setBigUint64(at, BigInt(prng.int(0, 3 * whole.length)), true);
    else if (kind === 5) bytes = Uint8Array.from([...bytes.slice(0, at), ...bytes.slice(at + span)]);
    else if (kind === 6) bytes = Uint8Array.from([...bytes.slice(0, at + span), ...bytes.slice(at)]);
    else if (kind === 7) bytes.copyWithin(at, prng.int(0, headerEnd - 1), prng.int(0, bytes.length));
    else bytes = bytes.slice(0, prng.int(Math.min(24, bytes.length), bytes.length));
    if (bytes.length < 16) break;
  }
  return bytes;
}

test(`${N_MUTANTS} mutants of valid files are refused or consistent`, async (t) => {
  const before = process.resourceUsage().maxRSS * 1024;
  const prng = new Prng(SEED);
  let nValid = 0;
  for (let i = 0; i < N_MUTANTS; i++) {
    const { bytes, headerEnd } = prng.pick(samples);
    if (await survives(mutate(bytes, headerEnd, prng), `seed ${SEED}, mutant ${i}`)) nValid++;
  }
  const growth = process.resourceUsage().maxRSS * 1024 - before;
  t.diagnostic(`seed ${SEED}: ${nValid} valid, ${N_MUTANTS - nValid} refused`);
  t.diagnostic(`ran: ${N_MUTANTS} mutated GGUF files (seed ${SEED})`);
  assert.ok(growth < MAX_GROWTH_BYTES, `the process grew by ${growth} bytes`);
  assert.ok(nValid > N_MUTANTS / 50 && nValid < N_MUTANTS / 2, `${nValid} valid`);
});

test('a header that asks for a lot is refused before anything is allocated', async () => {
  const { bytes } = sampleGguf();
  const sources = [bytes, new Blob([bytes])];
  for (let at = 8; at + 8 <= 200; at++) {
    const hostile = bytes.slice();
    new DataView(hostile.buffer).setBigUint64(at, 2n ** 50n, true);
    const before = process.memoryUsage().arrayBuffers;
    await survives(hostile, `2^50 at byte ${at}`);
    assert.ok(process.memoryUsage().arrayBuffers - before < 10e6, `2^50 at byte ${at}`);
  }
  for (const source of sources) assert.equal((await openGguf(source)).tensors.size, 3);
});
