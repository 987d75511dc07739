/* The comparison of all kernels with the wasm module, before they are used: blocks of a synthetic model with the types and settings of
 * the real one, on shapes and numbers that drivers have failed at. Both backends get the same hidden states before each block, and
 * what they make of them must not be further apart than rounding allows (selftest-bounds.js). The GPU computes everything twice, and
 * must give the same bits. Buffers that a kernel should fill hold NaN or zeros before, so a kernel that does nothing is found. */

import { NumericError } from '../llama/errors.js';
import { performance } from '../node.js';
import { servedType } from '../types.js';
import { GpuBackend } from './backend.js';
import { Commands } from './commands.js';
import { GpuError } from './errors.js';
import { FEW } from './products.js';
import {
  attentionErrors,
  embedError,
  feedErrors,
  headErrors,
  normedSize,
  normOf,
  postNormErrors,
  sumError,
} from './selftest-bounds.js';
import { generator, makeMatrix, makeStates, makeVector } from './selftest-data.js';
import { up16 } from './shader.js';
import { Uploader } from './upload.js';
import { GpuVector } from './vectors.js';
import { allocateWeights } from './weights.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('../wasm/backend.js').WasmBackend} WasmBackend */
/** @typedef {import('./products.js').Variants} Variants */
/** @typedef {import('./selftest-data.js').Matrix} Matrix */

/**
 * What is tested, and with what.
 * @typedef {object} SelfTestOptions
 * @property {import('./device.js').GpuDevice} gpu
 * @property {import('./pipelines.js').Pipelines} pipelines  which the model will use too
 * @property {Variants} variants
 * @property {import('../wasm/kv-cache.js').KvType} [kvType]  default F16
 * @property {readonly string[]} types  of the weights in use
 * @property {Partial<AttentionSettings> & { biases?: boolean, outputBias?: boolean }} [attention]  settings of the model, as far as they
 *   differ from the defaults
 * @property {Partial<FeedSettings>} [feed]
 * @property {Partial<HeadSettings>} [head]
 * @property {number} [embeddingScale]
 * @property {boolean} [int8]  whether chooseVariants() may choose products of int8
 * @property {readonly BlockName[]} [blocks]  the only ones that are tested
 * @property {readonly [nEmbd: number, nFf: number]} [columns]  of hidden states, and between gate and down
 */

/** @typedef {'embed' | 'attention' | 'feed' | 'head'} BlockName */

/**
 * A comparison. error: of the worst value, in units of its bound; infinite where values are NaN, or differ between two runs.
 * @typedef {{ name: string, good: boolean, error: number }} Case
 */

/** @typedef {{ ms: number, cases: Case[], failed: Case[] }} SelfTestResult */

/** A leaf is a matrix or a vector. @typedef {Record<string, Matrix | Float32Array | undefined>} Tree */

/** The tokens of attention, in order of their positions: before and beyond one split. Only `attends` of them are compared. */
const ATTENTION_STEPS = [
  { nTokens: 40, attends: true },
  { nTokens: 1, attends: true },
  { nTokens: 5, attends: true },
  { nTokens: 44, attends: false },
  { nTokens: 44, attends: false },
  { nTokens: 40, attends: true },
  { nTokens: 5, attends: true },
  { nTokens: 1, attends: true },
];
const TOKENS = [40, 1, 5];
const CONTEXT = 192;
/** Rows of a batch that the CPU computes at a time. */
const PART = 44;
/** More than one pass of the search for the largest takes, and odd. */
const VOCABULARY = 4099;
const TABLE_ROWS = 331;
/** Mean of a normalised hidden state. */
const MEAN_STATE = 0.75;
const RUNS = [0, 1];
/** @type {readonly BlockName[]} */
const BLOCKS = ['embed', 'attention', 'feed', 'head'];

/** Columns by the largest block of the types: not many, with a tail where blocks are small; enough between gate and down to be split. */
const COLUMNS = /** @type {const} */ ({ 1: [282, 2058], 32: [288, 2080], 256: [256, 2304] });

