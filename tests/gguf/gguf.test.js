/**
 * GGUF headers: the values that are read, and truncated, mutated and hostile files, which end in a
 * GgufError that says where.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GgufError, HandleError, openGguf } from '../../js/index.js';
import { countedBytes, ggufBytes, sampleGguf } from '../helpers/gguf-bytes.js';
import { Prng } from '../helpers/prng.js';
import { dataPath, listData, readData, skipWithout } from '../helpers/test-data.js';

/** @import { Pair, TensorSpec } from '../helpers/gguf-bytes.js' */

/**
 * @param {Uint8Array} bytes @param {RegExp} message
 * @param {{ offset?: number, tensor?: string }} [where]
 */
async function refused(bytes, message, where = {}) {
  await assert.rejects(openGguf(bytes), (/** @type {any} */ error) => {
    assert.ok(error instanceof GgufError, `${error.name}: ${error.message}`);
    assert.match(error.message, message);
    for (const [key, value] of Object.entries(where))
      assert.equal(Reflect.get(error, key), value, error.message);
    return true;
  });
}

/**
 * @param {Partial<TensorSpec>} changes
 * @returns {TensorSpec} a valid F32 tensor of 8 values, with the changes
 */
const tensor = (changes) => ({ name: 't', typeId: 0, shape: [8], data: new Uint8Array(32), ...changes });

test('metadata of every kind', async () => {
  const { bytes } = sampleGguf();
  const gguf = await openGguf(bytes);
  assert.deepEqual(gguf.metadata, {
    'general.architecture': 'llama',
    'llama.context_length': 256,
    'a.float': 0.5,
    'a.bool': true,
    'a.negative': -5,
    'a.large': 2n ** 63n,
    'tokenizer.ggml.tokens': ['a', 'bc', '', 'déf'],
    'a.numbers': [1, -2, 3],
    'a.nested': [[1, 2], []],
  });
  assert.deepEqual([gguf.version, gguf.alignment, gguf.byteLength], [3, 32, bytes.length]);
});

test('tensors with their shapes, sizes and places', async () => {
  const { bytes, dataStart } = sampleGguf();
  const gguf = await openGguf(bytes);
  assert.deepEqual([...gguf.tensors.keys()], ['a.weight', 'norm.weight', 'other.weight']);
  assert.deepEqual(
    { ...gguf.tensor('a.weight') },
    {
      name: 'a.weight',
      type: 'Q4_K',
      typeId: 12,
      shape: [512, 3],
      nRows: 3,
      nCols: 512,
      offset: dataStart,
      byteLength: 864,
      supported: true,
    },
  );
  const other = gguf.tensor('other.weight');
  assert.deepEqual([other.type, other.supported, other.nRows, other.nCols], ['I8', false, 6, 7]);
  assert.deepEqual(await gguf.read('other.weight'), countedBytes(42, 2));
  assert.deepEqual(await gguf.read('a.weight'), countedBytes(864));
});

test('what is read is a copy', async () => {
  const { bytes, dataStart } = sampleGguf();
  const gguf = await openGguf(bytes);
  (await gguf.read('a.weight')).fill(0);
  assert.deepEqual(bytes.slice(dataStart, dataStart + 864), countedBytes(864));
});

test('an unknown name is answered with the nearest ones', async () => {
  const gguf = await openGguf(sampleGguf().bytes);
  assert.throws(() => gguf.tensor('nrm.weight'), {
    name: 'GgufError',
    message: /"nrm\.weight".*nearest.*are "norm\.weight"/,
  });
  assert.throws(() => gguf.tensor('__proto__'), GgufError);
  await assert.rejects(gguf.read('nothing'), { tensor: 'nothing' });
});

test('a closed file is not read any more', async () => {
  const gguf = await openGguf(sampleGguf().bytes);
  gguf.close();
  gguf.close();
  assert.equal(gguf.tensor('a.weight').nRows, 3);
  await assert.rejects(gguf.read('a.weight'), HandleError);
  assert.throws(() => gguf.stream('a.weight'), HandleError);
});

test('version 2, another alignment, a file without tensors', async () => {
  const v2 = ggufBytes({ version: 2, tensors: [tensor({})] });
  assert.equal((await openGguf(v2.bytes)).version, 2);
  const wide = ggufBytes({
    pairs: [['general.alignment', 'u32', 256]],
    alignment: 256,
    tensors: [tensor({}), tensor({ name: 'u' })],
  });
  const gguf = await openGguf(wide.bytes);
  assert.deepEqual([gguf.alignment, gguf.tensor('u').offset % 256], [256, 0]);
  assert.equal((await openGguf(ggufBytes({}).bytes)).tensors.size, 0);
});

