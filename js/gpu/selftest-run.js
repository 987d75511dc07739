/**
 * Runs the synthetic model of the self-test on a backend: the rows of hidden states, and the blocks
 * that compute them.
 */

import { NumericError } from '../llama/errors.js';
import { makeStates } from './selftest-data.js';
import { TABLE_ROWS, VOCABULARY } from './selftest-model.js';

/** @typedef {import('./selftest.js').BlockName} BlockName */
/** @typedef {import('./selftest-model.js').Model} Model */

/**
 * The tokens of attention, in order of their positions: before and beyond one split. Only `attends`
 * of them are compared. Without a mask they see all positions, or the first `sees` of them.
 */
const ATTENTION_STEPS = [
  { nTokens: 40, attends: true },
  { nTokens: 1, attends: true },
  { nTokens: 5, attends: true, sees: 90 },
  { nTokens: 44, attends: false },
  { nTokens: 44, attends: false },
  { nTokens: 40, attends: true },
  { nTokens: 5, attends: true },
  { nTokens: 1, attends: true },
];
/** Tokens of feed-forward blocks: one count for each form of products. */
const TOKENS = [40, 1, 5, 2, 3];
const CONTEXT = 192;
/** Where the rows of tables are asked for: not at the beginning. */
const AT = 3;
/** Rows of a batch that the CPU computes at a time. */
const PART = 44;
/** Everything is computed twice on the GPU. */
export const RUNS = [0, 1];

/**
 * The rows of a self-test in hidden states: those of attention, then of feed-forward blocks,
 * embeddings, heads and states without a head.
 * @param {number} nTables
 * @param {readonly BlockName[]} blocks
 * @param {boolean} causal  otherwise all tokens attend after the last one is there
 */
export function layRows(nTables, blocks, causal) {
  const has = (/** @type {BlockName} */ name) => blocks.includes(name);
  let row = 0;
  const take = (/** @type {number} */ n) => {
    row += n;
    return row - n;
  };
  const nAll = ATTENTION_STEPS.reduce((sum, { nTokens }) => sum + nTokens, 0);
  const attention = RUNS.map((run) => {
    let position = 0;
    return (has('attention') ? ATTENTION_STEPS : []).flatMap(({ nTokens, attends, sees = nAll }) => {
      position += nTokens;
      // The first run has filled the cache.
      if (run > 0 && !attends) return [];
      const seen = causal ? position : sees;
      return [{ nTokens, attends, position: position - nTokens, seen, start: take(nTokens) }];
    });
  });
  const feed = RUNS.map(() =>
    (has('feed') ? TOKENS : []).map((nTokens) => ({
      position: 0,
      seen: nTokens,
      nTokens,
      start: take(nTokens),
    })),
  );
  const tables = Array.from({ length: has('embed') ? nTables : 0 }, () =>
    RUNS.map(() => ({ position: AT, seen: AT + 5, nTokens: 5, start: take(5) })),
  );
  const head = (has('head') ? [1, 5] : []).map((nRows) => ({ nRows, start: take(nRows), position: 0 }));
  const states = (has('states') ? [5] : []).map((nRows) => ({ nRows, start: take(nRows), position: 0 }));
  return { attention, feed, tables, head, states, count: row };
}

/** @typedef {ReturnType<typeof layRows>} Rows */

/**
 * Hidden states of every row: those of the second run are those of the first.
 * @param {Rows} rows
 * @param {number} nCols
 * @param {import('./selftest-data.js').Generator} random
 * @param {Model['settings']} settings
 */
export function fillRows({ attention, feed, tables, head, states: last, count }, nCols, random, settings) {
  const states = new Float32Array(count * nCols);
  const put = (/** @type {number} */ start, /** @type {Float32Array} */ values) =>
    states.set(values, start * nCols);
  /** @type {['attention' | 'feed', typeof attention | typeof feed][]} */
  const blocks = [
    ['attention', attention],
    ['feed', feed],
  ];
  for (const [block, [first, ...others]] of blocks) {
    for (const step of first) {
      const values = makeStates(step.nTokens, nCols, random, settings[block].norm?.kind);
      put(step.start, values);
      for (const run of others)
        for (const { position, nTokens, start } of run)
          if (position === step.position && nTokens === step.nTokens) put(start, values);
    }
  }
  for (const { start, nTokens } of tables.flat())
    states.fill(Number.NaN, start * nCols, (start + nTokens) * nCols);
  for (const { start, nRows } of [...head, ...last])
    put(start, makeStates(nRows, nCols, random, settings.head.norm?.kind));
  return states;
}

/** Chooses the largest. */
const SAMPLER = /** @type {import('../backend.js').TokenSampler} */ (
  /** @type {unknown} */ ({ options: { temperature: 0 }, next: () => 0 })
);

/** Rows of the tables, the first and the last among them. */
const IDS = [0, TABLE_ROWS - 1, 7, 64, 255];

