/* LoRA adapters: matrices a and b of low rank, whose product is added to a matrix of the model. They
 * come in files of their own, as convert_lora_to_gguf of llama.cpp writes them:
 *
 *   general.type          adapter
 *   general.architecture  that of the model
 *   adapter.type          lora
 *   adapter.lora.alpha    number that the additions are multiplied by and divided by the rank; 0: not
 *   NAME.lora_a           rank rows, for the matrix NAME of the model
 *   NAME.lora_b           as many rows as that matrix, of `rank` values each
 *
 * For the token embedding, a has a row of `rank` values for each token. The matrices of all experts
 * follow one another, as in the model.
 *
 * The tensors are added to the file and to the plan of the model, so that every backend loads them like
 * its own. The plan's `lowRank` says what is added to what. */

import { checkNames } from '../checks.js';
import { ArgumentError, GgufError, ShapeError, show } from '../errors.js';
import { readAll } from '../gguf/bytes.js';
import { sourceOf } from '../gguf/file.js';
import { GgufFile, openGguf } from '../gguf/index.js';
import { makeFile } from '../gguf/open.js';
import { joinSources } from '../gguf/split.js';
import { crc32, crcOf } from './crc32.js';
import { ModelError } from './errors.js';
import { pick } from './load-options.js';
import { OPEN_OPTIONS } from './options.js';

/** @typedef {import('../gguf/file.js').GgufTensor} GgufTensor */
/** @typedef {import('./load-options.js').AdapterOption} AdapterOption */
/** @typedef {import('./plan.js').LowRank} LowRank */
/** @typedef {import('./plan.js').Plan} Plan */
/** @typedef {import('./plan.js').PlannedTensor} PlannedTensor */
/** @typedef {import('./read-model.js').Described} Described */

/**
 * An adapter of a loaded model. The checksum tells it from others.
 * @typedef {import('./info.js').AdapterInfo & { checksum: number }} LoadedAdapter
 */

/** The two tensors for a matrix. @typedef {{ a: GgufTensor, b: GgufTensor }} Pair */

/**
 * The file of an adapter, with its name in messages.
 * @typedef {{ file: GgufFile, label: string, name: string }} OpenAdapter
 */

const FIELDS = ['source', 'scale'];
const SUFFIX = /^(.+)\.lora_([ab])$/;
const TABLE = 'embedding.table';
/** First bytes of an adapter's tensors, which its checksum covers. */
const CHECKED_BYTES = 1 << 16;

/** Tensors that nothing is added to. @type {Record<string, string>} */
const REFUSED = {
  table: 'a table other than the token embedding',
  vector: 'a row of numbers',
  values: 'rows of numbers',
  bias: 'a bias',
  factor: 'a factor',
  experts: 'the matrices of attention heads',
  none: 'a tensor without use here',
};

/**
 * Checks the option `adapters`, but not the sources.
 * @param {unknown} adapters
 * @throws {ArgumentError}
 */
export function checkAdapters(adapters) {
  if (!Array.isArray(adapters))
    throw new ArgumentError(`adapters must be a list of { source, scale }, got ${show(adapters)}`);
  for (const [i, adapter] of adapters.entries()) {
    const at = `adapters[${i}]`;
    if (typeof adapter !== 'object' || adapter === null)
      throw new ArgumentError(`${at} must be { source, scale }, got ${show(adapter)}`);
    checkNames(adapter, FIELDS, `field of ${at}`);
    const { source, scale = 1 } = adapter;
    if (source === undefined) throw new ArgumentError(`${at}.source is missing: the file of the adapter`);
    if (!Number.isFinite(scale))
      throw new ArgumentError(`${at}.scale must be a finite number, got ${show(scale)}`);
  }
}

/**
 * Adds adapters to a model.
 * @param {Described} base
 * @param {import('./load-options.js').LlamaOptions} options
 * @returns {Promise<Described>}
 * @throws {ModelError} a file is no adapter for this model
 * @throws {ShapeError} a tensor has another shape than its matrix needs
 */