test('strings that cross from one chunk of the parser into the next are whole', async () => {
  // The parser reads 500,000 bytes ahead of a value, so only a longer value can reach a cut.
  const text = 'abcdefghijklmnopqrstuvwxyz';
  const long = 'x'.repeat(600_000) + text;
  for (const last of /** @type {Pair[]} */ ([
    ['text', 'string', long],
    ['list', 'array', { of: 'string', items: ['one', long, text] }],
  ])) {
    // The position of the text in the file, counted from the end of the filler of the first chunk.
    const start =
      ggufBytes({ pairs: [['fill', 'array', { of: 'u64', items: [] }], last] }).headerEnd - text.length;
    for (const cut of [0, 1, 13, 25, 26, 30, 34, 40]) {
      const bytes = 2_000_000 - start - cut;
      const fill = { of: /** @type {const} */ ('u64'), items: new Uint8Array(bytes - (bytes % 8)) };
      const key = 'fill'.padEnd(4 + (bytes % 8));
      const pairs = /** @type {Pair[]} */ ([[key, 'array', fill], last, ['after', 'u32', 7]]);
      const { metadata } = await openGguf(ggufBytes({ pairs, tensors: [tensor({})] }).bytes);
      assert.equal(metadata.after, 7);
      const value = metadata[last[0]];
      const whole = Array.isArray(value) ? value[2] === text && value[1] === long : value === long;
      assert.ok(whole, `${last[0]}, starting ${cut} bytes before the cut`);
    }
  }
});

test('a file cut at any byte is refused', async () => {
  const { bytes, headerEnd } = sampleGguf();
  for (let length = 0; length < bytes.length; length++) {
    const error = await openGguf(bytes.slice(0, length)).then(
      () => assert.fail(`${length} of ${bytes.length} bytes were accepted`),
      (/** @type {any} */ reason) => reason,
    );
    assert.ok(error instanceof GgufError, `${length}: ${error.name}: ${error.message}`);
    assert.match(error.message, /\d/);
    assert.ok(length > headerEnd || Number(error.offset) <= length, `${length}: ${error.message}`);
  }
});

test('a mutated header is refused with a GgufError, or read as a file that is consistent', async () => {
  const { bytes, headerEnd, dataStart } = sampleGguf();
  const random = new Prng(20);
  let refusals = 0;
  const rounds = 3000;
  for (let round = 0; round < rounds; round++) {
    const mutant = bytes.slice();
    for (let n = random.int(1, 4); n > 0; n--) {
      const at = random.int(0, headerEnd - 1);
      mutant[at] = random.pick([
        0,
        1,
        127,
        128,
        255,
        mutant[at] ^ (1 << random.int(0, 7)),
        random.int(0, 255),
      ]);
    }
    try {
      const gguf = await openGguf(mutant);
      for (const { offset, byteLength, nRows, nCols } of gguf.tensors.values()) {
        assert.ok(offset >= dataStart - gguf.alignment - 64 && offset + byteLength <= mutant.length);
        assert.ok(nRows > 0 && nCols > 0 && Number.isSafeInteger(nRows * nCols));
      }
    } catch (error) {
      assert.ok(error instanceof GgufError, `round ${round}: ${error}`);
      refusals += 1;
    }
  }
  assert.ok(refusals > rounds / 3, `${refusals} of ${rounds}`);
});

test('what is no GGUF file, or of a kind that is not read', async () => {
  await refused(new Uint8Array(0), /ends at 0 bytes/, { offset: 0 });
  await refused(Buffer.from('PK\x03\x04'.padEnd(64)), /does not start with "GGUF"/, { offset: 0 });
  await refused(ggufBytes({ version: 1 }).bytes, /version 1/, { offset: 4 });
  await refused(ggufBytes({ version: 4 }).bytes, /version 4/);
  const big = ggufBytes({}).bytes;
  big.set([0, 0, 0, 3], 4);
  await refused(big, /big-endian/);
});

test('counts and lengths that no file can hold', async () => {
  const { bytes } = sampleGguf();
  for (const [at, what] of /** @type {[number, RegExp][]} */ ([
    [8, /number of tensors is 18446744073709551615/],
    [16, /number of metadata pairs/],
    [24, /length of the key of metadata pair 0/],
  ])) {
    const hostile = bytes.slice();
    hostile.fill(255, at, at + 8);
    await refused(hostile, what, { offset: at });
  }
  const many = bytes.slice();
  new DataView(many.buffer).setBigUint64(8, 10_000_000n, true);
  await refused(many, /10000000 tensors do not fit/, { offset: 8 });
  const { bytes: array } = ggufBytes({ pairs: [['k', 'array', { of: 'u32', items: [1] }]] });
  new DataView(array.buffer).setBigUint64(24 + 9 + 4 + 4, 1_000_000n, true);
  await refused(array, /metadata "k" has 1000000 items/);
});

