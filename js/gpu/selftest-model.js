/* The synthetic model of the self-test: layers and a head with the types and settings of the real
 * model, on the GPU and in wasm memory. */

import { servedType } from '../types.js';
import { Commands } from './commands.js';
import { alternating, generator, makeMatrix, makeVector } from './selftest-data.js';
import { withPadding } from './shader.js';
import { Uploader } from './upload.js';
import { GpuVector } from './vectors.js';
import { allocateWeights } from './weights.js';

/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('./selftest.js').SelfTestOptions} SelfTestOptions */
/** @typedef {import('./selftest-data.js').Matrix} Matrix */
/** @typedef {typeof import('./selftest-experts.js')} ExpertsTest */

/** Rows of numbers. @typedef {{ nRows: number, nCols: number, values: Float32Array }} Values */

/**
 * A leaf is a matrix, a vector, or several rows of numbers.
 * @typedef {Matrix | Float32Array | Values} Leaf
 */

/** @typedef {Record<string, Leaf | undefined>} Tree */

/** More than one pass of the search for the largest takes, and odd. */
export const VOCABULARY = 4099;
export const TABLE_ROWS = 331;
/** Mean of a normalised hidden state. */
const MEAN_STATE = 0.75;

/**
 * Columns by the largest block of the types: not many, with a tail where blocks are small; enough
 * between gate and down to be split.
 */
export const COLUMNS = /** @type {const} */ ({
  1: [282, 2058],
  32: [288, 2080],
  64: [320, 2112],
  128: [384, 2176],
  256: [256, 2304],
});

/** The mean of weights whose products are about `value`. @param {number} value @param {number} nEmbd */
export const meanFor = (value, nEmbd) => value / (MEAN_STATE * nEmbd);

/**
 * The settings of a synthetic layer: those of the model, with fewer heads.
 * @param {SelfTestOptions} options
 * @param {number} block  the largest of the types
 * @param {ExpertsTest | undefined} mixtures  there with experts
 */
function settingsOf({ attention = {}, feed = {}, head = {}, embedding = {}, columns }, block, mixtures) {
  const { biases = false, outputBias = false, ...given } = attention;
  const { nHeads = 8, nKvHeads = 2, headSize = 64, window = 0, causal = true } = given;
  const group = nHeads / nKvHeads;
  let kv = Math.min(nKvHeads, 2);
  while ((kv * group * headSize) % block !== 0 && kv < Math.min(nKvHeads, 8)) kv++;
  /** @type {AttentionSettings} */
  const ofAttention = {
    kind: 'attention',
    norm: { kind: 'rms', eps: 1e-5 },
    postNorm: undefined,
    sumNorm: undefined,
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
    causal,
    scale: 1 / Math.sqrt(headSize),
    softcap: 0,
    residualScale: 1,
    ...given,
    headSize,
    nHeads: kv * group,
    nKvHeads: kv,
    // Short enough that some positions are outside, and long enough for a split.
    window: window > 0 ? Math.min(window, causal ? 150 : 200) : 0,
  };
  const [nEmbd, nFf] = columns ?? COLUMNS[/** @type {keyof typeof COLUMNS} */ (block)];
  /** @type {FeedSettings} */
  const ofFeed = {
    kind: 'gated',
    activation: 'silu',
    norm: { kind: 'rms', eps: 1e-5 },
    postNorm: undefined,
    sumNorm: undefined,
    residualScale: 1,
    ...feed,
    nFf,
  };
  /** @type {HeadSettings} */
  const ofHead = { norm: { kind: 'rms', eps: 1e-5 }, scale: 1, softcap: 0, ...head };
  const mixture =
    mixtures && feed.experts && mixtures.smallMixture(ofFeed, feed.experts, block, columns?.[1]);
  return {
    attention: ofAttention,
    feed: mixture ?? ofFeed,
    head: ofHead,
    /** @type {import('../llama/plan.js').EmbeddingSettings} */
    embedding: { scale: 1, norm: undefined, ...embedding },
    ...{ biases, outputBias, nEmbd },
  };
}

/**
 * The synthetic layers and head. Every type is a matrix at least once.
 * @param {SelfTestOptions} options
 * @param {import('../wasm/kernels.js').Kernels} fm
 * @param {ExpertsTest} [mixtures]  there with experts
 */
