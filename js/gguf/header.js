/* Walks through a GGUF header without decoding it. Every length is checked against the size of the
 * file before the parser sees a byte, so truncated and hostile files end here, with an error that
 * says what is wrong and where.
 *
 *   "GGUF"  u32 version  u64 n_tensors  u64 n_kv
 *   n_kv       x { string key, u32 type, value }
 *   n_tensors  x { string name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset }
 *   padding to the alignment, then the data; offsets count from its first byte
 *
 * A string is a u64 length and its bytes; an array is u32 type, u64 length and values. All numbers
 * are little-endian. Source: GGUF specification. */

import { GgufError, show } from '../errors.js';
import { readAll } from './bytes.js';
import { HEAD_BYTES, otherFormat } from './not-gguf.js';

/** @typedef {import('./bytes.js').ByteSource} ByteSource */

/**
 * Bytes of a chunk in which the parser reads the file. It cuts strings that cross from one chunk
 * into the next.
 */
export const PARSER_CHUNK = 2_000_000;
/** The parser's own limit. */
const MAX_HEADER_BYTES = 50_000_000;
/** The specification's limit. */
const MAX_KEY_BYTES = 65535;
/** The parser reads at most one chunk ahead of a value. */
const MAX_STRING_BYTES = 1_500_000;
/** GGML's limit. */
const MAX_DIMS = 4;
const MAX_ARRAY_DEPTH = 4;

/** The usual reason why a file ends early, for messages. */
export const INCOMPLETE = '(is the download complete?)';

/**
 * Arrays of at least this many items (vocabularies) are read here: the parser takes seconds for
 * them.
 */
const LARGE_ITEMS = 1024;

/** Bytes of a metadata value by its type; 0 for strings and arrays. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const STRING = 8;
const ARRAY = 9;
/**
 * The smallest key-value pair and tensor description. They bound the counts before any loop over
 * them.
 */
const MIN_KV_BYTES = 8 + 4 + 1;
const MIN_INFO_BYTES = 8 + 4 + 8 + 4 + 8;

/**
 * @typedef {object} HeaderLayout
 * @property {number} version
 * @property {string[]} keys  Keys of the metadata, in file order.
 * @property {{ path: (string | number)[], text: string }[]} cutStrings  Metadata strings that the
 *   parser cuts.
 * @property {LargeArray[]} large  Arrays that are hidden from the parser, in file order.
 * @property {number} hidden  Bytes of the arrays hidden so far: the file's offset minus the
 *   parser's.
 * @property {number[]} infoOffsets  Offset of each tensor description in the file.
 * @property {number} end  Offset after the last tensor description.
 */

/**
 * @typedef {object} LargeArray
 * @property {string} key
 * @property {(string | number | boolean)[]} items
 * @property {number} start  Offset of its length in the file.
 * @property {number} end  Offset after its last item.
 */

/**
 * Readers by type, for the types that fit a JavaScript number.
 * @type {Record<number, (view: DataView, at: number) => number | boolean>}
 */
const READERS = {
  0: (view, at) => view.getUint8(at),
  1: (view, at) => view.getInt8(at),
  2: (view, at) => view.getUint16(at, true),
  3: (view, at) => view.getInt16(at, true),
  4: (view, at) => view.getUint32(at, true),
  5: (view, at) => view.getInt32(at, true),
  6: (view, at) => view.getFloat32(at, true),
  7: (view, at) => view.getUint8(at) !== 0,
};

/** The bytes of a header, read from the source as far as they are needed. */
export class HeaderReader {
  #source;
  #signal;
  #step;
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  at = 0;

  /**
   * @param {ByteSource} source
   * @param {AbortSignal} [signal]
   * @param {number} [step]  bytes to read at a time
   */
  constructor(source, signal, step = PARSER_CHUNK) {
    this.#source = source;
    this.#step = step;
    this.#signal = signal;
  }

  get size() {
    return this.#source.size;
  }

  /**
   * @param {string} message
   * @param {number} [offset]
   * @param {{ got?: number, expected?: number }} [numbers]
   */
  error(message, offset = this.at, numbers = {}) {
    return new GgufError(`${this.#source.name}: ${message}, at offset ${offset}`, { offset, ...numbers });
  }

