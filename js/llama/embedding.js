/* Embeddings: one vector for a text, pooled from its hidden states as the metadata of the file
 * say. A file of its own, since it is fetched for the first text. */

import { oneOf } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { ContextError, ModelError, NumericError } from './errors.js';
import { checkRange, checkSwitch } from './options.js';

/** Kinds of pooling in the order of their numbers in GGUF. */
export const POOLING_TYPES = /** @type {const} */ (['none', 'mean', 'cls', 'last', 'rank']);
const POOLINGS = POOLING_TYPES.slice(0, 4);

/**
 * How hidden states become a vector: their mean, the state of the first token ('cls') or of the
 * last one, or all states one after another ('none').
 * @typedef {'none' | 'mean' | 'cls' | 'last'} Pooling
 */

/**
 * Options of Llama.embed.
 * @typedef {object} EmbedOptions
 * @property {Pooling} [pooling]  How the hidden states become a vector. Default: what the file says
 *   (`<architecture>.pooling_type`), and 'mean' if it says nothing.
 * @property {boolean} [normalize]  Scale the vector to length 1. Default true.
 * @property {number} [dimensions]  Keep so many values from the start of the vector, before it is
 *   scaled: for models that were trained for it (Matryoshka). Default: all.
 * @property {AbortSignal | undefined} [signal]  Aborts the call: it rejects with the signal's reason.
 * @property {boolean | undefined} [queue]  Wait in a line while another call uses the context, instead of
 *   failing with a BusyError. Default false.
 */

/** @typedef {import('./lease.js').Lease} Lease */
/** @typedef {import('./model.js').Parts} Parts */
/** @typedef {import('./pause.js').Pace} Pace */

/**
 * @param {Record<string, import('../gguf/index.js').MetadataValue>} metadata
 * @param {string} architecture
 * @param {unknown} asked  the option `pooling`
 * @returns {Pooling}
 * @throws {ModelError} the file asks for a kind of pooling that is not supported
 */
function choosePooling(metadata, architecture, asked) {
  if (asked !== undefined) {
    oneOf(POOLINGS, asked, 'pooling');
    return /** @type {Pooling} */ (asked);
  }
  const key = `${architecture}.pooling_type`;
  const value = metadata[key];
  // llama.cpp writes -1 for "unspecified".
  if (value === undefined || value === -1) return 'mean';
  const name = POOLING_TYPES[/** @type {any} */ (value)];
  if (name && name !== 'rank') return name;
  throw new ModelError(
    `metadata ${show(key)} is ${show(value)}${name ? ' (rank: scores, no vectors; use rank)' : ''}; supported are 0 to 3 (${POOLINGS.join(', ')})`,
  );
}

/**
 * The function behind Llama.embed.
 * @param {Parts} parts
 * @param {readonly string[]} texts
 * @param {EmbedOptions} options
 * @param {Pace} pace
 * @param {Lease} lease
 * @returns {Promise<Float32Array[]>}
 */
export async function embedTexts(parts, texts, options, pace, lease) {
  const { plan, metadata, tokenizer, context } = parts;
  const { nEmbd, dense } = plan;
  const { normalize = true } = options;
  checkSwitch(normalize, 'normalize');
  const nOut = dense.at(-1) ?? nEmbd;
  const { dimensions = nOut } = options;
  checkRange(dimensions, 'dimensions', { from: 1, to: nOut, integer: true });
  const pooling = choosePooling(metadata, plan.architecture, options.pooling);
  const lists = texts.map((text) => tokenizer.encode(text));
  checkRoom(parts, lists, texts.length === 1 ? () => 'the text' : (i) => `texts[${i}]`);
  lease.nTokens = total(lists);
  const vectors = [];
  for (const pooled of await poolTexts(parts, lists, pooling, pace)) {
    const vector = await context.retried(async () => {
      // A lost device may have been replaced meanwhile.
      const { backend, weights } = parts;
      let values = pooled;
      for (const i of dense.keys()) values = await backend.multiply(values, weights.byRole.dense[i].matrix);
      return values;
    }, pace);
    pace.check();
    vectors.push(cut(vector, nOut, dimensions, normalize));
  }
  return vectors;
}

/**
 * Keeps the first values of each row, and scales them.
 * @param {Float32Array} vector  one row, or several
 * @param {number} nCols
 * @param {number} dimensions  values to keep
 * @param {boolean} normalize  scale each row to length 1; a row of zeros stays
 */
function cut(vector, nCols, dimensions, normalize) {
  const nRows = vector.length / nCols;
  const out = new Float32Array(nRows * dimensions);
  for (let row = 0; row < nRows; row++) {
    const values = vector.subarray(row * nCols, row * nCols + dimensions);
    const length = normalize ? Math.hypot(...values) || 1 : 1;
    for (const [i, value] of values.entries()) out[row * dimensions + i] = value / length;
  }
  return out;
}