/**
 * The settings of a synthetic layer: those of the model, with fewer heads.
 * @param {SelfTestOptions} options
 * @param {number} block  the largest of the types
 */
function settingsOf({ attention = {}, feed = {}, head = {}, columns }, block) {
  const { biases = false, outputBias = false, ...given } = attention;
  const { nHeads = 8, nKvHeads = 2, headSize = 64, window = 0 } = given;
  const group = nHeads / nKvHeads;
  let kv = Math.min(nKvHeads, 2);
  while ((kv * group * headSize) % block !== 0 && kv < Math.min(nKvHeads, 8)) kv++;
  /** @type {AttentionSettings} */
  const ofAttention = {
    kind: 'attention',
    norm: { kind: 'rms', eps: 1e-5 },
    postNorm: undefined,
    qkNorm: undefined,
    rope: {
      pairing: 'adjacent',
      nDims: headSize,
      base: 10000,
      linearScale: 1,
      divisors: undefined,
      magnitude: 1,
    },
    temperature: undefined,
    causal: true,
    scale: 1 / Math.sqrt(headSize),
    softcap: 0,
    residualScale: 1,
    ...given,
    headSize,
    nHeads: kv * group,
    nKvHeads: kv,
    // Short enough that some positions are behind it, and long enough for a split.
    window: window > 0 ? Math.min(window, 150) : 0,
  };
  const [nEmbd, nFf] = columns ?? COLUMNS[/** @type {1 | 32 | 256} */ (block)];
  /** @type {FeedSettings} */
  const ofFeed = {
    kind: 'gated',
    activation: 'silu',
    norm: { kind: 'rms', eps: 1e-5 },
    postNorm: undefined,
    residualScale: 1,
    ...feed,
    nFf,
  };
  /** @type {HeadSettings} */
  const ofHead = { norm: { kind: 'rms', eps: 1e-5 }, scale: 1, softcap: 0, ...head };
  return { attention: ofAttention, feed: ofFeed, head: ofHead, biases, outputBias, nEmbd };
}

/**
 * The synthetic layers and head. Every type is a matrix at least once.
 * @param {SelfTestOptions} options
 * @param {import('../wasm/kernels.js').Kernels} fm
 */
function makeModel(options, fm) {
  const types = [...new Set(options.types)];
  const blockOf = (/** @type {string} */ type) => servedType(type).blockValues;
  const block = Math.max(...types.map(blockOf));
  const settings = settingsOf(options, block);
  const { attention, feed, nEmbd, biases, outputBias } = settings;
  const { nHeads, nKvHeads, headSize, scale, qkNorm } = attention;
  const random = generator(0x2545f491);
  const unused = new Set(types);
  let turn = 0;
  const matrix = (/** @type {number} */ nRows, /** @type {number} */ nCols, mean = 0.02, given = '') => {
    const fitting = types.filter((type) => nCols % blockOf(type) === 0);
    const next = fitting.find((type) => unused.has(type)) ?? fitting[turn++ % Math.max(1, fitting.length)];
    const type = given || (next ?? 'F32');
    unused.delete(type);
    return makeMatrix(fm, { type, nRows, nCols, mean }, random);
  };
  const vector = (/** @type {number} */ n, mean = 1) => makeVector(n, mean, random);
  /** The mean of weights whose products are about `value`. */
  const meanFor = (/** @type {number} */ value) => value / (MEAN_STATE * nEmbd);
  // Scores are about 1 then: far from a softmax of one position, which would hide all others.
  const element = 1 / Math.sqrt(scale * headSize);
  const [q, kv] = [nHeads * headSize, nKvHeads * headSize];
  const row = qkNorm?.span === 'row';
  const tables = types.map((type) =>
    makeMatrix(fm, { type, nRows: TABLE_ROWS, nCols: nEmbd, mean: 1 }, random),
  );
  /** @type {{ attention: Tree, feed: Tree }[]} */
  const layers = [];
  /** @type {Matrix | undefined} */
  let output;
  do {
    const projected = qkNorm ? meanFor(4) : meanFor(element);
    const ofAttention = {
      norm: vector(nEmbd),
      q: matrix(q, nEmbd, projected),
      k: matrix(kv, nEmbd, projected),
      v: matrix(kv, nEmbd, meanFor(4)),
      output: matrix(nEmbd, q),
      ...(biases && { qBias: vector(q, element / 4), kBias: vector(kv, element / 4), vBias: vector(kv) }),
      ...(outputBias && { outputBias: vector(nEmbd) }),
      ...(qkNorm && {
        qNorm: vector(row ? q : headSize, element),
        kNorm: vector(row ? kv : headSize, element),
      }),
      ...(attention.postNorm && { postNorm: vector(nEmbd) }),
    };
    // Both have the same type, as in models.
    const up = matrix(feed.nFf, nEmbd, meanFor(2));
    const gate = feed.kind === 'gated' ? matrix(feed.nFf, nEmbd, meanFor(2), up.type) : undefined;
    const ofFeed = {
      norm: vector(nEmbd),
      gate,
      up,
      down: matrix(nEmbd, feed.nFf),
      ...(feed.postNorm && { postNorm: vector(nEmbd) }),
    };
    layers.push({ attention: ofAttention, feed: ofFeed });
    output ??= matrix(VOCABULARY, nEmbd, meanFor(4));
    for (const type of unused)
      if (q % blockOf(type) !== 0 && feed.nFf % blockOf(type) !== 0) unused.delete(type);
  } while (unused.size > 0);
  const head = { norm: vector(nEmbd), output };
  /** What hidden states are made for. */
  const plan = /** @type {Plan} */ (
    /** @type {unknown} */ ({
      nEmbd,
      nVocab: VOCABULARY,
      layers: [{ attention, feed }],
      tensors: outputBias ? [{ role: 'layers.0.attention.outputBias' }] : [],
    })
  );
  return { settings, layers, head, tables, plan, random };
}