export function makeModel(options, fm, mixtures) {
  const types = [...new Set(options.types)];
  const blockOf = (/** @type {string} */ type) => servedType(type).blockValues;
  const block = Math.max(...types.map(blockOf));
  const settings = settingsOf(options, block, mixtures);
  const { attention, feed, head, embedding, nEmbd, biases, outputBias } = settings;
  const { blocks, embeddingRoles = [], feedRoles = [], normBiases = [] } = options;
  const { nHeads, nKvHeads, headSize, scale, qkNorm } = attention;
  const random = generator(0x2545f491);
  const unused = new Set(types);
  // Each type of experts is up and gate of a layer, and down of one: they have kernels of their own.
  const ofExperts = feed.experts ? (options.expertTypes ?? []) : [];
  const [unusedIn, unusedOut] = [new Set(ofExperts), new Set(ofExperts)];
  const expertType = (/** @type {Set<string>} */ left, /** @type {number} */ nCols) => {
    const fitting = ofExperts.filter((type) => nCols % blockOf(type) === 0);
    const type = fitting.find((one) => left.has(one)) ?? fitting[0] ?? '';
    for (const one of left) if (one === type || !fitting.includes(one)) left.delete(one);
    return type;
  };
  let turn = 0;
  const matrix = (/** @type {number} */ nRows, /** @type {number} */ nCols, mean = 0.02, given = '') => {
    const fitting = types.filter((type) => nCols % blockOf(type) === 0);
    const next = fitting.find((type) => unused.has(type)) ?? fitting[turn++ % Math.max(1, fitting.length)];
    const type = given || (next ?? 'F32');
    unused.delete(type);
    return makeMatrix(fm, { type, nRows, nCols, mean }, random);
  };
  const vector = (/** @type {number} */ n, mean = 1) => makeVector(n, mean, random);
  /**
   * The weight of a norm, and its bias.
   * @param {string} of  path of the norm
   * @param {import('../llama/plan.js').Norm | undefined} norm
   * @returns {Tree}
   */
  const normed = (of, norm) => {
    const role = of.replace(/.*\./, '');
    const weight = vector(nEmbd);
    if (norm?.kind !== 'layer') return { [role]: weight };
    const bias = normBiases.includes(of) && { [`${role}Bias`]: vector(nEmbd, 0.5) };
    return { [role]: alternating(weight), ...bias };
  };
  // Scores are about 1 then: far from a softmax of one position, which would hide all others.
  const element = 1 / Math.sqrt(scale * headSize);
  const [q, kv] = [nHeads * headSize, nKvHeads * headSize];
  const row = qkNorm?.span === 'row';
  const tables = types.map((type) => {
    const rows = () => makeMatrix(fm, { type, nRows: TABLE_ROWS, nCols: nEmbd, mean: 1 }, random);
    const table = rows();
    return {
      table,
      ...(embeddingRoles.includes('positions') && { positions: rows() }),
      ...(embeddingRoles.includes('types') && { types: vector(nEmbd) }),
      ...(embedding.norm && normed('embedding.norm', embedding.norm)),
    };
  });
  /** @type {{ attention: Tree, feed: Tree }[]} */
  const layers = [];
  /** @type {Matrix | undefined} */
  let output;
  do {
    const projected = meanFor(qkNorm ? 4 : element, nEmbd);
    const ofAttention = {
      ...normed('attention.norm', attention.norm),
      q: matrix(q, nEmbd, projected),
      k: matrix(kv, nEmbd, projected),
      v: matrix(kv, nEmbd, meanFor(4, nEmbd)),
      output: matrix(nEmbd, q),
      ...(attention.outputGate && { gate: matrix(q, nEmbd, meanFor(1, nEmbd)) }),
      ...(biases && { qBias: vector(q, element / 4), kBias: vector(kv, element / 4), vBias: vector(kv) }),
      ...(outputBias && { outputBias: vector(nEmbd) }),
      ...(qkNorm && {
        qNorm: vector(row ? q : headSize, element),
        kNorm: vector(row ? kv : headSize, element),
      }),
      ...(attention.postNorm && { postNorm: vector(nEmbd) }),
      ...(attention.sumNorm && normed('attention.sumNorm', attention.sumNorm)),
    };
    // Both have the same type, as in models.
    const n = feed.experts?.nExperts ?? 1;
    const up = matrix(n * feed.nFf, nEmbd, meanFor(2, nEmbd), expertType(unusedIn, nEmbd));
    const gate = feed.kind === 'plain' ? undefined : matrix(n * feed.nFf, nEmbd, meanFor(2, nEmbd), up.type);
    const ofFeed = {
      ...normed('feed.norm', feed.norm),
      gate,
      up,
      // Few columns: their values are larger.
      down: matrix(n * nEmbd, feed.nFf, feed.experts ? 1 : undefined, expertType(unusedOut, feed.nFf)),
      ...(feed.experts &&
        mixtures?.mixtureTensors({ ...feed, experts: feed.experts }, nEmbd, feedRoles, {
          ...{ matrix, vector, meanFor },
        })),
      ...(!feed.experts && feedRoles.includes('upBias') && { upBias: vector(feed.nFf) }),
      ...(!feed.experts && feedRoles.includes('downBias') && { downBias: vector(nEmbd) }),
      ...(feed.postNorm && { postNorm: vector(nEmbd) }),
      ...(feed.sumNorm && normed('feed.sumNorm', feed.sumNorm)),
    };
    layers.push({ attention: ofAttention, feed: ofFeed });
    if (!blocks || blocks.includes('head')) output ??= matrix(VOCABULARY, nEmbd, meanFor(4, nEmbd));
    for (const type of unused)
      if (q % blockOf(type) !== 0 && feed.nFf % blockOf(type) !== 0) unused.delete(type);
  } while (unused.size + unusedIn.size + unusedOut.size > 0);
  const ofHead = { ...normed('head.norm', head.norm), output };
  /** The parts of a plan that hidden states need. */
  const plan = /** @type {Plan} */ (
    /** @type {unknown} */ ({
      nEmbd,
      nVocab: VOCABULARY,
      layers: [{ attention, feed }],
      embedding: {},
      tensors: outputBias ? [{ role: 'layers.0.attention.outputBias' }] : [],
    })
  );
  return { settings, layers, head: ofHead, tables, plan, random };
}