/** @param {readonly number[][]} lists */
export const total = (lists) => lists.reduce((sum, { length }) => sum + length, 0);

/**
 * @param {Parts} parts
 * @param {readonly number[][]} lists  tokens of each text
 * @param {(i: number) => string} nameOf  name of a text, for messages
 * @throws {ArgumentError} a text has no tokens
 * @throws {ContextError} a text has more tokens than the context
 */
export function checkRoom({ context }, lists, nameOf) {
  for (const [i, { length }] of lists.entries()) {
    if (length === 0) throw new ArgumentError(`${nameOf(i)} has no tokens`);
    if (length <= context.length) continue;
    throw new ContextError(`${nameOf(i)} has ${length} tokens, the context has room for ${context.length}`, {
      got: length,
      expected: context.length,
    });
  }
}

/**
 * Pools the hidden states of texts. Short texts are computed together, those of like length side by
 * side, where the backend can.
 * @param {Parts} parts
 * @param {readonly number[][]} lists  tokens of each text
 * @param {Pooling} pooling
 * @param {Pace} pace
 * @returns {Promise<Float32Array[]>} in the order of the texts
 */
export async function poolTexts({ backend, decoder, context, plan }, lists, pooling, pace) {
  /** @type {Float32Array[]} */
  const vectors = [];
  const run = async (/** @type {number} */ i) => {
    const vector = pool(pooling, lists[i].length, plan.nEmbd);
    context.clear();
    await context.extend(lists[i], pace, (start, n, decoder) =>
      vector.take(start, n, (row, nRows) => decoder.hidden(row, nRows, pace)),
    );
    vectors[i] = vector.result();
  };
  const runTogether = async (/** @type {number[]} */ group) => {
    context.clear();
    let end = 0;
    const rows = group.map((i) => {
      const { length: nRows } = lists[i];
      end += nRows;
      return { start: end - nRows, nRows };
    });
    await decoder.forward(
      group.flatMap((i) => lists[i]),
      0,
      pace,
      rows,
    );
    pace.check();
    for (const [at, i] of group.entries()) {
      const { start, nRows } = rows[at];
      const vector = pool(pooling, nRows, plan.nEmbd);
      await vector.take(0, nRows, (row, n) => decoder.hidden(start + row, n, pace));
      pace.check();
      vectors[i] = vector.result();
    }
    if (pace.due) await pace.rest();
  };
  for (const group of groupsOf(lists, backend.packs ? decoder.part : 0)) {
    if (group.length > 1) {
      try {
        await decoder.turns.take(pace.lease, () => runTogether(group));
        continue;
      } catch (error) {
        // Alone, the text with the wrong number says at which of its tokens it is.
        if (!(error instanceof NumericError)) throw error;
      }
    }
    for (const i of group) await run(i);
  }
  return vectors;
}

/**
 * Groups of texts that are computed together, by length.
 * @param {readonly number[][]} lists
 * @param {number} room  most tokens of a group of several texts
 */
function groupsOf(lists, room) {
  const order = [...lists.keys()].sort((a, b) => lists[a].length - lists[b].length);
  /** @type {number[][]} */
  const groups = [];
  let free = 0;
  for (const i of order) {
    const { length } = lists[i];
    if (length <= free) groups.at(-1)?.push(i);
    else {
      groups.push([i]);
      free = room;
    }
    free -= length;
  }
  return groups;
}

/**
 * Pools the hidden states of a text, batch by batch.
 * @param {Pooling} pooling
 * @param {number} nTokens  tokens of the text
 * @param {number} nEmbd
 */
function pool(pooling, nTokens, nEmbd) {
  // Range of the tokens whose states are used.
  const first = pooling === 'last' ? nTokens - 1 : 0;
  const end = pooling === 'cls' ? 1 : nTokens;
  const isMean = pooling === 'mean';
  const values = new Float64Array(isMean ? nEmbd : (end - first) * nEmbd);
  return {
    /**
     * @param {number} start  index of the batch's first token in the text
     * @param {number} size  tokens of the batch
     * @param {(start: number, nRows: number) => Promise<Float32Array>} hidden  reads states of
     *   tokens of the batch
     */
    async take(start, size, hidden) {
      const from = Math.max(first, start);
      const nRows = Math.min(end, start + size) - from;
      if (nRows < 1) return;
      for (const [i, value] of (await hidden(from - start, nRows)).entries()) {
        if (isMean) values[i % nEmbd] += value / nTokens;
        else values[(from - first) * nEmbd + i] = value;
      }
    },
    result: () => Float32Array.from(values),
  };
}
