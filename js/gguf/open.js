/* Opens GGUF files. @huggingface/gguf parses the header; every offset and size is checked against
 * the size of the file. */

import { gguf } from '../../dist/gguf-parser.js';
import { checkNames } from '../checks.js';
import { GgufError, show } from '../errors.js';
import { findType, weightBytes } from '../types.js';
import { readAll } from './bytes.js';
import { GgufFile } from './file.js';
import { HeaderReader, INCOMPLETE, PARSER_CHUNK, walkHeader } from './header.js';
import { openSource } from './source.js';
import { describeParts, joinHeaders, joinSources, openAll } from './split.js';

/** @typedef {import('./file.js').GgufTensor} GgufTensor */
/** @typedef {import('./file.js').MetadataValue} MetadataValue */
/** @typedef {Awaited<ReturnType<typeof gguf>>} Parsed */

const DEFAULT_ALIGNMENT = 32;

const READ_OPTIONS = ['signal'];
const OPEN_OPTIONS = ['signal', 'fetch', 'headers', 'retries', 'retryDelay', 'timeout', 'cache'];

/**
 * Opens a file, or all parts of a split model, and checks the headers.
 * @param {import('./source.js').GgufSource} source
 * @param {import('./index.js').OpenOptions} options
 * @returns {Promise<GgufFile>}
 */
export async function open(source, options) {
  checkNames(options, OPEN_OPTIONS);
  options.signal?.throwIfAborted();
  const files = await openAll(source, options, openFile);
  const bytes = joinSources(files.map(({ bytes }) => bytes));
  return makeFile(bytes, joinHeaders(files), describeParts(files));
}

/**
 * Makes a file of a known header; a worker gets the header in a message.
 * @param {import('./bytes.js').ByteSource} bytes
 * @param {import('./file.js').Header} header
 * @param {ReturnType<typeof describeParts>} parts
 */
export const makeFile = (bytes, header, parts) =>
  new GgufFile(bytes, header, { noTensor, read, stream, parts });

/** @type {import('./split.js').OpenFile} */
async function openFile(source, options, { name, firstBytes }) {
  const { signal } = options;
  const bytes = await openSource(source, { ...options, ...(firstBytes && { firstBytes }) }, name);
  const reader = new HeaderReader(bytes, signal, firstBytes);
  const layout = await walkHeader(reader);
  const parsed = await parse(reader.plain(layout));
  signal?.throwIfAborted();
  if (parsed.tensorInfos.length !== layout.infoOffsets.length) {
    throw reader.error(
      `the parser found ${parsed.tensorInfos.length} tensors of ${layout.infoOffsets.length}`,
      layout.end,
    );
  }
  const metadata = plainMetadata(parsed.metadata, layout);
  const alignment = alignmentOf(metadata, reader);
  const tensors = checkTensors(parsed.tensorInfos, { reader, layout, alignment });
  return { bytes, header: { version: layout.version, alignment, metadata, tensors } };
}

/** GgufFile.read. @type {import('./file.js').Tools['read']} */
function read({ offset, byteLength }, source, options) {
  checkNames(options, READ_OPTIONS);
  return readAll(source, offset, byteLength, options.signal);
}

/** GgufFile.stream. @type {import('./file.js').Tools['stream']} */
function stream({ offset, byteLength }, source, options) {
  checkNames(options, READ_OPTIONS);
  return source.stream(offset, byteLength, options.signal);
}

/**
 * Runs the parser. It takes a URL and a fetch function; here the function returns the header, and
 * nothing is requested.
 * @param {Uint8Array<ArrayBuffer>} header
 * @returns {Promise<Parsed>}
 */
async function parse(header) {
  let start = 0;
  /** @type {typeof globalThis.fetch} */
  const fetchChunk = async () => {
    const chunk = header.subarray(start, start + PARSER_CHUNK);
    start += PARSER_CHUNK;
    return new Response(chunk);
  };
  try {
    return await gguf('http://gguf.invalid/', { fetch: fetchChunk });
  } catch (cause) {
    if (cause instanceof GgufError) throw cause;
    throw new GgufError(
      `the header is refused by the parser: ${cause instanceof Error ? cause.message : cause}`,
      { cause },
    );
  }
}

/**
 * @param {Record<string, unknown>} parsed
 * @param {import('./header.js').HeaderLayout} layout
 * @returns {Record<string, MetadataValue>}
 */
function plainMetadata(parsed, { keys, cutStrings, large }) {
  /** @type {any} */
  const metadata = {};
  for (const key of keys) metadata[key] = plainValue(parsed[key]);
  for (const { key, items } of large) metadata[key] = items;
  for (const { path, text } of cutStrings) {
    let holder = metadata;
    for (const step of path.slice(0, -1)) holder = holder[step];
    holder[path[path.length - 1]] = text;
  }
  return metadata;
}

/** @param {any} value @returns {MetadataValue} */
function plainValue(value) {
  if (Array.isArray(value)) {
    const first = typeof value[0];
    return first === 'bigint' || first === 'object' ? value.map(plainValue) : value;
  }
  return typeof value === 'bigint' && BigInt.asIntN(54, value) === value ? Number(value) : value;
}

