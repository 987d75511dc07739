/* Contexts as bytes, and copies of contexts.
 *
 *   8 bytes   MAGIC
 *   u32       version of this layout
 *   u32       CRC-32 of all that follows
 *   u32       bytes of the header
 *   header    JSON: the model, the tokens, and the size of each part
 *   tokens    a u32 each
 *   parts     caches and states, layer by layer, as the backend saves them
 *
 * Numbers are little-endian. The checksum is there to find damage, not forgery: a CRC finds every
 * changed byte, needs no secure context as WebCrypto does, and can pause. Whatever the bytes say,
 * lengths are checked before they are used. */

import { ArgumentError, ShapeError, show } from '../errors.js';
import { crc32, crcOf } from './crc32.js';
import { ContextError, SavedContextError } from './errors.js';

/** @typedef {import('../backend.js').Saved} Saved */
/** @typedef {import('./context.js').Context} Context */
/** @typedef {import('./model.js').Parts} Parts */
/** @typedef {import('./pause.js').Pace} Pace */

/**
 * @typedef {object} Header
 * @property {Record<string, string | number>} model
 * @property {string} kvType
 * @property {number} contextLength
 * @property {number} nTokens
 * @property {{ at: number[], size: number }[]} parts
 * @property {Adapter[]} [adapters]  Those of the model, if there are any.
 */

/** The facts by which adapters are compared. @typedef {{ name: string, scale: number, checksum: number }} Adapter */

/** A context that was read from bytes. @typedef {Header & { tokens: number[], saved: Saved[] }} Read */

const MAGIC = 'FMCONTXT';
const VERSION = 1;
/** Bytes before those that the checksum covers, and before the header. */
const CHECKED_FROM = 16;
const HEADER_FROM = 20;
/** Bytes between two looks at the clock. */
const PIECE = 1 << 18;

/** @param {Uint8Array} bytes @param {Pace} pace */
async function crcWithPauses(bytes, pace) {
  let crc = 0;
  for (let at = 0; at < bytes.length; at += PIECE) {
    crc = crc32(bytes.subarray(at, at + PIECE), crc);
    if (pace.due) await pace.rest();
  }
  return crc;
}

/**
 * Numbers that tell a model from others: its settings, and checksums of the metadata and of the list of
 * tensors. The weights themselves are not compared.
 * @param {Pick<Parts, 'plan' | 'metadata' | 'tensors'>} parts
 * @returns {Record<string, string | number>}
 */
function modelOf(parts) {
  const known = models.get(parts.plan);
  if (known) return known;
  const { plan, metadata, tensors } = parts;
  const { architecture, nVocab, nEmbd, layers } = plan;
  const table = tensors.map(({ name, type, nRows, nCols }) => [name, type, nRows, nCols]);
  const model = {
    ...{ architecture, nVocab, nEmbd, nLayers: layers.length },
    ...{ layers: crcOf(layers), metadata: crcOf(metadata), tensors: crcOf(table) },
  };
  models.set(plan, model);
  return model;
}

/** The adapters that change results. @param {Pick<Parts, 'adapters'>} parts @returns {Adapter[]} */
const adaptersOf = ({ adapters }) =>
  adapters.filter(({ scale }) => scale !== 0).map(({ name, scale, checksum }) => ({ name, scale, checksum }));

/** @type {WeakMap<import('./plan.js').Plan, Record<string, string | number>>} */
const models = new WeakMap();

/**
 * @param {Parts} parts
 * @param {Context} context
 * @param {Pace} pace
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
export async function saveContext(parts, context, pace) {
  const saved = await copyParts(context, pace);
  const tokens = Uint32Array.from(context.past);
  const adapters = adaptersOf(parts);
  /** @type {Header} */
  const header = {
    model: modelOf(parts),
    kvType: parts.settings.kvType,
    contextLength: context.length,
    nTokens: tokens.length,
    parts: saved.map(({ at, bytes }) => ({ at, size: bytes.length })),
    ...(adapters.length > 0 && { adapters }),
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const size = saved.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const all = new Uint8Array(HEADER_FROM + text.length + 4 * tokens.length + size);
  const view = new DataView(all.buffer);
  all.set(new TextEncoder().encode(MAGIC));
  view.setUint32(8, VERSION, true);
  view.setUint32(16, text.length, true);
  all.set(text, HEADER_FROM);
  let to = HEADER_FROM + text.length;
  for (const token of tokens) {
    view.setUint32(to, token, true);
    to += 4;
  }
  for (const { bytes } of saved) {
    all.set(bytes, to);
    to += bytes.length;
  }
  view.setUint32(12, await crcWithPauses(all.subarray(CHECKED_FROM), pace), true);
  return all;
}

/**
 * Copies of the caches and states of a context.
 * @param {Context} context
 * @param {Pace} pace
 * @returns {Promise<Saved[]>}
 */
export async function copyParts(context, pace) {
  for (;;) {
    try {
      const { decoder } = context;
      return await decoder.turns.take(pace.lease, async () => {
        const saved = [];
        for (const part of decoder.parts) {
          saved.push(await decoder.backend.save(part, context.past.length));
          pace.check();
          if (pace.due) await pace.rest();
        }
        return saved;
      });
    } catch (error) {
      await context.renew(error, pace);
    }
  }
}

/**
 * Reads the bytes of a context, and compares them with the model.
 * @param {Parts} parts
 * @param {unknown} bytes
 * @param {Pace} pace
 * @returns {Promise<Read>}
 * @throws {SavedContextError}
 */