export async function addAdapters({ gguf, plan, planned }, options) {
  const given = /** @type {readonly AdapterOption[]} */ (options.adapters);
  const roles = new Set(planned.map(({ role }) => role));
  const joined = new Joined(gguf);
  /** @type {PlannedTensor[]} */
  const added = [];
  /** @type {LowRank[]} */
  const lowRank = [];
  /** @type {Plan['shared']} */
  const shared = {};
  /** @type {LoadedAdapter[]} */
  const adapters = [];

  /** Adds to a role, and to all that share its tensor. @param {LowRank} one @param {number} i */
  const add = (one, i) => {
    lowRank.push(one);
    for (const [role, { of, ...rows }] of Object.entries(plan.shared)) {
      // The output matrix of a tied model is multiplied by, where the embedding is looked up.
      if (of !== one.of || of === TABLE || roles.has(role)) continue;
      const own = { of: role, a: `${role}Lora.${i}.a`, b: `${role}Lora.${i}.b`, scale: one.scale };
      shared[own.a] = { of: one.a };
      shared[own.b] = { of: one.b, ...rows };
      add(own, i);
    }
  };

  for (const [i, { source, scale = 1 }] of given.entries()) {
    const { file, label, name } = await openAdapter(source, `adapters[${i}]`, options);
    const alpha = checkMetadata(file, label, plan);
    const pairs = pairsOf(file, label);
    let rank = 0;
    for (const [of, pair] of pairs) {
      const target = targetOf(gguf, planned, of, label);
      const own = checkPair(plan, target, pair, `${label}: `);
      rank = Math.max(rank, own);
      const factor = alpha === 0 ? scale : (scale * alpha) / own;
      if (factor === 0) continue;
      const [a, b] = ['a', 'b'].map((side) => `${target.role}Lora.${i}.${side}`);
      const { use, alternating } = target;
      const ofA = joined.add(file, pair.a, i);
      const ofB = joined.add(file, pair.b, i);
      added.push(
        { ...ofA, role: a, use, optional: false },
        {
          ...{ ...ofB, role: b, use: use === 'table' ? 'matrix' : use, optional: false },
          ...(alternating && { alternating }),
        },
      );
      add({ of: target.role, a, b, scale: factor }, i);
    }
    const tensors = [...file.tensors.values()];
    const bytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const checksum = await checksumOf(file, options.signal);
    adapters.push({ name, rank, alpha, scale, tensors: tensors.length, bytes, checksum });
    if (file !== source) file.close();
  }
  return {
    gguf: joined.file,
    plan: {
      ...{ ...plan, tensors: [...plan.tensors, ...added], shared: { ...plan.shared, ...shared } },
      ...(lowRank.length > 0 && { lowRank }),
    },
    planned: [...planned, ...added],
    adapters,
  };
}

/**
 * @param {AdapterOption['source']} source
 * @param {string} at  place in the options
 * @param {import('./load-options.js').LlamaOptions} options
 * @returns {Promise<OpenAdapter>}
 */
async function openAdapter(source, at, options) {
  try {
    const opening = { signal: options.signal, ...pick(options, OPEN_OPTIONS) };
    const file = source instanceof GgufFile ? source : await openGguf(source, opening);
    const { name: path } = sourceOf(file);
    const own = file.metadata['general.name'];
    const label = `${at} (${path})`;
    return { file, label, name: typeof own === 'string' ? own : path.replace(/^.*[/\\]/, '') };
  } catch (error) {
    if (!(error instanceof GgufError)) throw error;
    const { message, ...fields } = error;
    throw Object.assign(new GgufError(`${at}: ${error.message}`, { cause: error }), fields);
  }
}

/**
 * @param {GgufFile} file
 * @param {string} label
 * @param {Plan} plan
 * @returns {number} alpha
 */
function checkMetadata({ metadata, tensors }, label, { architecture }) {
  const expect = (/** @type {string} */ key, /** @type {string} */ expected, /** @type {string} */ what) => {
    if (metadata[key] === expected) return;
    throw new ModelError(
      `${label} ${what}: its ${key} is ${show(metadata[key])}, expected ${show(expected)}`,
    );
  };
  expect('general.type', 'adapter', 'is no adapter');
  expect('adapter.type', 'lora', 'is no LoRA adapter');
  expect('general.architecture', architecture, 'is for another model');
  // Such an adapter is applied only after certain tokens.
  if (metadata['adapter.alora.invocation_tokens'] !== undefined)
    throw new ModelError(`${label} is an activated adapter (aLoRA), which is not supported`);
  if (tensors.size === 0) throw new ModelError(`${label} has no tensors`);
  const alpha = metadata['adapter.lora.alpha'] ?? 0;
  if (typeof alpha !== 'number' || !Number.isFinite(alpha))
    throw new ModelError(`${label}: its adapter.lora.alpha must be a finite number, got ${show(alpha)}`);
  return alpha;
}

/**
 * The tensors of an adapter, by the name of the matrix.
 * @param {GgufFile} file
 * @param {string} label
 * @returns {[string, Pair][]}
 */
function pairsOf({ tensors }, label) {
  /** @type {Map<string, Partial<Pair>>} */
  const pairs = new Map();
  for (const tensor of tensors.values()) {
    const [, of, side] = SUFFIX.exec(tensor.name) ?? [];
    if (of === undefined) {
      throw new ModelError(
        `${label} has the tensor ${show(tensor.name)}, which is no lora_a or lora_b and cannot be applied`,
      );
    }
    pairs.set(of, { ...pairs.get(of), [side]: tensor });
  }
  for (const [of, { a, b }] of pairs) {
    if (a && b) continue;
    const [there, missing] = a ? ['a', 'b'] : ['b', 'a'];
    throw new ModelError(
      `${label} has ${show(`${of}.lora_${there}`)} without ${show(`${of}.lora_${missing}`)}`,
    );
  }
  return /** @type {[string, Pair][]} */ ([...pairs]);
}

