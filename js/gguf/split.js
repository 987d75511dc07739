/* Models that gguf-split has cut into parts. Each part is a GGUF file. The first part has the
 * metadata of the model; the others may have nothing but tensors and these keys, which all parts
 * have:
 *   split.no             number of the part, from 0 on
 *   split.count          number of parts; 0 or 1 in a file that is not split
 *   split.tensors.count  number of tensors in all parts together
 * Part 1 of 5 is named STEM-00001-of-00005.gguf. Source: gguf-split of llama.cpp.
 *
 * The bytes of the parts are joined into one source, one part after the other, so all code that
 * reads a file can read them. */

import { ArgumentError, GgufError, show } from '../errors.js';
import { isNode } from '../node.js';
import { resolveAddress } from './links.js';

/** @typedef {import('./bytes.js').ByteSource} ByteSource */
/** @typedef {import('./file.js').Header} Header */
/** @typedef {import('./source.js').GgufPart} GgufPart */
/** @typedef {import('./source.js').GgufSource} GgufSource */
/** @typedef {import('./index.js').OpenOptions} OpenOptions */

/**
 * An open GGUF file with its header read and checked.
 * @typedef {{ bytes: ByteSource, header: Header }} OpenedFile
 */

/**
 * @typedef {object} PartOptions
 * @property {string} [name]  Name in messages, for a source that has none of its own.
 * @property {number} [firstBytes]  Bytes to ask for at first, where the header is expected to be
 *   short.
 */

/**
 * @typedef {(source: GgufPart, options: OpenOptions, part: PartOptions) => Promise<OpenedFile>}
 *   OpenFile
 */

/**
 * @typedef {{ no: number | undefined, count: number | undefined, nTensors: number | undefined }}
 *   SplitKeys
 */
/**
 * @typedef {OpenedFile & { name: string, partName: PartName | undefined, keys: SplitKeys }} Part
 */

/** Parts that are opened at a time: browsers allow six connections to a server. */
const OPEN_LIMIT = 4;
/**
 * Bytes to ask for at first: the header of a part without metadata, with a few thousand tensors,
 * fits.
 */
const PART_HEADER = 1 << 18;
/** split.no and split.count are u16. */
const MAX_PARTS = 65535;
/**
 * Most bytes that are held in memory, all parts together, if the server does not support Range
 * requests.
 */
const HELD_LIMIT = 256 * 2 ** 20;
/** Most part numbers listed in a message. */
const MAX_LISTED = 8;

/**
 * The name of a part, cut at its numbers.
 * @typedef {object} PartName
 * @property {string} stem  Address or path up to the numbers.
 * @property {number} number  Number of the part, from 1 on.
 * @property {number} count
 * @property {string} ending  The rest from .gguf on, with the query of an address.
 */

/**
 * Parses the name, path or address of a part; undefined if it is not named like one.
 * @param {string} text
 * @param {boolean} [isName]  whether the text is the name of a file, not an address
 * @returns {PartName | undefined}
 */
