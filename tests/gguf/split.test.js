/**
 * Models that gguf-split has cut into parts: opened from their first part or a list, and refused
 * with the name of the wrong part.
 */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { firstPartOf, parsePartName } from '../../js/gguf/split.js';
import { ArgumentError, openGguf } from '../../js/index.js';
import { Llama } from '../../js/llama/index.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import {
  content,
  dataOf,
  inFolder,
  isWhole,
  names,
  pairs,
  partName,
  refusal,
  serveParts,
  shuffled,
  splitGguf,
  tensors,
  UNEVEN_2,
  UNEVEN_5,
  withKey,
} from '../helpers/split-gguf.js';

/** @import { Content, PartFile } from '../helpers/split-gguf.js' */
/** @import { Pair } from '../helpers/gguf-bytes.js' */

for (const sizes of [UNEVEN_2, UNEVEN_5]) {
  test(`${sizes.length} parts: by path, URL, and lists of all kinds in any order`, async (t) => {
    const files = splitGguf(content, sizes);
    const folder = await inFolder(t, files);
    const server = await serveParts(t, files);
    const [first] = files;
    const path = join(folder, first.name);
    const mixed = shuffled(files).map(({ name, bytes }, i) =>
      [bytes, new File([bytes], name), join(folder, name), new URL(server.url(name)), new Blob([bytes])].at(
        i,
      ),
    );
    const sources = {
      path,
      'file: URL': pathToFileURL(path),
      'file: string': pathToFileURL(path).href,
      'http string': server.url(first.name),
      'http URL': new URL(server.url(first.name)),
      'list of the first path': [path],
      'list of URLs': shuffled(files).map(({ name }) => server.url(name)),
      'list of paths': shuffled(files).map(({ name }) => join(folder, name)),
      'list of Files': shuffled(files).map(({ name, bytes }) => new File([bytes], name)),
      'list of Blobs': shuffled(files).map(({ bytes }) => new Blob([bytes])),
      'list of bytes': shuffled(files).map(({ bytes }) => bytes),
      'set of buffers': new Set(files.map(({ bytes }) => bytes.buffer)),
      'list of all kinds': /** @type {any[]} */ (mixed),
    };
    for (const [kind, source] of Object.entries(sources)) await isWhole(await openGguf(source), files, kind);
  });
}

test('parts, their places, and the tensors in them', async () => {
  const files = splitGguf(content, UNEVEN_5);
  const gguf = await openGguf(files.map(({ name, bytes }) => new File([bytes], name)));
  let offset = 0;
  assert.deepEqual(
    gguf.parts,
    files.map(({ name, bytes }, i) => {
      const part = { name, offset, byteLength: bytes.length, nTensors: UNEVEN_5[i] };
      offset += bytes.length;
      return part;
    }),
  );
  assert.deepEqual(
    names.map((name) => gguf.tensor(name).part),
    UNEVEN_5.flatMap((size, part) => Array.from({ length: size }, () => part)),
  );
  const { offset: at, part = 0 } = gguf.tensor('t6');
  const own = await openGguf(ggufBytes({ tensors: tensors.slice(5, 6) }).bytes);
  assert.equal(own.parts.length, 1);
  assert.equal('part' in own.tensor('t5'), false);
  const before = at - gguf.parts[part].offset;
  assert.deepEqual(files[part].bytes.subarray(before, before + 7168), dataOf(6));
});

test('a first part of metadata only, alignments of their own, and a merged file', async (t) => {
  const files = splitGguf(content, [0, 4, 5], {
    change: ({ pairs }, at) =>
      at === 2 ? { pairs: [...pairs, ['general.alignment', 'u32', 256]], ...{ alignment: 256 } } : {},
  });
  const folder = await inFolder(t, files);
  const gguf = await openGguf(join(folder, files[0].name));
  assert.equal(gguf.alignment, 32);
  await isWhole(gguf, files, 'metadata only');
  for (const count of [0, 1]) {
    /** @type {Pair[]} */
    const keys = [
      ...pairs,
      ['split.no', 'u16', 0],
      ['split.count', 'u16', count],
      ['split.tensors.count', 'i32', 9],
    ];
    const whole = await openGguf(ggufBytes({ pairs: keys, tensors }).bytes);
    assert.equal(whole.tensors.size, 9);
  }
});