/** @typedef {ReturnType<typeof makeModel>} Model */

const isMatrix = (/** @type {Matrix | Float32Array | undefined} */ leaf) =>
  leaf !== undefined && 'type' in leaf;

/** All trees of a model. @param {Model} model @returns {Tree[]} */
const treesOf = ({ layers, head, tables }) => [
  ...layers.flatMap(({ attention, feed }) => [attention, feed]),
  head,
  ...tables.map((table) => ({ table })),
];

/**
 * The weights of trees on a GPU.
 * @param {SelfTestOptions} options
 * @param {Tree[]} trees
 */
async function toGpu({ gpu, pipelines }, trees) {
  const matrices = trees.flatMap((tree) => /** @type {Matrix[]} */ (Object.values(tree).filter(isMatrix)));
  const weights = await allocateWeights(gpu, matrices);
  const commands = new Commands(gpu, pipelines);
  const uploader = new Uploader(gpu, pipelines, commands);
  /** @type {{ free: () => void }[]} */
  const owned = [...weights];
  try {
    await uploader.prepare(matrices.map(({ type }) => type));
    for (const [i, { data }] of matrices.entries()) {
      const writer = uploader.writer(weights[i]);
      await writer.write(data);
      writer.end();
    }
  } finally {
    uploader.free();
    commands.free();
  }
  const vector = (/** @type {Float32Array} */ values) => {
    const padded = new Float32Array(up16(values.length));
    padded.set(values);
    const made = new GpuVector(gpu.bufferOf(padded, { label: 'vector' }), values.length);
    owned.push(made);
    return made;
  };
  let next = 0;
  const made = trees.map((tree) =>
    mapLeaves(tree, (leaf) => (leaf instanceof Float32Array ? vector(leaf) : weights[next++])),
  );
  return { trees: made, owned };
}

/**
 * The weights of trees in wasm memory.
 * @param {import('../wasm/kernels.js').Kernels} fm
 * @param {Tree[]} trees
 */