  /**
   * Makes sure that the next nBytes are in memory.
   * @param {number} nBytes
   * @param {() => string} what  the thing that needs them, for messages
   * @throws {GgufError} the file or the largest header ends before
   */
  async need(nBytes, what) {
    const end = this.at + nBytes;
    if (end <= this.#bytes.length) return;
    if (end > this.size)
      throw this.error(
        `the file ends at ${this.size} bytes, but ${what()} needs ${nBytes} bytes ${INCOMPLETE}`,
        this.at,
        { got: this.size, expected: end },
      );
    if (end > MAX_HEADER_BYTES)
      throw this.error(`the header is larger than ${MAX_HEADER_BYTES} bytes in ${what()}`);
    await this.#fill(end);
  }

  /**
   * The header as the parser gets it: the large arrays are empty.
   * @param {HeaderLayout} layout
   * @returns {Uint8Array<ArrayBuffer>}
   */
  plain({ large, hidden, end }) {
    const plain = new Uint8Array(end - hidden);
    let [from, to] = [0, 0];
    for (const { start, end: next } of [...large, { start: end, end }]) {
      plain.set(this.#bytes.subarray(from, start), to);
      // The 8 bytes of the array's length stay zero.
      to += start - from + 8;
      from = next;
    }
    return plain;
  }

  /**
   * The first nBytes of the file, or fewer if the file is shorter.
   * @param {number} nBytes
   */
  async head(nBytes) {
    const end = Math.min(nBytes, this.size);
    if (end > this.#bytes.length) await this.#fill(end);
    return this.#bytes.subarray(0, end);
  }

  /** @param {number} end */
  async #fill(end) {
    const have = this.#bytes.length;
    const upTo = Math.min(this.size, Math.ceil(end / this.#step) * this.#step);
    const bytes = new Uint8Array(upTo);
    bytes.set(this.#bytes);
    bytes.set(await readAll(this.#source, have, upTo - have, this.#signal), have);
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }

  /** Reads a u32; call need(4) first. */
  u32() {
    const value = this.#view.getUint32(this.at, true);
    this.at += 4;
    return value;
  }

  /** Reads a u64; call need(8) first. @param {() => string} what */
  u64(what) {
    const value = this.#view.getBigUint64(this.at, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.error(`${what()} is ${value}`);
    this.at += 8;
    return Number(value);
  }

  /**
   * Skips a string. Returns false, and skips nothing, if it is not in memory or crosses a chunk of
   * the parser.
   * @param {number} hidden
   */
  skipPlainString(hidden) {
    const start = this.at + 8;
    const end = this.#stringEnd();
    if (end === undefined || crossesChunk(start - hidden, end - hidden)) return false;
    this.at = end;
    return true;
  }

  /** Reads a string; undefined if it is not in memory. */
  plainString() {
    const start = this.at + 8;
    const end = this.#stringEnd();
    if (end === undefined) return undefined;
    this.at = end;
    return this.#decoder.decode(this.#bytes.subarray(start, end));
  }

  /** Reads n numbers; call need() for all of them first. @param {number} type @param {number} n */
  numbers(type, n) {
    const [read, size, start] = [READERS[type], VALUE_BYTES[type], this.at];
    this.at += n * size;
    return Array.from({ length: n }, (_, i) => read(this.#view, start + i * size));
  }

  /** Offset after the string here; undefined if it is not in memory with its length. */
  #stringEnd() {
    const start = this.at + 8;
    if (start > this.#bytes.length || this.#view.getUint32(this.at + 4, true) !== 0) return undefined;
    const end = start + this.#view.getUint32(this.at, true);
    return end > this.#bytes.length ? undefined : end;
  }

  /** Reads nBytes of text; call need(nBytes) first. @param {number} nBytes */
  text(nBytes) {
    const text = this.#decoder.decode(this.#bytes.subarray(this.at, this.at + nBytes));
    this.at += nBytes;
    return text;
  }
}

/**
 * Checks the whole header and finds where its pieces are.
 * @param {HeaderReader} reader  at the start of the file
 * @returns {Promise<HeaderLayout>}
 * @throws {GgufError}
 */
export async function walkHeader(reader) {
  await checkMagic(reader);
  await reader.need(24, () => 'the fixed part of the header');
  reader.at = 4;
  const version = reader.u32();
  if ((version & 0xffff) === 0 && version !== 0)
    throw reader.error('the file is big-endian, which is not supported', 4);
  if (version !== 2 && version !== 3)
    throw reader.error(`GGUF version ${version} is not supported; 2 and 3 are`, 4);
  const nTensors = await count(reader, 'tensors', MIN_INFO_BYTES);
  const nPairs = await count(reader, 'metadata pairs', MIN_KV_BYTES);

  /** @type {HeaderLayout} */
  const layout = { version, keys: [], cutStrings: [], large: [], hidden: 0, infoOffsets: [], end: 0 };
  const seen = new Set();
  for (let i = 0; i < nPairs; i++) {
    const start = reader.at;
    const key = await shortString(reader, () => `the key of metadata pair ${i}`);
    if (seen.has(key)) throw reader.error(`metadata key ${show(key)} is there twice`, start);
    // Assigning to this name would replace the prototype of the metadata object.
    if (key === '__proto__') throw reader.error(`metadata key ${show(key)} is not allowed`, start);
    seen.add(key);
    layout.keys.push(key);
    const what = () => `metadata ${show(key)}`;
    await reader.need(4, what);
    await skipValue(reader, { type: reader.u32(), path: [key], what, layout });
  }
  for (let i = 0; i < nTensors; i++) {
    layout.infoOffsets.push(reader.at);
    const name = await shortString(reader, () => `the name of tensor ${i}`);
    const what = () => `the description of tensor ${show(name)}`;
    await reader.need(4, what);
    const nDims = reader.u32();
    if (nDims < 1 || nDims > MAX_DIMS)
      throw reader.error(`tensor ${show(name)} has ${nDims} dimensions, not 1 to ${MAX_DIMS}`, reader.at - 4);
    await reader.need(nDims * 8 + 12, what);
    reader.at += nDims * 8 + 12;
  }
  layout.end = reader.at;
  return layout;
}

/**
 * Refuses a file that does not start with "GGUF", and names its format where it is known.
 * @param {HeaderReader} reader
 */
async function checkMagic(reader) {
  const head = await reader.head(HEAD_BYTES);
  const magic = String.fromCharCode(...head.subarray(0, 4));
  if (magic === 'GGUF') return;
  // A file cut inside these four letters counts as truncated.
  if (head.length > 0 && head.length < 4 && 'GGUF'.startsWith(magic)) return;
  const what = otherFormat(head, reader.size);
  const ends = reader.size < 24 ? `; the file ends at ${reader.size} bytes` : '';
  throw reader.error(
    `this is no GGUF file: it does not start with "GGUF"${what ? `, it is ${what}` : ''}${ends}`,
    0,
  );
}

/**
 * Reads a count of things that take at least minBytes each, and checks that they fit the file.
 * @param {HeaderReader} reader
 * @param {string} things
 * @param {number} minBytes
 */
async function count(reader, things, minBytes) {
  const at = reader.at;
  const n = reader.u64(() => `the number of ${things}`);
  if (n * minBytes > reader.size - at) {
    throw reader.error(`${n} ${things} do not fit into a file of ${reader.size} bytes`, at);
  }
  return n;
}

/**
 * @param {HeaderReader} reader
 * @param {() => string} what
 */
async function shortString(reader, what) {
  await reader.need(8, what);
  const nBytes = reader.u64(() => `the length of ${what()}`);
  if (nBytes > MAX_KEY_BYTES)
    throw reader.error(`${what()} has ${nBytes} bytes, more than ${MAX_KEY_BYTES}`, reader.at - 8);
  await reader.need(nBytes, what);
  return reader.text(nBytes);
}

/**
 * @param {HeaderReader} reader
 * @param {{ type: number, path: (string | number)[], what: () => string, layout: HeaderLayout }}
 *   value
 */
async function skipValue(reader, { type, path, what, layout }) {
  const nBytes = VALUE_BYTES[type];
  if (nBytes === undefined) throw reader.error(`${what()} has the unknown type ${type}`, reader.at - 4);
  if (type === STRING) return skipString(reader, path, what, layout);
  if (type !== ARRAY) {
    await reader.need(nBytes, what);
    reader.at += nBytes;
    return;
  }
  if (path.length > MAX_ARRAY_DEPTH)
    throw reader.error(`${what()} holds arrays deeper than ${MAX_ARRAY_DEPTH}`);
  await reader.need(12, what);
  const itemType = reader.u32();
  const at = reader.at;
  const nItems = reader.u64(() => `the length of ${what()}`);
  const itemBytes = VALUE_BYTES[itemType];
  if (itemBytes === undefined)
    throw reader.error(`${what()} has items of the unknown type ${itemType}`, at - 4);
  // A string takes at least its length, an array its type and length.
  if (nItems * (itemBytes || (itemType === STRING ? 8 : 12)) > reader.size - reader.at) {
    throw reader.error(
      `${what()} has ${nItems} items, which do not fit into a file of ${reader.size} bytes`,
      at,
    );
  }
  const isLarge = nItems >= LARGE_ITEMS && path.length === 1;
  if (isLarge && (itemType === STRING || itemType in READERS)) {
    const items = await readItems(reader, itemType, nItems, what);
    layout.large.push({ key: String(path[0]), items, start: at, end: reader.at });
    layout.hidden += reader.at - at - 8;
    return;
  }
  if (itemBytes > 0) {
    await reader.need(nItems * itemBytes, what);
    reader.at += nItems * itemBytes;
    return;
  }
  for (let i = 0; i < nItems; i++) {
    if (itemType !== STRING) await skipValue(reader, { type: itemType, path: [...path, i], what, layout });
    else if (!reader.skipPlainString(layout.hidden)) await skipString(reader, [...path, i], what, layout);
  }
}

/**
 * @param {HeaderReader} reader
 * @param {number} type
 * @param {number} n  a number of items that fits the file
 * @param {() => string} what
 */
async function readItems(reader, type, n, what) {
  if (type !== STRING) {
    await reader.need(n * VALUE_BYTES[type], what);
    return reader.numbers(type, n);
  }
  const items = [];
  for (let i = 0; i < n; i++) items.push(reader.plainString() ?? (await readString(reader, what)));
  return items;
}

/** @param {HeaderReader} reader @param {() => string} what */
async function stringLength(reader, what) {
  await reader.need(8, what);
  const nBytes = reader.u64(() => `the length of a string of ${what()}`);
  if (nBytes > MAX_STRING_BYTES && nBytes <= reader.size - reader.at) {
    throw reader.error(
      `${what()} holds a string of ${nBytes} bytes, more than ${MAX_STRING_BYTES}`,
      reader.at - 8,
    );
  }
  return nBytes;
}

/** @param {HeaderReader} reader @param {() => string} what */
async function readString(reader, what) {
  const nBytes = await stringLength(reader, what);
  await reader.need(nBytes, what);
  return reader.text(nBytes);
}

/**
 * @param {HeaderReader} reader
 * @param {(string | number)[]} path
 * @param {() => string} what
 * @param {HeaderLayout} layout
 */
async function skipString(reader, path, what, layout) {
  const nBytes = await stringLength(reader, what);
  await reader.need(nBytes, what);
  const start = reader.at;
  const ahead = start - layout.hidden;
  if (crossesChunk(ahead, ahead + nBytes)) {
    layout.cutStrings.push({ path, text: reader.text(nBytes) });
  } else {
    reader.at += nBytes;
  }
}

/**
 * Tells whether the parser would have the string's length but not all of its bytes in memory: it
 * fetches the next chunk only to complete a number.
 * @param {number} start
 * @param {number} end
 */
function crossesChunk(start, end) {
  return Math.floor((start - 1) / PARSER_CHUNK) !== Math.floor((end - 1) / PARSER_CHUNK);
}