test('the query of an address is kept, and a list takes addresses without numbers', async (t) => {
  const files = splitGguf(content, UNEVEN_5, { stem: 'dir of%/a-00001-of-00003.gguf' }).map((file) => ({
    ...file,
    name: encodeURI(file.name).replace('%25', '%25'),
  }));
  const server = await serveParts(t, files);
  const query = '?sig=a%2Fb-00009-of-00009.gguf&x=1#part-00002-of-00005.gguf';
  await isWhole(await openGguf(server.url(files[0].name) + query), files, 'signed');
  const signed = query.replace(/#.*/, '');
  assert.deepEqual(new Set(server.asked), new Set(files.map(({ name }) => `/${name}${signed}`)));

  const hashed = files.map(({ bytes }, i) => ({ name: `blob/${'abcde'[i]}`, bytes }));
  const other = await serveParts(t, hashed);
  await isWhole(await openGguf(shuffled(hashed).map(({ name }) => other.url(name))), hashed, 'hashed');
  await assert.rejects(openGguf(other.url('blob/a')), refusal(/blob\/a: this is part 1 of 5.*give all 5/));
});

test('names of parts', () => {
  const name = 'https://h/a/m-00002-of-00005.gguf?k=1#x';
  assert.deepEqual(parsePartName(name), {
    stem: 'https://h/a/m',
    number: 2,
    count: 5,
    ending: '.gguf?k=1#x',
  });
  assert.equal(firstPartOf(name), 'https://h/a/m-00001-of-00005.gguf?k=1#x');
  assert.equal(parsePartName('a?b/m#-00001-of-00002.GGUF')?.stem, 'a?b/m#', 'a path may have any letters');
  for (const other of [
    'm-1-of-2.gguf',
    'm-00000-of-00002.gguf',
    'm-00003-of-00002.gguf',
    'm-00001-of-00002.bin',
  ])
    assert.equal(parsePartName(other), undefined, other);
  assert.equal(
    firstPartOf('https://h/x.gguf?f=m-00002-of-00005.gguf'),
    'https://h/x.gguf?f=m-00002-of-00005.gguf',
  );
});

test('a part alone names itself and what to open', async (t) => {
  const files = splitGguf(content, UNEVEN_5);
  const folder = await inFolder(t, files);
  const server = await serveParts(t, files);
  const second = refusal(/part 2 of 5: open the first, "model-00001-of-00005\.gguf"/);
  await assert.rejects(openGguf(join(folder, files[1].name)), second);
  await assert.rejects(openGguf(server.url(files[1].name)), second);
  await assert.rejects(openGguf(new File([files[1].bytes], files[1].name)), second);
  for (const source of [files[1].bytes, new Blob([files[1].bytes])])
    await assert.rejects(openGguf(source), refusal(/^the given (bytes|Blob): .*part 2 of 5: open the first/));
  for (const source of [files[0].bytes, new File([files[0].bytes], files[0].name)])
    await assert.rejects(openGguf(source), refusal(/part 1 of 5: give all 5 parts as a list/));
  await assert.rejects(Llama.load(files[3].bytes), refusal(/part 4 of 5: open the first/));
});

test('a part that is missing is named', async (t) => {
  const files = splitGguf(content, UNEVEN_5);
  const folder = await inFolder(t, files);
  await rm(join(folder, files[2].name));
  await assert.rejects(
    openGguf(join(folder, files[0].name)),
    refusal(/^part 3 of 5 cannot be opened: .*model-00003-of-00005\.gguf: ENOENT/),
  );
  const server = await serveParts(t, files.toSpliced(3, 1));
  await assert.rejects(
    openGguf(server.url(files[0].name)),
    refusal(/^part 4 of 5 cannot be opened: .*model-00004-of-00005\.gguf: HTTP 404/),
  );
  const list = files.toSpliced(1, 1).map(({ name, bytes }) => new File([bytes], name));
  await assert.rejects(
    openGguf(list),
    refusal(/^part 2 of 5 is missing from the list \("model-00002-of-00005\.gguf"\): it has 4/),
  );
  await assert.rejects(
    openGguf(files.slice(1, 3).map(({ bytes }) => bytes)),
    refusal(/^parts 1, 4, 5 of 5 are missing from the list: it has 2/),
  );
  await assert.rejects(
    openGguf([join(folder, files[0].name), join(folder, files[2].name)]),
    refusal(/^item 2 of 2 cannot be opened: .*00003-of-00005\.gguf: ENOENT/),
  );
});

test('numbers that disagree, foreign parts, parts given twice', async (t) => {
  /** @param {(part: Content, at: number) => Partial<Content> | void} change */
  const changed = (change) => splitGguf(content, [4, 3, 2], { change });
  const third = (/** @type {string} */ key, /** @type {any} */ value) =>
    changed(({ pairs }, at) => (at === 2 ? { pairs: withKey(pairs, key, value) } : {}));
  const good = splitGguf(content, [4, 3, 2]);
  /** The same number of tensors, with different names. */
  const other = splitGguf(
    { pairs, tensors: tensors.map((tensor) => ({ ...tensor, name: `o${tensor.name}` })) },
    [4, 3, 2],
    { change: ({ pairs }, at) => (at === 2 ? { pairs: withKey(pairs, 'split.tensors.count', 10) } : {}) },
  );
  const name3 = /model-00003-of-00003\.gguf/.source;
  /**
   * Wrong sets of parts, and the error for a folder or a list of Files with them.
   * @type {[string, PartFile[], RegExp][]}
   */
  const cases = [
    ['another number', third('split.no', 1), new RegExp(`${name3}.*part 3 of 3.*part 2 of 3`)],
    ['beyond the count', third('split.no', 3), new RegExp(`${name3}.*split.no is 3.*split.count is 3`)],
    ['another count', third('split.count', 4), new RegExp(`${name3}.*part 3 of 3.*part 3 of 4`)],
    ['no number', third('split.no', undefined), new RegExp(`${name3}.*no split\\.no`)],
    [
      'another total',
      third('split.tensors.count', 8),
      new RegExp(`${name3}.*has 8 tensors.*the first part 9`),
    ],
    ['another model', good.with(2, other[2]), new RegExp(`${name3}.*has 10 tensors.*the first part 9`)],
    [
      'a file that is whole',
      good.with(2, { name: good[2].name, bytes: ggufBytes({ pairs, tensors }).bytes }),
      new RegExp(`${name3}.*no part of a split model`),
    ],
    [
      'another architecture',
      changed(({ pairs }, at) =>
        at === 2 ? { pairs: [...pairs, ['general.architecture', 'string', 'qwen2']] } : {},
      ),
      new RegExp(`${name3}.*"qwen2".*"llama"`),
    ],
    [
      'a tensor twice',
      changed(({ tensors }, at) =>
        at === 2 ? { tensors: [tensors[0], { ...tensors[1], name: 't1' }] } : {},
      ),
      new RegExp(`${name3}.*tensor "t1".*part 1 too`),
    ],
    [
      'a tensor too few',
      changed(({ tensors }, at) => (at === 2 ? { tensors: tensors.slice(1) } : {})),
      /3 parts of .*have 8 tensors together, but 9/,
    ],
    [
      'no total',
      changed(({ pairs }, at) => (at === 0 ? { pairs: withKey(pairs, 'split.tensors.count') } : {})),
      /model-00001-of-00003\.gguf.*no split\.tensors\.count/,
    ],
    [
      'a truncated part',
      good.with(2, { name: good[2].name, bytes: good[2].bytes.slice(0, -5) }),
      new RegExp(`(part 3 of 3|item 3 of 3) .*${name3}.*tensor "t8".*the file ends at`),
    ],
    [
      'a cut header',
      good.with(1, { name: good[1].name, bytes: good[1].bytes.slice(0, 70) }),
      /(part 2 of 3|item 2 of 3) .*model-00002-of-00003\.gguf.*a file of 70 bytes/,
    ],
    [
      'no GGUF',
      good.with(1, { name: good[1].name, bytes: new Uint8Array(Buffer.from('<html>'.repeat(20))) }),
      /(part 2 of 3|item 2 of 3) .*model-00002-of-00003\.gguf.*no GGUF/,
    ],
  ];
  for (const [what, files, message] of cases) {
    const folder = await inFolder(t, files);
    await assert.rejects(openGguf(join(folder, files[0].name)), refusal(message), `${what}, by path`);
    const list = files.map(({ name, bytes }) => new File([bytes], name));
    await assert.rejects(openGguf(list), refusal(message), `${what}, as a list`);
  }
  const bytes = good.map((file) => file.bytes);
  await assert.rejects(
    openGguf([bytes[0], bytes[1], bytes[1]]),
    refusal(/item 2 of 3 and item 3 of 3 are both part 2 of 3/),
  );
  await assert.rejects(openGguf([...bytes, bytes[0]]), refusal(/are both part 1 of 3/));
  await assert.rejects(
    openGguf([bytes[0], ggufBytes(content).bytes]),
    refusal(/^item 2 of 2: .*no part of a split model/),
  );
  const four = splitGguf(content, [2, 3, 2, 2]);
  await assert.rejects(
    openGguf([bytes[0], bytes[1], four[2].bytes]),
    refusal(/^item 3 of 3: .*part 3 of 4.*of 3: it belongs to another/),
  );
  await assert.rejects(
    openGguf(good.map((file, i) => new File([file.bytes], i === 1 ? partName(2, 3, 'other') : file.name))),
    refusal(/other-00002-of-00003\.gguf.*another model than model-00001-of-00003\.gguf/),
  );
  for (const [key, value] of /** @type {[string, any][]} */ ([
    ['split.count', ['split.count', 'string', 'x']],
    ['split.no', ['split.no', 'f32', 0.5]],
    ['split.tensors.count', ['split.tensors.count', 'i64', -1]],
  ])) {
    const [{ bytes: odd }] = changed(({ pairs }) => ({ pairs: [...withKey(pairs, key), value] }));
    await assert.rejects(openGguf([odd, bytes[1], bytes[2]]), refusal(new RegExp(`"${key}" is`)));
  }
  await assert.rejects(openGguf([]), ArgumentError);
  await assert.rejects(openGguf(/** @type {any} */ ([bytes[0], 5])), ArgumentError);
});