/** @typedef {ReturnType<typeof makeModel>} Model */

const isMatrix = (/** @type {Leaf | undefined} */ leaf) => leaf !== undefined && 'type' in leaf;

/** Leaves that are no matrices, as rows. @param {Exclude<Leaf, Matrix>} leaf @returns {Values} */
const rowsOf = (leaf) =>
  leaf instanceof Float32Array ? { nRows: 1, nCols: leaf.length, values: leaf } : leaf;

/** All trees of a model. @param {Model} model @returns {Tree[]} */
export const treesOf = ({ layers, head, tables }) => [
  ...layers.flatMap(({ attention, feed }) => [attention, feed]),
  head,
  ...tables,
];

/**
 * The weights of trees on a GPU.
 * @param {Pick<SelfTestOptions, 'gpu' | 'pipelines'>} options
 * @param {Tree[]} trees
 */
export async function toGpu({ gpu, pipelines }, trees) {
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
    const vector = (/** @type {Exclude<Leaf, Matrix>} */ leaf) => {
      const { nRows, nCols, values } = rowsOf(leaf);
      const padded = withPadding(values, nCols);
      const made = new GpuVector(gpu.bufferOf(padded, { label: 'vector' }), nCols, undefined, nRows);
      owned.push(made);
      return made;
    };
    let next = 0;
    const made = trees.map((tree) =>
      mapLeaves(tree, (leaf) => ('type' in leaf ? weights[next++] : vector(leaf))),
    );
    return { trees: made, owned };
  } catch (error) {
    for (const one of owned) one.free();
    throw error;
  } finally {
    uploader.free();
    commands.free();
  }
}

/**
 * The weights of trees in wasm memory.
 * @param {import('../wasm/kernels.js').Kernels} fm
 * @param {Tree[]} trees
 */
export function toWasm(fm, trees) {
  /** @type {{ free: () => void }[]} */
  const owned = [];
  const own = (/** @type {any} */ handle) => {
    owned.push(handle);
    return handle;
  };
  const made = trees.map((tree) =>
    mapLeaves(tree, (leaf) => {
      if (!('type' in leaf)) {
        const { values, ...shape } = rowsOf(leaf);
        return own(fm.tensor({ ...shape, data: values }));
      }
      const { type, nRows, nCols, data } = leaf;
      return own(fm.weight({ type, nRows, nCols, data }));
    }),
  );
  return { trees: made, owned };
}

/**
 * @param {Tree} tree
 * @param {(leaf: Leaf) => any} map
 * @returns {import('../backend.js').Weights}
 */
const mapLeaves = (tree, map) =>
  Object.fromEntries(
    Object.entries(tree).flatMap(([name, leaf]) => (leaf === undefined ? [] : [[name, map(leaf)]])),
  );