export function parsePartName(text, isName = isNode && !/^[a-z][a-z0-9+.-]+:/i.test(text)) {
  const end = isName ? -1 : text.search(/[?#]/);
  const [address, query] = end < 0 ? [text, ''] : [text.slice(0, end), text.slice(end)];
  const match = /^(.*)-(\d{5})-of-(\d{5})(\.gguf)$/is.exec(address);
  if (!match) return undefined;
  const [number, count] = [Number(match[2]), Number(match[3])];
  if (number < 1 || number > count) return undefined;
  return { stem: match[1], number, count, ending: match[4] + query };
}

/** The name of another part. @param {PartName} name @param {number} number */
function siblingOf({ stem, count, ending }, number) {
  const five = (/** @type {number} */ n) => String(n).padStart(5, '0');
  return `${stem}-${five(number)}-of-${five(count)}${ending}`;
}

/**
 * The address of the first part, from the address of any part. Other addresses are returned
 * unchanged.
 * @param {string} address
 * @param {boolean} [isName]  whether it is the name of a file
 */
export function firstPartOf(address, isName = false) {
  const name = parsePartName(address, isName);
  return name ? siblingOf(name, 1) : address;
}

/** The last segment of a path or an address. @param {string} text */
const fileName = (text) => text.replace(/[?#].*$/s, '').replace(/^.*[/\\]/s, '');

/**
 * Opens a file, or all parts of a model: the parts in a list, or those next to the first part.
 * @param {GgufSource} source
 * @param {OpenOptions} options
 * @param {OpenFile} openFile
 * @returns {Promise<OpenedFile[]>} the parts in order, or the one file
 */
export async function openAll(source, options, openFile) {
  const list = (listOf(source) ?? [/** @type {GgufPart} */ (source)]).map(behindLink);
  if (list.length > 1) return openList(list, options, openFile);
  const [only] = list;
  const first = toPart(await openFile(only, options, {}), only);
  const { no, count = 0 } = first.keys;
  if (count <= 1) return [first];
  checkNumbers(first);
  const { name, partName } = first;
  if (no !== 0) {
    const named = partName ? `, ${show(fileName(siblingOf(partName, 1)))}` : '';
    throw new GgufError(
      `${name}: this is part ${Number(no) + 1} of ${count}: open the first${named}, or give all parts as a list`,
    );
  }
  const isAddress = typeof only === 'string' || only instanceof URL;
  if (!partName || !isAddress) {
    const why = isAddress
      ? `, and its name does not tell those of the others, as it would with ${siblingOf({ stem: '', number: 1, count, ending: '.gguf' }, 1)} at its end`
      : '';
    throw new GgufError(`${name}: this is part 1 of ${count}${why}: give all ${count} parts as a list`);
  }
  const address = String(only);
  const known = /** @type {PartName} */ (parsePartName(address));
  const addresses = Array.from({ length: count - 1 }, (_, i) => siblingOf(known, i + 2));
  const others = await openEach(addresses, first.bytes.held ?? 0, options, (path, opening, at) =>
    asPart(at + 2, count, path, async () => {
      const part = toPart(await openFile(path, opening, shortHeader(options)), path);
      checkNumbers(part);
      return part;
    }),
  );
  return checkTogether([first, ...others], count);
}

/**
 * Opens the parts of a list, which may be in any order.
 * @param {GgufPart[]} list
 * @param {OpenOptions} options
 * @param {OpenFile} openFile
 */
async function openList(list, options, openFile) {
  const parts = await openEach(list, 0, options, async (source, opening, at) => {
    const item = `item ${at + 1} of ${list.length}`;
    const named = nameOf(source);
    // Only the first part has a long header. A part whose name has no number may be the first.
    const number = (named && parsePartName(named.text, named.isName)?.number) ?? 1;
    const settings = { name: item, ...(number > 1 ? shortHeader(options) : {}) };
    try {
      return toPart(await openFile(source, opening, settings), source);
    } catch (error) {
      throw naming(error, named?.text ?? item, `${item} cannot be opened`);
    }
  });
  for (const { name, keys } of parts) {
    if (keys.no === undefined)
      throw new GgufError(
        `${name}: this is no part of a split model, as it has no split.no; a list of ${list.length} must hold the parts of one model`,
      );
  }
  const count = parts.find(({ keys }) => keys.no === 0)?.keys.count ?? parts[0].keys.count ?? list.length;
  for (const part of parts) {
    checkNumbers(part);
    checkCount(part, count);
  }
  /** @type {(Part | undefined)[]} */
  const inOrder = Array.from({ length: count });
  for (const part of parts) {
    const no = Number(part.keys.no);
    const other = inOrder[no];
    if (other) throw new GgufError(`${other.name} and ${part.name} are both part ${no + 1} of ${count}`);
    inOrder[no] = part;
  }
  const missing = [...inOrder.keys()].filter((no) => !inOrder[no]);
  if (missing.length > 0) {
    const named = parts.find(({ partName }) => partName)?.partName;
    const what = named
      ? ` (${show(fileName(siblingOf(named, missing[0] + 1)))}${missing.length > 1 ? ', ...' : ''})`
      : '';
    const numbers = missing.slice(0, MAX_LISTED).map((no) => no + 1);
    const [noun, verb] = missing.length > 1 ? ['parts', 'are'] : ['part', 'is'];
    throw new GgufError(
      `${noun} ${numbers.join(', ')}${missing.length > MAX_LISTED ? ', ...' : ''} of ${count} ${verb} missing from the list${what}: it has ${parts.length} of them`,
    );
  }
  return checkTogether(/** @type {Part[]} */ (inOrder), count);
}

/**
 * Opens several sources, a few at a time. A failure ends the others.
 * @template T
 * @param {T[]} sources
 * @param {number} held  bytes of parts that are in memory already
 * @param {OpenOptions} options
 * @param {(source: T, options: OpenOptions, at: number) => Promise<Part>} open
 * @returns {Promise<Part[]>}
 */
async function openEach(sources, held, options, open) {
  const { signal } = options;
  signal?.throwIfAborted();
  const halt = new AbortController();
  const stop = () => halt.abort(signal?.reason);
  signal?.addEventListener('abort', stop);
  /** @type {Part[]} */
  const opened = [];
  let next = 0;
  const openSome = async () => {
    try {
      while (next < sources.length) {
        const at = next++;
        opened[at] = await open(sources[at], { ...options, signal: halt.signal }, at);
        const { bytes } = opened[at];
        held += bytes.held ?? 0;
        if (held > HELD_LIMIT)
          throw new GgufError(
            `${bytes.name}: the server does not answer Range requests, and the parts (${held} bytes so far) are larger than ` +
              `the ${HELD_LIMIT} that are held whole; use a server that does, or pass the parts as Blobs`,
          );
      }
    } catch (error) {
      halt.abort(error);
    }
  };
  // Whole files are opened one at a time: several could exceed the limit by far before it is
  // noticed.
  const nAtOnce = held > 0 ? 1 : Math.min(OPEN_LIMIT, sources.length);
  try {
    await Promise.all(Array.from({ length: nAtOnce }, openSome));
    halt.signal.throwIfAborted();
  } finally {
    signal?.removeEventListener('abort', stop);
  }
  return opened;
}

/** @param {OpenOptions} options @returns {PartOptions} */
// The cache stores blocks of its own size; a shorter first request could not be stored.
const shortHeader = ({ cache }) => (cache ? {} : { firstBytes: PART_HEADER });

/**
 * The items of a list; undefined if the source is not a list.
 * @param {any} source
 * @returns {GgufPart[] | undefined}
 */
function listOf(source) {
  if (typeof source !== 'object' || source === null || ArrayBuffer.isView(source)) return undefined;
  if (typeof source[Symbol.iterator] !== 'function') return undefined;
  /** @type {GgufPart[]} */
  const list = [...source];
  if (list.length > MAX_PARTS || list.length === 0)
    throw new ArgumentError(
      `a list of the parts of a GGUF file must have 1 to ${MAX_PARTS} items, got ${list.length}`,
    );
  return list;
}

/**
 * Resolves a link, as the name of the file has the part's number.
 * @param {GgufPart} source
 * @returns {GgufPart}
 */
function behindLink(source) {
  if (typeof source !== 'string' && !(source instanceof URL)) return source;
  const text = String(source);
  const file = resolveAddress(text);
  return file === text ? source : file;
}

/**
 * The own name or address of a source.
 * @param {GgufPart} source
 * @returns {{ text: string, isName?: boolean } | undefined}
 */
function nameOf(source) {
  if (typeof source === 'string' || source instanceof URL) return { text: String(source) };
  return typeof Blob === 'function' && source instanceof Blob && 'name' in source
    ? { text: String(source.name), isName: true }
    : undefined;
}

/** @param {OpenedFile} opened @param {GgufPart} source @returns {Part} */
function toPart({ bytes, header }, source) {
  const named = nameOf(source);
  const partName = named && parsePartName(named.text, named.isName);
  const { name } = bytes;
  const whole = (/** @type {string} */ key, /** @type {number} */ most) => {
    const value = header.metadata[key];
    if (value === undefined) return undefined;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most) return value;
    throw new GgufError(`${name}: metadata "${key}" is ${show(value)}, not an integer from 0 to ${most}`);
  };
  const keys = {
    no: whole('split.no', MAX_PARTS - 1),
    count: whole('split.count', MAX_PARTS),
    nTensors: whole('split.tensors.count', 2 ** 31 - 1),
  };
  return { bytes, header, name, partName, keys };
}

/** Compares the part's metadata with its name. @param {Part} part */
function checkNumbers({ name, partName, keys: { no, count } }) {
  if (no === undefined) throw new GgufError(`${name}: this is no part of a split model: it has no split.no`);
  if (count !== undefined && no >= count)
    throw new GgufError(
      `${name}: split.no is ${no}, but split.count is ${count}, so that the last is ${count - 1}`,
    );
  if (!partName) return;
  if (partName.number !== no + 1 || partName.count !== (count ?? partName.count))
    throw new GgufError(
      `${name}: this is part ${partName.number} of ${partName.count} by its name, but part ${no + 1} of ${count ?? 'an unknown number'} by its metadata (split.no is ${no})`,
    );
}

/** @param {Part} part @param {number} count  number of parts according to the other parts */
function checkCount({ name, keys }, count) {
  if (keys.count !== undefined && keys.count !== count)
    throw new GgufError(
      `${name}: this is part ${Number(keys.no) + 1} of ${keys.count}, but the other parts are of ${count}: it belongs to another model`,
    );
  if (Number(keys.no) >= count)
    throw new GgufError(`${name}: this is part ${Number(keys.no) + 1}, but there are only ${count}`);
}

/**
 * Checks that all parts belong to one model and that none is missing.
 * @param {Part[]} parts  the parts in order
 * @param {number} count
 */
function checkTogether(parts, count) {
  const [first] = parts;
  const { nTensors } = first.keys;
  if (nTensors === undefined)
    throw new GgufError(`${first.name}: this is part 1 of ${count}, but it has no split.tensors.count`);
  let found = 0;
  /** @type {Map<string, number>} */
  const placeOf = new Map();
  parts.forEach((part, at) => {
    const label = `${part.name}, part ${at + 1} of ${count},`;
    checkCount(part, count);
    const { keys, header, partName } = part;
    if (keys.nTensors !== undefined && keys.nTensors !== nTensors)
      throw new GgufError(
        `${label} says that the model has ${keys.nTensors} tensors (split.tensors.count), the first part ${nTensors}: it belongs to another model`,
      );
    const [stem, firstStem] = [partName, first.partName].map((name) => name && fileName(name.stem));
    if (stem !== undefined && firstStem !== undefined && stem !== firstStem)
      throw new GgufError(`${label} is named as a part of another model than ${first.name}`);
    const [architecture, own] = [first, part].map((one) => one.header.metadata['general.architecture']);
    if (own !== undefined && own !== architecture)
      throw new GgufError(
        `${label} is of the architecture ${show(own)}, the first part of ${show(architecture)}: it belongs to another model`,
      );
    for (const name of header.tensors.keys()) {
      const before = placeOf.get(name);
      if (before !== undefined)
        throw new GgufError(
          `${label} has the tensor ${show(name)}, which is in part ${before + 1} too (${parts[before].name})`,
          { tensor: name },
        );
      placeOf.set(name, at);
    }
    found += header.tensors.size;
  });
  if (found !== nTensors)
    throw new GgufError(
      `the ${count} parts of ${first.name} have ${found} tensors together, but ${nTensors} are expected (split.tensors.count)`,
    );
  return parts;
}

/**
 * Adds the part's number and name to errors of opening it.
 * @template T
 * @param {number} number
 * @param {number} count
 * @param {string} name
 * @param {() => Promise<T>} open
 */
async function asPart(number, count, name, open) {
  try {
    return await open();
  } catch (error) {
    throw naming(error, name, `part ${number} of ${count} cannot be opened`);
  }
}

/** @param {unknown} error @param {string} name @param {string} what */
function naming(error, name, what) {
  if (!(error instanceof GgufError)) return error;
  const { message, offset, tensor, changed, url, status, got, expected } = error;
  const where = message.includes(name) ? '' : `${name}: `;
  const named = new GgufError(`${what}: ${where}${message}`, { changed, cause: error });
  return Object.assign(named, { offset, tensor, url, status, got, expected });
}

/**
 * Joins the headers of all parts: the metadata of the first, and all tensors, with offsets that
 * count from the start of the first part.
 * @param {OpenedFile[]} parts
 * @returns {Header}
 */
export function joinHeaders(parts) {
  const [{ header }] = parts;
  if (parts.length === 1) return header;
  /** @type {Header['tensors']} */
  const tensors = new Map();
  let start = 0;
  parts.forEach(({ bytes, header }, part) => {
    for (const [name, tensor] of header.tensors)
      tensors.set(name, Object.freeze({ ...tensor, part, offset: tensor.offset + start }));
    start += bytes.size;
  });
  return { ...header, tensors };
}

/**
 * @param {OpenedFile[]} parts
 * @returns {import('./file.js').GgufFilePart[]}
 */
export function describeParts(parts) {
  let offset = 0;
  return parts.map(({ bytes: { name, size: byteLength }, header }) => {
    const part = Object.freeze({ name, offset, byteLength, nTensors: header.tensors.size });
    offset += byteLength;
    return part;
  });
}

/**
 * Joins several sources into one, one after the other.
 * @param {ByteSource[]} sources
 * @returns {ByteSource}
 */
export function joinSources(sources) {
  if (sources.length === 1) return sources[0];
  const starts = [0];
  for (const { size } of sources) starts.push(starts[starts.length - 1] + size);
  const recipes = sources.map(({ recipe }) => recipe);
  const [first] = sources;
  const cached = () => {
    const states = sources.map((source) => /** @type {any} */ (source.cached?.()));
    const sum = (/** @type {'hits' | 'stored'} */ key) =>
      states.reduce((bytes, state) => bytes + (state?.[key] ?? 0), 0);
    const error = states.find((state) => state?.error)?.error;
    return { ...states[0], hits: sum('hits'), stored: sum('stored'), ...(error && { error }) };
  };
  return {
    name: first.name,
    size: starts[sources.length],
    async *stream(offset, length, signal, spare) {
      const end = offset + length;
      for (const [i, source] of sources.entries()) {
        const from = Math.max(offset, starts[i]);
        const to = Math.min(end, starts[i + 1]);
        if (from < to) yield* source.stream(from - starts[i], to - from, signal, spare);
      }
    },
    ...(recipes.every(Boolean) && {
      recipe: () => ({
        kind: 'parts',
        parts: recipes.map((recipe) => /** @type {NonNullable<typeof recipe>} */ (recipe)()),
      }),
    }),
    ...(first.cached && { cached }),
    // Another thread adds up the counts of all parts; they are added to the first part here.
    ...(first.count && { count: first.count }),
  };
}