test('metadata: unknown types, keys that are there twice or replace a prototype, deep arrays', async () => {
  const { bytes } = ggufBytes({ pairs: [['k', 'u32', 1]] });
  bytes[24 + 9] = 77;
  await refused(bytes, /metadata "k" has the unknown type 77/, { offset: 33 });
  await refused(
    ggufBytes({
      pairs: [
        ['k', 'u32', 1],
        ['k', 'u32', 2],
      ],
    }).bytes,
    /"k" is there twice/,
  );
  await refused(
    ggufBytes({ pairs: [['__proto__', 'array', { of: 'u8', items: [1] }]] }).bytes,
    /not allowed/,
  );
  /** @type {any} */
  let deep = { of: 'u8', items: [1] };
  for (let i = 0; i < 6; i++) deep = { of: 'array', items: [deep] };
  await refused(ggufBytes({ pairs: [['k', 'array', deep]] }).bytes, /deeper than 4/);
});

test('alignment must be a power of two', async () => {
  for (const value of [0, 24, 33]) {
    const pairs = /** @type {Pair[]} */ ([['general.alignment', 'u32', value]]);
    await refused(ggufBytes({ pairs, tensors: [tensor({})] }).bytes, new RegExp(`alignment.* ${value}`));
  }
  await refused(ggufBytes({ pairs: [['general.alignment', 'string', '32']] }).bytes, /alignment/);
});

test('tensors: dimensions, types, offsets, sizes, overlaps', async () => {
  const one = (/** @type {Partial<TensorSpec>} */ changes) => ggufBytes({ tensors: [tensor(changes)] }).bytes;
  await refused(one({ shape: [8, 0] }), /empty dimension: 8 x 0/, { tensor: 't' });
  await refused(one({ shape: [] }), /0 dimensions/);
  await refused(one({ shape: [1, 1, 1, 1, 8] }), /5 dimensions/);
  await refused(one({ shape: [2n ** 63n, 4] }), /9223372036854775808/);
  await refused(one({ shape: [2 ** 32, 2 ** 32, 2 ** 32, 2 ** 32] }), /but the file ends at/, {
    tensor: 't',
  });
  await refused(one({ shape: [9] }), /takes bytes \d+ to \d+, but the file ends at \d+/, { tensor: 't' });
  await refused(one({ typeId: 4 }), /unknown type 4/, { tensor: 't' });
  await refused(one({ typeId: 12, shape: [255] }), /255 values.*256 of a Q4_K block/);
  await refused(one({ offset: 16 }), /offset 16.*alignment 32/);
  await refused(one({ offset: 32 }), /but the file ends at/);
  await refused(one({ offset: 2n ** 64n - 32n }), /but the file ends at/);
  const two = [tensor({}), tensor({ name: 'u', offset: 0 })];
  await refused(ggufBytes({ tensors: two }).bytes, /"u" starts at \d+, inside "t", which ends at \d+/);
  await refused(ggufBytes({ tensors: [tensor({}), tensor({})] }).bytes, /"t" is there twice/);
});

test('a string or a header beyond the parser is refused by name', async () => {
  const { bytes } = ggufBytes({ pairs: [['k', 'string', 'x'.repeat(1_600_000)]] });
  await refused(bytes, /metadata "k" holds a string of 1600000 bytes/);
});

for (const name of listData('models').filter((file) => file.endsWith('.gguf'))) {
  test(`every tensor of ${name} lies in the file`, async () => {
    const gguf = await openGguf(dataPath('models', name));
    const held = [...gguf.tensors.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    assert.ok(gguf.tensors.size >= 20);
    assert.ok(held > 0.8 * gguf.byteLength && held < gguf.byteLength);
    assert.equal(typeof gguf.metadata['general.architecture'], 'string');
  });
}

test('a real file, cut at many places', {
  skip: skipWithout('demo-model', 'tiny-tales-Q4_K_M.gguf'),
}, async () => {
  const whole = readData('demo-model', 'tiny-tales-Q4_K_M.gguf');
  const gguf = await openGguf(whole);
  assert.equal(gguf.tensors.size, 29);
  const random = new Prng(7);
  const lastByte =
    Math.max(...[...gguf.tensors.values()].map(({ offset, byteLength }) => offset + byteLength)) - 1;
  for (let round = 0; round < 60; round++) {
    const length = round === 0 ? lastByte : random.int(0, round % 2 ? 20_000 : lastByte);
    await assert.rejects(openGguf(new Blob([whole.slice(0, length)])), GgufError, `${length} bytes`);
  }
});