/**
 * What a backend makes of the rows.
 * @param {import('../backend.js').Backend} backend
 * @param {Model} model
 * @param {import('../backend.js').Weights[]} weights  of treesOf()
 * @param {Rows} rows
 * @param {object} given
 * @param {Float32Array} given.states
 * @param {readonly number[]} given.runs
 * @param {boolean} [given.plainRun]  the second run adds what blocks compute as it is
 * @param {import('../wasm/kv-cache.js').KvType} given.kvType
 */
export async function compute(backend, { settings, layers, plan }, weights, rows, given) {
  const { states, runs, plainRun, kvType } = given;
  const { attention, feed, head, embedding } = settings;
  const plain = { postNorm: undefined, sumNorm: undefined, residualScale: 1 };
  const { nEmbd } = plan;
  const owned = /** @type {import('../backend.js').Resource[]} */ ([]);
  const own = (/** @type {any} */ resource) => {
    owned.push(resource);
    return resource;
  };
  try {
    const x = own(backend.hidden(plan, { batch: Math.max(1, rows.count), part: PART }));
    const tokens = own(backend.tokens(16));
    backend.writeTokens(tokens, AT, IDS);
    /** Hidden states after each layer. @type {Float32Array[]} */
    const made = [];
    /** @type {Float32Array[][]} */
    const logits = [];
    /** States after the norm of the head, by run. @type {Float32Array[][]} */
    const last = [];
    /** @type {Uint32Array | undefined} */
    let largest;
    for (const i of layers.keys()) {
      const cache = own(backend.cache(attention, { contextLength: CONTEXT, kvType }, i));
      const blocks = {
        attention: { settings: attention, weights: weights[2 * i], layer: i },
        feed: { settings: feed, weights: weights[2 * i + 1], layer: i },
      };
      const plainBlocks = {
        attention: { ...blocks.attention, settings: { ...attention, ...plain } },
        feed: { ...blocks.feed, settings: { ...feed, ...plain } },
      };
      const table = (/** @type {number} */ t, /** @type {typeof embedding} */ of) => ({
        settings: of,
        weights: weights[2 * layers.length + 1 + t],
      });
      const tableBlocks = rows.tables.map((_, t) => table(t, embedding));
      const plainTables = rows.tables.map((_, t) => table(t, { ...embedding, norm: undefined }));
      const ofHead = { settings: head, weights: weights[2 * layers.length] };
      backend.write(x, 0, states);
      /** @type {any[][]} */
      const outputs = [];
      for (const run of runs) {
        const { attention: ofAttention, feed: ofFeed } = run > 0 && plainRun ? plainBlocks : blocks;
        const { causal } = attention;
        for (const { attends, ...at } of rows.attention[run]) {
          backend.project(x, ofAttention, cache, at);
          if (attends && causal) backend.attend(x, ofAttention, cache, at);
        }
        for (const { attends, ...at } of rows.attention[run])
          if (attends && !causal) backend.attend(x, ofAttention, cache, at);
        for (const at of rows.feed[run]) backend.feed(x, ofFeed, at);
        if (i > 0) continue;
        const ofTables = run > 0 && plainRun ? plainTables : tableBlocks;
        for (const [t, of] of rows.tables.entries()) backend.embed(tokens, x, ofTables[t], of[run]);
        outputs[run] = rows.head.map(({ nRows }) => own(backend.tensor({ nRows, nCols: VOCABULARY })));
        for (const [n, of] of rows.head.entries()) {
          const to = outputs[run][n];
          backend.write(to, 0, new Float32Array(of.nRows * VOCABULARY).fill(Number.NaN));
          backend.head(x, ofHead, to, of);
          backend.pick(to, of.nRows - 1, tokens, SAMPLER, 8 + 2 * run + n);
        }
      }
      backend.flush();
      made.push(await readSafely(() => backend.read(x)));
      if (i > 0) continue;
      for (const run of runs) {
        last[run] = [];
        for (const of of rows.states)
          last[run].push(await readSafely(() => backend.readStates(x, ofHead, of)));
        logits[run] = [];
        for (const of of outputs[run]) logits[run].push(await readSafely(() => backend.read(of)));
      }
      largest = await readSafely(() => backend.readTokens(tokens, 8, 4));
    }
    return { nEmbd, made, last, logits, largest: /** @type {Uint32Array} */ (largest) };
  } finally {
    for (const resource of owned) if (!resource.freed) resource.free();
  }
}

/** @typedef {Awaited<ReturnType<typeof compute>>} Results */

/**
 * Reads. A NaN in the results is an error of the first read only: it is found again by the
 * comparison.
 * @template T
 * @param {() => Promise<T>} read
 * @returns {Promise<T>}
 */
export async function readSafely(read) {
  try {
    return await read();
  } catch (error) {
    if (error instanceof NumericError) return readSafely(read);
    throw error;
  }
}