/**
 * @param {Record<string, MetadataValue>} metadata
 * @param {HeaderReader} reader
 */
function alignmentOf(metadata, reader) {
  const value = metadata['general.alignment'] ?? DEFAULT_ALIGNMENT;
  if (typeof value !== 'number' || value < 1 || value > 2 ** 31 || !Number.isInteger(Math.log2(value))) {
    throw reader.error(`general.alignment is ${show(value)}, no power of two`);
  }
  return value;
}

/**
 * Checks offsets, sizes and overlaps of all tensors against the file.
 * @param {Parsed['tensorInfos']} infos
 * @param {{ reader: HeaderReader, layout: import('./header.js').HeaderLayout, alignment: number }}
 *   file
 * @returns {Map<string, GgufTensor>}
 */
function checkTensors(infos, { reader, layout, alignment }) {
  const dataOffset = Math.ceil(layout.end / alignment) * alignment;
  /** @type {Map<string, GgufTensor>} */
  const tensors = new Map();
  infos.forEach((info, i) => {
    const tensor = checkTensor(info, {
      alignment,
      dataOffset,
      fileBytes: reader.size,
      infoOffset: layout.infoOffsets[i],
    });
    if (tensors.has(tensor.name)) throw tensorError(tensor.name, layout.infoOffsets[i], 'is there twice');
    tensors.set(tensor.name, tensor);
  });
  const inOrder = [...tensors.values()].sort((a, b) => a.offset - b.offset);
  for (let i = 1; i < inOrder.length; i++) {
    const [before, after] = [inOrder[i - 1], inOrder[i]];
    const end = before.offset + before.byteLength;
    if (end > after.offset) {
      throw tensorError(
        after.name,
        after.offset,
        `starts at ${after.offset}, inside ${show(before.name)}, which ends at ${end}`,
      );
    }
  }
  return tensors;
}

/**
 * @param {Parsed['tensorInfos'][number]} info
 * @param {{ alignment: number, dataOffset: number, fileBytes: number, infoOffset: number }} file
 * @returns {GgufTensor}
 */
function checkTensor({ name, shape, dtype, offset }, { alignment, dataOffset, fileBytes, infoOffset }) {
  const fail = (/** @type {string} */ what, at = infoOffset) => tensorError(name, at, what);
  const type = findType(dtype);
  if (!type) throw fail(`has the unknown type ${dtype}`);
  const nValues = shape.reduce((product, dim) => product * dim, 1n);
  if (nValues === 0n) throw fail(`has an empty dimension: ${shape.join(' x ')}`);
  if (shape[0] % BigInt(type.blockValues) !== 0n) {
    throw fail(
      `has rows of ${shape[0]} values, no multiple of the ${type.blockValues} of a ${type.name} block`,
    );
  }
  const byteLength = (nValues / BigInt(type.blockValues)) * BigInt(type.blockBytes);
  if (offset % BigInt(alignment) !== 0n)
    throw fail(`has the offset ${offset}, no multiple of the alignment ${alignment}`);
  const start = BigInt(dataOffset) + offset;
  if (start + byteLength > BigInt(fileBytes)) {
    throw fail(
      `takes bytes ${start} to ${start + byteLength}, but the file ends at ${fileBytes} ${INCOMPLETE}`,
      Math.min(Number(start), fileBytes),
    );
  }
  // All of these numbers are below the file's size, so they are exact.
  const dims = shape.map(Number);
  const [nCols] = dims;
  const nRows = Number(nValues) / nCols;
  return Object.freeze({
    name,
    type: type.name,
    typeId: type.id,
    shape: Object.freeze(dims),
    nRows,
    nCols,
    offset: Number(start),
    byteLength: weightBytes(type, nRows, nCols),
    supported: type.served,
  });
}

/**
 * @param {string} tensor
 * @param {number} offset
 * @param {string} what
 */
function tensorError(tensor, offset, what) {
  return new GgufError(`tensor ${show(tensor)} ${what} (offset ${offset})`, { tensor, offset });
}

/**
 * @param {GgufFile} gguf
 * @param {string} source  name of the file
 * @param {string} tensor
 */
function noTensor({ tensors }, source, tensor) {
  const near = nearest(tensor, [...tensors.keys()]);
  const hint =
    near.length > 0
      ? `; the nearest of its ${tensors.size} are ${near.map(show).join(', ')}`
      : '; it has none';
  return new GgufError(`${source} has no tensor ${show(tensor)}${hint}`, { tensor });
}

/**
 * Up to three names with the smallest edit distance.
 * @param {string} wanted
 * @param {string[]} names
 */
function nearest(wanted, names) {
  return names
    .map((name) => ({ name, distance: editDistance(wanted, name) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 3)
    .map(({ name }) => name);
}

/**
 * @param {string} a
 * @param {string} b
 */
function editDistance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(next[j] + 1, row[j + 1] + 1, row[j] + (a[i] === b[j] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length];
}