function toWasm(fm, trees) {
  /** @type {{ free: () => void }[]} */
  const owned = [];
  const own = (/** @type {any} */ handle) => {
    owned.push(handle);
    return handle;
  };
  const made = trees.map((tree) =>
    mapLeaves(tree, (leaf, name) => {
      if (!(leaf instanceof Float32Array)) {
        const { type, nRows, nCols, data } = leaf;
        return own(fm.weight({ type, nRows, nCols, data }));
      }
      const nCols = leaf.length;
      const tensor = own(fm.tensor({ nRows: 1, nCols, data: leaf }));
      if (!name.endsWith('Bias')) return tensor;
      return { tensor, weight: own(fm.weight({ type: 'F32', nRows: 1, nCols, data: leaf })) };
    }),
  );
  return { trees: made, owned };
}

/** @param {Tree} tree @param {(leaf: Matrix | Float32Array, name: string) => any} map @returns {import('../backend.js').Weights} */
const mapLeaves = (tree, map) =>
  Object.fromEntries(
    Object.entries(tree).flatMap(([name, leaf]) => (leaf === undefined ? [] : [[name, map(leaf, name)]])),
  );

/** The rows of a self-test in hidden states: those of attention, then of feed-forward blocks, embeddings and heads. */
function layRows(/** @type {number} */ nTables, /** @type {readonly BlockName[]} */ blocks) {
  const has = (/** @type {BlockName} */ name) => blocks.includes(name);
  let row = 0;
  const take = (/** @type {number} */ n) => {
    row += n;
    return row - n;
  };
  const attention = RUNS.map((run) => {
    let position = 0;
    return (has('attention') ? ATTENTION_STEPS : []).flatMap(({ nTokens, attends }) => {
      position += nTokens;
      // The first run has filled the cache.
      if (run > 0 && !attends) return [];
      return [{ nTokens, attends, position: position - nTokens, seen: position, start: take(nTokens) }];
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
    RUNS.map(() => ({ position: 0, seen: 5, nTokens: 5, start: take(5) })),
  );
  const head = (has('head') ? [1, 5] : []).map((nRows) => ({ nRows, start: take(nRows), position: 0 }));
  return { attention, feed, tables, head, count: row };
}

/** @typedef {ReturnType<typeof layRows>} Rows */

/**
 * Hidden states of every row: those of the second run are those of the first.
 * @param {Rows} rows
 * @param {number} nCols
 * @param {import('./selftest-data.js').Generator} random
 */
function fillRows({ attention, feed, tables, head, count }, nCols, random) {
  const states = new Float32Array(count * nCols);
  const put = (/** @type {number} */ start, /** @type {Float32Array} */ values) =>
    states.set(values, start * nCols);
  for (const [first, ...others] of [attention, feed]) {
    for (const step of first) {
      const values = makeStates(step.nTokens, nCols, random);
      put(step.start, values);
      for (const run of others)
        for (const { position, nTokens, start } of run)
          if (position === step.position && nTokens === step.nTokens) put(start, values);
    }
  }
  for (const { start, nTokens } of tables.flat())
    states.fill(Number.NaN, start * nCols, (start + nTokens) * nCols);
  for (const { start, nRows } of head) put(start, makeStates(nRows, nCols, random));
  return states;
}

/** Chooses the largest. */
const SAMPLER = /** @type {import('../backend.js').TokenSampler} */ (
  /** @type {unknown} */ ({ options: { temperature: 0, repeatPenalty: 1 }, next: () => 0 })
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
 * @param {number} given.embeddingScale
 */
async function compute(backend, { settings, layers, plan }, weights, rows, given) {
  const { states, runs, plainRun, kvType, embeddingScale } = given;
  const { attention, feed, head } = settings;
  const plain = { postNorm: undefined, residualScale: 1 };
  const { nEmbd } = plan;
  const owned = /** @type {import('../backend.js').Resource[]} */ ([]);
  const own = (/** @type {any} */ resource) => {
    owned.push(resource);
    return resource;
  };
  try {
    const x = own(backend.hidden(plan, { batch: rows.count, part: PART }));
    const tokens = own(backend.tokens(16));
    backend.writeTokens(tokens, 0, IDS);
    /** Hidden states after each layer. @type {Float32Array[]} */
    const made = [];
    /** @type {Float32Array[][]} */
    const logits = [];
    /** @type {Uint32Array | undefined} */
    let largest;
    for (const i of layers.keys()) {
      const cache = own(backend.cache(attention, { contextLength: CONTEXT, kvType }));
      const blocks = {
        attention: { settings: attention, weights: weights[2 * i], layer: i },
        feed: { settings: feed, weights: weights[2 * i + 1], layer: i },
      };
      const plainBlocks = {
        attention: { ...blocks.attention, settings: { ...attention, ...plain } },
        feed: { ...blocks.feed, settings: { ...feed, ...plain } },
      };
      const table = (/** @type {number} */ t) => ({
        settings: { scale: embeddingScale },
        weights: weights[2 * layers.length + 1 + t],
      });
      const tableBlocks = rows.tables.map((_, t) => table(t));
      const ofHead = { settings: head, weights: weights[2 * layers.length] };
      backend.write(x, 0, states);
      /** @type {any[][]} */
      const outputs = [];
      for (const run of runs) {
        const { attention: ofAttention, feed: ofFeed } = run > 0 && plainRun ? plainBlocks : blocks;
        for (const { attends, ...at } of rows.attention[run]) {
          backend.project(x, ofAttention, cache, at);
          if (attends) backend.attend(x, ofAttention, cache, at);
        }
        for (const at of rows.feed[run]) backend.feed(x, ofFeed, at);
        if (i > 0) continue;
        for (const [t, of] of rows.tables.entries()) backend.embed(tokens, x, tableBlocks[t], of[run]);
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
        logits[run] = [];
        for (const of of outputs[run]) logits[run].push(await readSafely(() => backend.read(of)));
      }
      largest = await readSafely(() => backend.readTokens(tokens, 8, 4));
    }
    return { nEmbd, made, logits, largest: /** @type {Uint32Array} */ (largest) };
  } finally {
    for (const resource of owned) if (!resource.freed) resource.free();
  }
}

/** @typedef {Awaited<ReturnType<typeof compute>>} Results */

/**
 * Reads. A NaN in the results is an error of the first read only: it is found again by the comparison.
 * @template T
 * @param {() => Promise<T>} read
 * @returns {Promise<T>}
 */
async function readSafely(read) {
  try {
    return await read();
  } catch (error) {
    if (error instanceof NumericError) return readSafely(read);
    throw error;
  }
}

/** Gathers comparisons. */
class Comparison {
  /** @type {Case[]} */
  cases = [];

  /**
   * @param {string} name
   * @param {number} nCols
   * @param {Float32Array} got
   * @param {Float32Array} again  the same of the second run
   * @param {Float32Array} expected
   * @param {(row: number) => (c: number) => number} boundOf
   */
  add(name, nCols, got, again, expected, boundOf) {
    let worst = 0;
    for (let row = 0; row < got.length / nCols; row++) {
      const bound = boundOf(row);
      for (let c = 0; c < nCols; c++) {
        const i = row * nCols + c;
        const error = Math.abs(got[i] - expected[i]) / bound(c);
        // Written so that NaN is the worst.
        if (!(error <= worst)) worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
      }
    }
    if (got.some((value, i) => value !== again[i])) worst = Number.POSITIVE_INFINITY;
    this.cases.push({ name, good: worst <= 1, error: worst });
  }
}

/** @param {number} n */
const tokensOf = (n) => (n === 1 ? '1 token' : `${n} tokens`);
/** @param {...Matrix} weights */
const typesOf = (...weights) => [...new Set(weights.map(({ type }) => type))].join(' and ');

/**
 * Compares the results of both backends.
 * @param {SelfTestOptions} options
 * @param {Model} model
 * @param {Rows} rows
 * @param {Float32Array} states
 * @param {Results} gpu
 * @param {Results} cpu
 * @param {(layer: number, x: Float32Array) => Float64Array} leastOf  see leastHeads()
 */
function compare(
  { kvType = 'F16', embeddingScale = 1, variants: { int8 } },
  model,
  rows,
  states,
  gpu,
  cpu,
  leastOf,
) {
  const { settings, layers, head, tables } = model;
  const { nEmbd } = gpu;
  const all = new Comparison();
  const rowsOf = (
    /** @type {Float32Array} */ of,
    /** @type {{ start: number, nTokens: number }} */ { start, nTokens },
  ) => of.subarray(start * nEmbd, (start + nTokens) * nEmbd);
  const before = (/** @type {number} */ row) => states.subarray(row * nEmbd, (row + 1) * nEmbd);
  for (const [i, { attention, feed }] of layers.entries()) {
    const of = /** @type {Record<'q' | 'k' | 'v' | 'output', Matrix>} */ (/** @type {unknown} */ (attention));
    const ofFeed = /** @type {{ gate: Matrix | undefined, up: Matrix, down: Matrix }} */ (
      /** @type {unknown} */ (feed)
    );
    /** The comparison of the rows of a step, whose result is x + by * added. */
    const block = (
      /** @type {'attention' | 'feed'} */ what,
      /** @type {string} */ name,
      /** @type {Step[]} */ steps,
      /** @type {(row: number, t: number) => Float64Array} */ errorsOf,
    ) => {
      const [first, second] = steps;
      const { postNorm, residualScale } = settings[what];
      const plain = rowsOf(cpu.made[i], second);
      const expected = rowsOf(cpu.made[i], first);
      all.add(name, nEmbd, rowsOf(gpu.made[i], first), rowsOf(gpu.made[i], second), expected, (t) => {
        const x = before(first.start + t);
        let errors = errorsOf(first.start + t, t);
        if (postNorm) {
          const added = plain.subarray(t * nEmbd, (t + 1) * nEmbd).map((value, c) => value - x[c]);
          const gain = /** @type {Float32Array} */ (layers[i][what].postNorm);
          errors = postNormErrors(errors, added, gain, postNorm.eps);
        }
        return (c) => sumError(errors[c], x[c], expected[t * nEmbd + c], residualScale);
      });
    };
    const sizeOf = (/** @type {number} */ row, /** @type {'attention' | 'feed'} */ what) =>
      settings[what].norm
        ? normedSize(before(row), /** @type {Float32Array} */ (layers[i][what].norm), settings[what].norm.eps)
        : normOf(before(row));
    const vectors = /** @type {Record<string, Float32Array | undefined>} */ (attention);
    const bounds = attentionErrors(settings.attention, of, vectors, kvType, int8);
    for (const step of rows.attention[0]) {
      const { nTokens, position, start, seen, attends } = step;
      const least = leastOf(i, rowsOf(states, step));
      const facts = Array.from({ length: nTokens }, (_, t) => ({
        normed: sizeOf(start + t, 'attention'),
        position: position + t,
        least: least[t],
        many: nTokens > FEW,
      }));
      for (const one of facts) bounds.store(one);
      if (!attends) continue;
      const again = /** @type {Step} */ (rows.attention[1].find((other) => other.position === position));
      const from = position === 0 ? '' : ` from position ${position} on`;
      const name = `project and attend, ${tokensOf(nTokens)}${from}, ${typesOf(of.q, of.k, of.v, of.output)}`;
      block('attention', name, [step, again], (_, t) => bounds.attend(facts[t], seen));
    }
    const errors = [false, int8].map((mode) => feedErrors(settings.feed, ofFeed, mode));
    for (const [n, step] of rows.feed[0].entries()) {
      const { nTokens } = step;
      const name = `feed, ${tokensOf(nTokens)}, ${typesOf(ofFeed.up, ofFeed.down)}`;
      block('feed', name, [step, rows.feed[1][n]], (row) =>
        errors[Number(nTokens > FEW)](sizeOf(row, 'feed')),
      );
    }
  }
  for (const [t, [first, second]] of rows.tables.entries()) {
    const table = tables[t];
    const bound = embedError(table, embeddingScale);
    const [got, again, expected] = [
      rowsOf(gpu.made[0], first),
      rowsOf(gpu.made[0], second),
      rowsOf(cpu.made[0], first),
    ];
    all.add(`embed, 5 tokens, ${table.type}`, nEmbd, got, again, expected, () => () => bound);
  }
  const { norm, scale, softcap } = settings.head;
  const errors = headErrors(head.output);
  for (const [n, { nRows, start }] of rows.head.entries()) {
    const [got, again, expected] = [gpu.logits[0][n], gpu.logits[1][n], cpu.logits[0][n]];
    all.add(`head, ${tokensOf(nRows)}, ${head.output.type}`, VOCABULARY, got, again, expected, (row) => {
      const of = errors(normedSize(before(start + row), head.norm, norm.eps));
      return (c) => sumError(of[c], 0, expected[row * VOCABULARY + c], scale) + 1e-5 * softcap;
    });
    const last = got.subarray((nRows - 1) * VOCABULARY);
    const most = last.indexOf(last.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY));
    const good = RUNS.every((run) => gpu.largest[2 * run + n] === most);
    all.cases.push({
      name: `largest logit, ${tokensOf(nRows)}`,
      good,
      error: good ? 0 : Number.POSITIVE_INFINITY,
    });
  }
  return all.cases;
}

/**
 * Compares all kernels that models with these types and settings use with those of the wasm module.
 * @param {SelfTestOptions} options
 * @param {WasmBackend} wasmBackend  in the activation mode f32
 * @returns {Promise<SelfTestResult>}
 * @throws {GpuError} the driver rejects a kernel, or the device failed
 */
export async function selfTest(options, wasmBackend) {
  const { gpu, pipelines, variants, kvType = 'F16', embeddingScale = 1, blocks = BLOCKS } = options;
  const began = performance.now();
  const fm = wasmBackend.kernels;
  const model = makeModel(options, fm);
  const { plan, settings, layers, random } = model;
  const rows = layRows(model.tables.length, blocks);
  const states = fillRows(rows, plan.nEmbd, random);
  const given = { states, kvType, embeddingScale };
  const backend = new GpuBackend(gpu, { kvType, variants, pipelines });
  /** @type {{ free: () => void }[]} */
  const owned = [];
  /** @type {Promise<unknown>} */
  let working = Promise.resolve();
  try {
    const trees = treesOf(model);
    const onGpu = await toGpu(options, trees);
    owned.push(...onGpu.owned);
    const computing = compute(backend, model, onGpu.trees, rows, { ...given, runs: RUNS });
    working = computing.catch(() => {});
    const onCpu = toWasm(fm, trees);
    owned.push(...onCpu.owned);
    // With norms of what a block adds, a second run on the CPU leaves them out: bounds depend on what is normalised.
    const plainRun = settings.attention.postNorm || settings.feed.postNorm;
    const expected = await compute(wasmBackend, model, onCpu.trees, rows, {
      ...given,
      runs: plainRun ? RUNS : [0],
      plainRun: true,
    });
    const got = await computing;
    const cases = compare(options, model, rows, states, got, expected, (layer, x) =>
      leastHeads(
        fm,
        settings.attention,
        onCpu.trees[2 * layer],
        /** @type {any} */ (layers[layer].attention),
        x,
      ),
    );
    return { ms: performance.now() - began, cases, failed: cases.filter(({ good }) => !good) };
  } finally {
    await working;
    for (const one of owned) one.free();
    backend.dispose();
  }
}

/**
 * The norms of the smallest heads of queries and keys, by row, where they are normalised: bounds depend on them. A norm of all heads
 * counts as that of each.
 * @param {import('../wasm/kernels.js').Kernels} fm
 * @param {AttentionSettings} settings
 * @param {import('../backend.js').Weights} weights
 * @param {Record<string, Float32Array | undefined>} vectors
 * @param {Float32Array} x
 * @returns {Float64Array}
 */
function leastHeads(fm, { norm, qkNorm, nHeads, nKvHeads, headSize }, weights, vectors, x) {
  const nRows = x.length / weights.q.nCols;
  if (!qkNorm) return new Float64Array(nRows).fill(1);
  const options = { activation: /** @type {const} */ ('f32') };
  const products = norm
    ? fm.fusedRmsNormMatmul([weights.q, weights.k], x, vectors.norm, { ...options, eps: norm.eps })
    : fm.fusedMatmulMany([weights.q, weights.k], x, options);
  const least = new Float64Array(nRows).fill(Number.POSITIVE_INFINITY);
  for (const [i, n] of [nHeads, nKvHeads].entries()) {
    const bias = vectors[i === 0 ? 'qBias' : 'kBias'];
    const nCols = n * headSize;
    const size = qkNorm.span === 'head' ? headSize : nCols;
    const values = products[i].map((value, at) => value + (bias?.[at % nCols] ?? 0));
    for (let at = 0; at < values.length; at += size) {
      const t = Math.floor(at / nCols);
      const norm =
        Math.sqrt(normOf(values.subarray(at, at + size)) ** 2 + qkNorm.eps * size) *
        Math.sqrt(headSize / size);
      least[t] = Math.min(least[t], norm);
    }
  }
  return least;
}

/** What was chosen and why, in sentences. @typedef {{ variants: Variants, report: string[] }} Choice */

/**
 * The kernels that a GPU has, faster ones first.
 * @param {boolean} subgroups
 * @param {boolean} int8
 * @returns {Variants[]}
 */
const candidatesOf = (subgroups, int8) =>
  [
    { subgroups: true, int8: true },
    { subgroups: false, int8: true },
    { subgroups: true, int8: false },
    { subgroups: false, int8: false },
  ].filter((one) => (subgroups || !one.subgroups) && (int8 || !one.int8));

/** @param {Variants} variants */
const nameOf = ({ subgroups, int8 }) => {
  const uses = [...(subgroups ? ['subgroups'] : []), ...(int8 ? ['int8'] : [])];
  return uses.length === 0 ? 'plain kernels' : `kernels with ${uses.join(' and ')}`;
};

/** Cases that a sentence names. */
const SHOWN = 3;

/** @param {Case[]} cases */
const named = (cases) =>
  `${cases
    .slice(0, SHOWN)
    .map(({ name, error }) => `"${name}" (${error.toPrecision(3)} times what rounding explains)`)
    .join(', ')}${cases.length > SHOWN ? ` and ${cases.length - SHOWN} more` : ''}`;

/**
 * The fastest kernels that compute on this GPU what the wasm module does.
 * @param {Omit<SelfTestOptions, 'variants'>} options
 * @param {WasmBackend} wasmBackend  in the activation mode f32
 * @returns {Promise<Choice & { tests: SelfTestResult[] }>}
 * @throws {GpuError} `selftest`: not even the plain kernels do; `shader`: the driver rejects one of them; or the device failed
 */
export async function chooseVariants(options, wasmBackend) {
  const { features } = options.gpu;
  const int8 = options.int8 === true && features.has('dot4I8Packed');
  const candidates = candidatesOf(features.has('subgroups'), int8);
  /** @type {string[]} */
  const report = [];
  /** @type {SelfTestResult[]} */
  const tests = [];
  for (const variants of candidates) {
    const name = nameOf(variants);
    const isLast = variants === candidates.at(-1);
    let test;
    try {
      test = await selfTest({ ...options, variants }, wasmBackend);
    } catch (error) {
      if (isLast || !(error instanceof GpuError && error.reason === 'shader')) throw error;
      report.push(`The ${name} are not used: ${error.message}.`);
      continue;
    }
    tests.push(test);
    const { cases, failed, ms } = test;
    if (failed.length === 0) {
      report.push(
        `The ${name} are used: all ${cases.length} cases of the self-test passed in ${Math.round(ms)} ms.`,
      );
      return { variants, report, tests };
    }
    const what = `${failed.length} of ${cases.length} cases of the self-test failed: ${named(failed)}`;
    if (isLast)
      throw new GpuError(`kernels compute wrong results on ${options.gpu.name}: ${what}`, 'selftest');
    report.push(`The ${name} are not used: ${what}.`);
  }
  throw new GpuError('there are no kernels to test', 'selftest');
}