export async function readContext(parts, bytes, pace) {
  if (!(bytes instanceof Uint8Array))
    throw new ArgumentError(`the bytes of a context must be a Uint8Array, got ${show(bytes)}`);
  const damaged = (/** @type {string} */ why) =>
    new SavedContextError(
      `these ${bytes.length} bytes are no saved context, or are damaged: ${why}`,
      'damaged',
    );
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < HEADER_FROM) throw damaged(`the least is ${HEADER_FROM}`);
  if (new TextDecoder().decode(bytes.subarray(0, 8)) !== MAGIC)
    throw damaged('they begin with something else');
  const version = view.getUint32(8, true);
  if (version !== VERSION)
    throw new SavedContextError(`the saved context has version ${version}, expected ${VERSION}`, 'version');
  const [crc, expected] = [await crcWithPauses(bytes.subarray(CHECKED_FROM), pace), view.getUint32(12, true)];
  if (crc !== expected) throw damaged(`their checksum is ${crc}, expected ${expected}`);
  const tokensFrom = HEADER_FROM + view.getUint32(16, true);
  const header = headerIn(bytes.subarray(HEADER_FROM, tokensFrom));
  if (!header) throw damaged('the header cannot be read');
  const partsFrom = tokensFrom + 4 * header.nTokens;
  const end = header.parts.reduce((sum, { size }) => sum + size, partsFrom);
  if (end !== bytes.length) throw damaged(`expected ${end} bytes`);
  compare(header, parts);
  const tokens = Array.from({ length: header.nTokens }, (_, i) => view.getUint32(tokensFrom + 4 * i, true));
  const wrong = tokens.find((token) => token >= parts.plan.nVocab);
  if (wrong !== undefined) throw damaged(`token ${wrong} of a vocabulary of ${parts.plan.nVocab}`);
  let from = partsFrom;
  const saved = header.parts.map(({ at, size }) => {
    from += size;
    return { at, bytes: bytes.subarray(from - size, from) };
  });
  return { ...header, tokens, saved };
}

/**
 * @param {Uint8Array} bytes
 * @returns {Header | undefined} undefined if a part is missing or has another type
 */
function headerIn(bytes) {
  /** @type {any} */
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
  const isCount = (/** @type {unknown} */ n, least = 0) => Number.isSafeInteger(n) && Number(n) >= least;
  const isFine =
    typeof header?.model === 'object' &&
    header.model !== null &&
    isCount(header.nTokens) &&
    isCount(header.contextLength, Math.max(1, header.nTokens)) &&
    Array.isArray(header.parts) &&
    header.parts.every(
      (/** @type {any} */ one) =>
        isCount(one?.size) &&
        Array.isArray(one.at) &&
        one.at.every((/** @type {unknown} */ n) => isCount(n, -1)),
    ) &&
    (header.adapters === undefined ||
      (Array.isArray(header.adapters) &&
        header.adapters.every(
          (/** @type {any} */ one) =>
            typeof one?.name === 'string' && Number.isFinite(one.scale) && isCount(one.checksum),
        )));
  return isFine ? header : undefined;
}

/**
 * @param {Header} header
 * @param {Parts} parts
 * @throws {SavedContextError} it is of another model, or of other adapters, or its keys and values have
 *   another type
 */
function compare({ model, kvType, adapters = [] }, parts) {
  for (const [name, value] of Object.entries(modelOf(parts))) {
    if (model[name] === value) continue;
    throw new SavedContextError(
      `the saved context belongs to another model: its ${name} is ${show(model[name])}, that of this model ${show(value)}`,
      'model',
    );
  }
  const own = adaptersOf(parts);
  if (namesOf(adapters) !== namesOf(own)) {
    throw new SavedContextError(
      `the saved context belongs to a model with other adapters: ${namesOf(adapters)}; this model has ${namesOf(own)}`,
      'model',
    );
  }
  if (kvType !== parts.settings.kvType)
    throw new SavedContextError(
      `the saved context has keys and values of type ${show(kvType)}, the model was loaded with kvType ${parts.settings.kvType}`,
      'type',
    );
}

/** Adapters in words. @param {readonly Adapter[]} adapters */
const namesOf = (adapters) =>
  adapters
    .map(({ name, scale, checksum }) => `${show(name)} (scale ${scale}, checksum ${checksum})`)
    .join(', ') || 'none';

/**
 * Positions of the context for saved tokens.
 * @param {Read} read
 * @param {number | undefined} asked
 * @param {number} most  positions that the model was loaded with
 * @throws {ContextError} the tokens do not fit
 */
export function lengthFor({ nTokens, contextLength }, asked, most) {
  const length = asked ?? Math.min(contextLength, most);
  if (nTokens <= length) return length;
  throw new ContextError(`the saved context has ${nTokens} tokens, the context has room for ${length}`, {
    got: nTokens,
    expected: length,
  });
}

/**
 * Puts copies into an unused context.
 * @param {Context} context
 * @param {readonly number[]} tokens
 * @param {readonly Saved[]} saved
 * @param {Pace} pace
 * @throws {SavedContextError} they are not those of such a context
 */
export async function fillContext(context, tokens, saved, pace) {
  const { parts, backend } = context.decoder;
  const damaged = (/** @type {string} */ why, /** @type {unknown} */ cause) =>
    Object.assign(new SavedContextError(`the saved context is damaged: ${why}`, 'damaged'), { cause });
  if (parts.length !== saved.length)
    throw damaged(`it has ${saved.length} caches and states, the model has ${parts.length}`, undefined);
  for (const [i, part] of parts.entries()) {
    try {
      await backend.restore(part, saved[i], tokens.length);
    } catch (error) {
      throw error instanceof ShapeError ? damaged(error.message, error) : error;
    }
    pace.check();
    if (pace.due) await pace.rest();
  }
  context.adopt(tokens);
}
