/**
 * Large arrays in a header, such as vocabularies: they are read correctly wherever they and the
 * following values lie.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GgufError, openGguf } from '../../js/index.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { Prng } from '../helpers/prng.js';

/** @import { Pair } from '../helpers/gguf-bytes.js' */

const CHUNK = 2_000_000;

/** @param {Prng} prng @param {number} n @param {number} longest */
const texts = (prng, n, longest) =>
  Array.from({ length: n }, () =>
    prng.pick(['a', 'é', '▁', '🚀', '\ufeffx', '']).repeat(prng.int(0, longest)),
  );

test('gguf: arrays of every type, large and small, are what was written', async () => {
  const prng = new Prng(1);
  for (const n of [1023, 1024, 5000]) {
    /** @type {Record<string, any[]>} */
    const arrays = {
      u8: Array.from({ length: n }, () => prng.int(0, 255)),
      i8: Array.from({ length: n }, () => prng.int(-128, 127)),
      u16: Array.from({ length: n }, () => prng.int(0, 65535)),
      i16: Array.from({ length: n }, () => prng.int(-32768, 32767)),
      u32: Array.from({ length: n }, () => prng.u32()),
      i32: Array.from({ length: n }, () => prng.u32() | 0),
      f32: Array.from({ length: n }, () => Math.fround(prng.gaussian())),
      bool: Array.from({ length: n }, () => prng.unit() < 0.5),
      u64: Array.from({ length: n }, () => prng.int(0, 2 ** 40)),
      f64: Array.from({ length: n }, () => prng.gaussian()),
      string: texts(prng, n, 20),
    };
    const pairs = Object.entries(arrays).flatMap(
      ([of, items]) =>
        /** @type {Pair[]} */ ([
          [`array.${of}`, 'array', { of, items }],
          [`after.${of}`, 'string', `after ${of}`],
        ]),
    );
    const { metadata, tensors } = await openGguf(
      ggufBytes({ pairs, tensors: [{ name: 't', typeId: 0, shape: [4], data: new Uint8Array(16) }] }).bytes,
    );
    // The parser drops a byte order mark from strings that it reads itself; other strings keep it.
    for (const [of, items] of Object.entries(arrays)) {
      const expected = of === 'string' && n < 1024 ? items.map((text) => text.replace(/^\ufeff/, '')) : items;
      assert.deepEqual(metadata[`array.${of}`], expected, `${n} of ${of}`);
      assert.equal(metadata[`after.${of}`], `after ${of}`);
    }
    assert.deepEqual(
      Object.keys(metadata),
      pairs.map(([key]) => key),
    );
    assert.equal(tensors.size, 1);
  }
});

test('gguf: large arrays before and after the ends of the chunks that the parser reads', async () => {
  const prng = new Prng(2);
  for (let i = 0; i < 12; i++) {
    const filler = (/** @type {number} */ bytes) => 'x'.repeat(bytes);
    // Short strings and small arrays around the borders of chunks, in the file and in the parser's
    // view.
    const small = texts(prng, 40, 40).map((text) => text.replaceAll('\ufeff', ''));
    const large = texts(prng, 20_000, 30);
    const numbers = Array.from({ length: 30_000 }, (_, j) => j);
    /** @type {Pair[]} */
    const pairs = [
      ['one', 'string', filler(prng.int(0, 1_400_000))],
      ['large.1', 'array', { of: 'string', items: large }],
      ['two', 'string', filler(CHUNK - 1_400_000 - prng.int(0, 200))],
      ['small.1', 'array', { of: 'string', items: small }],
      ['large.2', 'array', { of: 'i32', items: numbers }],
      ['three', 'string', filler(prng.int(1_000_000, 1_400_000))],
      ['small.2', 'array', { of: 'string', items: small }],
      ['end', 'string', 'here'],
    ];
    const { metadata } = await openGguf(ggufBytes({ pairs }).bytes);
    for (const [key, , value] of pairs) {
      const expected = typeof value === 'string' ? value : value.items;
      assert.ok(
        typeof expected === 'string'
          ? metadata[key] === expected
          : JSON.stringify(metadata[key]) === JSON.stringify(expected),
        `${key}, file ${i}`,
      );
    }
  }
});

test('gguf: large arrays that the file does not hold', async () => {
  const { bytes } = ggufBytes({
    pairs: [['a', 'array', { of: 'string', items: texts(new Prng(3), 3000, 9) }]],
  });
  for (const at of [24 + 9 + 8 + 4, 200, 5000]) {
    await assert.rejects(openGguf(bytes.slice(0, at)), GgufError);
  }
  const hostile = bytes.slice();
  // The length of the first string.
  new DataView(hostile.buffer).setBigUint64(24 + 9 + 4 + 4 + 8, 2n ** 40n, true);
  await assert.rejects(
    openGguf(hostile),
    (error) => error instanceof GgufError && /1099511627776/.test(error.message),
  );
});