/**
 * The tensor of the model that something is added to.
 * @param {GgufFile} gguf
 * @param {readonly PlannedTensor[]} planned
 * @param {string} name
 * @param {string} label
 * @returns {PlannedTensor}
 */
function targetOf(gguf, planned, name, label) {
  try {
    gguf.tensor(name);
  } catch (error) {
    throw new GgufError(`${label} does not fit: ${/** @type {Error} */ (error).message}`, { tensor: name });
  }
  const target = planned.find((one) => one.name === name);
  const { use = 'none', role = '' } = target ?? {};
  const isMixture = use === 'experts' && role.includes('.feed.');
  if (target && (use === 'matrix' || role === TABLE || isMixture)) return target;
  throw new ModelError(`${label}: nothing can be added to ${show(name)}, which is ${REFUSED[use]}`);
}

/**
 * Compares the shapes of two tensors with the matrix they belong to.
 * @param {Plan} plan
 * @param {PlannedTensor} target
 * @param {Pair} pair
 * @param {string} prefix  of messages
 * @returns {number} the rank
 * @throws {ShapeError}
 */
function checkPair(plan, { role, nRows, nCols, use, name }, { a, b }, prefix) {
  /**
   * @param {GgufTensor} tensor
   * @param {'nRows' | 'nCols'} what
   * @param {number} expected
   * @param {string} why
   */
  const check = (tensor, what, expected, why) => {
    const got = tensor[what];
    if (got === expected) return;
    const unit = what === 'nRows' ? 'rows' : 'columns';
    const text = `${show(tensor.name)} has ${got} ${unit}, expected ${expected}: ${why}`;
    throw new ShapeError(prefix + text, { got, expected });
  };
  const rank = b.nCols;
  const ofB = `the rank, which is the number of columns of ${show(b.name)}`;
  if (use === 'table') {
    check(a, 'nRows', nRows, `a row for each row of ${show(name)}`);
    check(a, 'nCols', rank, ofB);
    check(b, 'nRows', nCols, `a row for each column of ${show(name)}`);
    return rank;
  }
  const experts = use === 'experts' ? plan.layers[Number(role.split('.')[1])].feed.experts : undefined;
  const n = experts?.nExperts ?? 1;
  const each = n > 1 ? `, for each of ${n} experts` : '';
  check(a, 'nCols', nCols, `as many as ${show(name)} has`);
  check(b, 'nRows', nRows, `as many as ${show(name)} has`);
  check(a, 'nRows', n * rank, ofB + each);
  return rank;
}

/**
 * The file of a model with the tensors of adapters behind its own. Names begin with the place of the
 * adapter in the options.
 */
class Joined {
  #base;
  /** @type {Map<GgufFile, number>} */
  #starts = new Map();
  #sources;
  #tensors;

  /** @param {GgufFile} base */
  constructor(base) {
    this.#base = base;
    this.#sources = [sourceOf(base)];
    this.#tensors = new Map(base.tensors);
  }

  /**
   * @param {GgufFile} file
   * @param {GgufTensor} tensor
   * @param {number} i  place of the adapter
   */
  add(file, tensor, i) {
    if (!this.#starts.has(file)) {
      this.#starts.set(
        file,
        this.#sources.reduce((sum, { size }) => sum + size, 0),
      );
      this.#sources.push(sourceOf(file));
    }
    const name = `adapters[${i}].${tensor.name}`;
    const offset = /** @type {number} */ (this.#starts.get(file)) + tensor.offset;
    const part = this.#base.parts.length + i;
    this.#tensors.set(name, Object.freeze({ ...tensor, name, offset, part }));
    return { name, nRows: tensor.nRows, nCols: tensor.nCols };
  }

  get file() {
    const { version, alignment, metadata, parts } = this.#base;
    return makeFile(
      joinSources(this.#sources),
      { version, alignment, metadata, tensors: this.#tensors },
      /** @type {any} */ (parts),
    );
  }
}

/**
 * A checksum of an adapter: of its metadata, of the list of its tensors, and of the first bytes of them.
 * @param {GgufFile} file
 * @param {AbortSignal} [signal]
 */
async function checksumOf(file, signal) {
  const { metadata, tensors, byteLength } = file;
  const table = [...tensors.values()].map(({ name, type, shape }) => [name, type, shape]);
  const start = Math.min(...[...tensors.values()].map(({ offset }) => offset));
  const n = Math.min(CHECKED_BYTES, byteLength - start);
  return crc32(await readAll(sourceOf(file), start, n, signal), crcOf([metadata, table]));
}
