/* The comparison of all kernels with the wasm module, before they are used: blocks of a synthetic
 * model with the types and settings of the real one, on shapes and numbers that drivers have failed
 * at. Both backends get the same hidden states before each block, and what they make of them must
 * not be further apart than rounding allows (selftest-bounds.js). The GPU computes everything
 * twice, and must give the same bits. Buffers that a kernel should fill hold NaN or zeros before,
 * so a kernel that does nothing is found. */

import { performance } from '../node.js';
import { GpuBackend } from './backend.js';
import { loadBlocks } from './blocks.js';
import { GpuError } from './errors.js';
import { PLAIN, precisionOf } from './features.js';
import { FEW } from './products.js';
import {
  attentionErrors,
  embedError,
  feedErrors,
  headErrors,
  normErrors,
  normedSize,
  normOf,
  sumError,
  u,
} from './selftest-bounds.js';
import { makeModel, toGpu, toWasm, treesOf, VOCABULARY } from './selftest-model.js';
import { compute, fillRows, layRows, RUNS } from './selftest-run.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('../wasm/backend.js').WasmBackend} WasmBackend */
/** @typedef {import('./products.js').Variants} Variants */
/** @typedef {import('./selftest-data.js').Matrix} Matrix */
/** @typedef {import('./selftest-model.js').Model} Model */
/** @typedef {import('./selftest-run.js').Results} Results */
/** @typedef {import('./selftest-run.js').Rows} Rows */

/**
 * What is tested, and with what.
 * @typedef {object} SelfTestOptions
 * @property {import('./device.js').GpuDevice} gpu
 * @property {import('./pipelines.js').Pipelines} pipelines which the model will use too
 * @property {Variants} variants  forms of kernels
 * @property {import('../wasm/kv-cache.js').KvType} [kvType] default F16
 * @property {readonly string[]} types of the weights in use
 * @property {Partial<AttentionSettings> & { biases?: boolean, outputBias?: boolean }} [attention]
 *   settings of the model, as far as they differ from the defaults
 * @property {import('../llama/plan.js').RecurrentSettings} [recurrent]  of the model, if it has any
 * @property {readonly string[]} [recurrentRoles]  tensors of its recurrent blocks; default: all
 * @property {Partial<FeedSettings>} [feed]
 * @property {readonly string[]} [feedRoles]  tensors that a model may lack
 * @property {readonly string[]} [expertTypes]  types of the weights of experts; default: taken from `types`
 * @property {Partial<HeadSettings>} [head]
 * @property {Partial<import('../llama/plan.js').EmbeddingSettings>} [embedding]
 * @property {readonly string[]} [embeddingRoles]  'positions' and 'types', where a model has them
 * @property {readonly string[]} [normBiases]  layer norms that have biases, e.g. 'attention.sumNorm'
 * @property {readonly BlockName[]} [blocks] the only ones that are tested
 * @property {readonly [nEmbd: number, nFf: number]} [columns] of hidden states, and between gate
 *   and down
 */

/**
 * 'states' is the final norm of states that are read, tested where a model has no output matrix.
 * @typedef {'embed' | 'attention' | 'recurrent' | 'feed' | 'head' | 'states'} BlockName
 */

/**
 * A comparison. error: of the worst value, in units of its bound; infinite where values are NaN, or
 * differ between two runs.
 * @typedef {{ name: string, good: boolean, error: number }} Case
 */

/** @typedef {{ ms: number, cases: Case[], failed: Case[] }} SelfTestResult */

/** @type {readonly BlockName[]} */
const BLOCKS = ['embed', 'attention', 'recurrent', 'feed', 'head'];

/** Gathers comparisons. */
export class Comparison {
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
 * @param {import('./selftest-model.js').ExpertsTest} [mixtures]  there with experts
 */
function compare({ kvType = 'F16', variants }, model, rows, states, gpu, cpu, leastOf, mixtures) {
  const { settings, layers, tables } = model;
  const head = /** @type {{ norm: Float32Array, normBias?: Float32Array, output: Matrix }} */ (
    /** @type {unknown} */ (model.head)
  );
  const precision = precisionOf(variants, true);
  const { nEmbd } = gpu;
  const all = new Comparison();
  const rowsOf = (
    /** @type {Float32Array} */ of,
    /** @type {{ start: number, nTokens: number }} */ { start, nTokens },
  ) => of.subarray(start * nEmbd, (start + nTokens) * nEmbd);
  const before = (/** @type {number} */ row) => states.subarray(row * nEmbd, (row + 1) * nEmbd);
  for (const [i, { attention, feed }] of layers.entries()) {
    const of = /** @type {Record<'q' | 'k' | 'v' | 'output', Matrix> & { gate?: Matrix }} */ (
      /** @type {unknown} */ (attention)
    );
    const ofFeed = /** @type {{ gate: Matrix | undefined, up: Matrix, down: Matrix }} */ (
      /** @type {unknown} */ (feed)
    );
    /** The comparison of the rows of a step, whose result is sumNorm(x + by * postNorm(added)). */
    const block = (
      /** @type {'attention' | 'feed'} */ what,
      /** @type {string} */ name,
      /** @type {Step[]} */ steps,
      /** @type {(row: number, t: number) => Float64Array} */ errorsOf,
    ) => {
      const [first, second] = steps;
      const { postNorm, sumNorm, residualScale } = settings[what];
      const { postNorm: gain, sumNorm: ofSum, sumNormBias } = /** @type {any} */ (layers[i][what]);
      const plain = rowsOf(cpu.made[i], second);
      const expected = rowsOf(cpu.made[i], first);
      all.add(name, nEmbd, rowsOf(gpu.made[i], first), rowsOf(gpu.made[i], second), expected, (t) => {
        const x = before(first.start + t);
        let errors = errorsOf(first.start + t, t);
        const plainRow = plain.subarray(t * nEmbd, (t + 1) * nEmbd);
        if (postNorm) {
          const added = plainRow.map((value, c) => value - x[c]);
          errors = normErrors(errors, added, gain, postNorm);
        }
        if (!sumNorm) return (c) => sumError(errors[c], x[c], expected[t * nEmbd + c], residualScale);
        // No block has both norms.
        const sum = plainRow.map((value, c) => x[c] + residualScale * (value - x[c]));
        const ofSums = errors.map((error, c) => sumError(error, x[c], sum[c], residualScale));
        const normed = normErrors(ofSums, sum, ofSum, sumNorm, sumNormBias);
        return (c) => normed[c];
      });
    };
    const sizeOf = (/** @type {number} */ row, /** @type {'attention' | 'feed'} */ what) => {
      const { norm } = settings[what];
      const { norm: gain, normBias } = /** @type {any} */ (layers[i][what]);
      return norm ? normedSize(before(row), gain, norm.eps, norm.kind, normBias) : normOf(before(row));
    };
    const vectors = /** @type {Record<string, Float32Array | undefined>} */ (attention);
    const bounds = attentionErrors(settings.attention, of, vectors, kvType, precision);
    const factsOf = (/** @type {Rows['attention'][0][0]} */ step) => {
      const { nTokens, position, start } = step;
      const least = leastOf(i, rowsOf(states, step));
      return Array.from({ length: nTokens }, (_, t) => ({
        normed: sizeOf(start + t, 'attention'),
        position: position + t,
        least: least[t],
        many: nTokens > FEW,
      }));
    };
    const ofSteps = rows.attention[0].map((step) => ({ step, facts: factsOf(step) }));
    if (!settings.attention.causal)
      for (const one of ofSteps.flatMap(({ facts }) => facts)) bounds.store(one);
    for (const { step, facts } of ofSteps) {
      const { nTokens, position, seen, attends } = step;
      for (const one of facts) bounds.store(one);
      if (!attends) continue;
      const again = /** @type {Step} */ (rows.attention[1].find((other) => other.position === position));
      const from = position === 0 ? '' : ` from position ${position} on`;
      const name = `project and attend, ${tokensOf(nTokens)}${from}, ${typesOf(of.q, of.k, of.v, of.output)}`;
      block('attention', name, [step, again], (_, t) => bounds.attend(facts[t], seen));
    }
    const { experts } = settings.feed;
    const ofMixture = experts && mixtures?.mixtureErrors({ ...settings.feed, experts }, feed);
    const modes = /** @type {const} */ (['f32', precision]);
    const { upBias } = /** @type {{ upBias?: Float32Array }} */ (/** @type {unknown} */ (feed));
    const ofDense = ofMixture ? [] : modes.map((mode) => feedErrors(settings.feed, ofFeed, mode, upBias));
    for (const [n, step] of rows.feed[0].entries()) {
      const { nTokens } = step;
      const name = `feed, ${tokensOf(nTokens)}, ${typesOf(ofFeed.up, ofFeed.down)}`;
      block(
        'feed',
        name,
        [step, rows.feed[1][n]],
        (row) => ofMixture?.(before(row)) ?? ofDense[Number(nTokens > FEW)](sizeOf(row, 'feed')),
      );
    }
  }
  for (const [t, [first, second]] of rows.tables.entries()) {
    const { table, positions, types, norm: gain, normBias } = /** @type {any} */ (tables[t]);
    const { scale, norm } = settings.embedding;
    const most = types?.reduce((/** @type {number} */ a, /** @type {number} */ b) => Math.max(a, b)) ?? 0;
    const bound = embedError(table, scale) + (positions ? embedError(positions, 1) : 0) + 8 * u * most;
    const plain = rowsOf(cpu.made[0], second);
    const boundOf = (/** @type {number} */ row) => {
      if (!norm) return () => bound;
      const values = plain.subarray(row * nEmbd, (row + 1) * nEmbd);
      const errors = normErrors(new Float64Array(nEmbd).fill(bound), values, gain, norm, normBias);
      return (/** @type {number} */ c) => errors[c];
    };
    const [got, again, expected] = [
      rowsOf(gpu.made[0], first),
      rowsOf(gpu.made[0], second),
      rowsOf(cpu.made[0], first),
    ];
    all.add(`embed, 5 tokens, ${table.type}`, nEmbd, got, again, expected, boundOf);
  }
  const { norm, scale, softcap } = settings.head;
  for (const [n, { start }] of rows.states.entries()) {
    const [got, again, expected] = [gpu.last[0][n], gpu.last[1][n], cpu.last[0][n]];
    all.add('states, 5 tokens', nEmbd, got, again, expected, (row) => {
      const x = before(start + row);
      const of = norm && normErrors(new Float64Array(nEmbd), x, head.norm, norm, head.normBias);
      return (c) => of?.[c] ?? 0;
    });
  }
  const sizeOfHead = (/** @type {Float32Array} */ x) =>
    norm ? normedSize(x, head.norm, norm.eps, norm.kind, head.normBias) : normOf(x);
  const errors = rows.head.length > 0 ? headErrors(head.output, norm) : () => new Float64Array();
  for (const [n, { nRows, start }] of rows.head.entries()) {
    const [got, again, expected] = [gpu.logits[0][n], gpu.logits[1][n], cpu.logits[0][n]];
    all.add(`head, ${tokensOf(nRows)}, ${head.output.type}`, VOCABULARY, got, again, expected, (row) => {
      const of = errors(sizeOfHead(before(start + row)));
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
  const { gpu, pipelines, variants, kvType = 'F16', blocks = BLOCKS } = options;
  const began = performance.now();
  const fm = wasmBackend.kernels;
  const mixtures = options.feed?.experts && (await import('./selftest-experts.js'));
  const model = makeModel(options, fm, mixtures);
  await loadBlocks([{ ...model.settings, recurrent: options.recurrent }]);
  const { plan, settings, layers, random } = model;
  const rows = layRows(model.tables.length, blocks, settings.attention.causal);
  const states = fillRows(rows, plan.nEmbd, random, settings);
  const given = { states, kvType };
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
    // With norms of what a block adds, or of sums, a second run on the CPU leaves them out: bounds
    // depend on what is normalised.
    const { attention, feed, embedding } = settings;
    const plainRun = [attention, feed].some((one) => one.postNorm || one.sumNorm) || embedding.norm;
    const expected = await compute(wasmBackend, model, onCpu.trees, rows, {
      ...given,
      runs: plainRun ? RUNS : [0],
      plainRun: true,
    });
    const got = await computing;
    const leastOf = (/** @type {number} */ layer, /** @type {Float32Array} */ x) => {
      const { attention } = layers[layer];
      return leastHeads(fm, settings.attention, onCpu.trees[2 * layer], /** @type {any} */ (attention), x);
    };
    const cases = compare(options, model, rows, states, got, expected, leastOf, mixtures);
    const { recurrent } = options;
    if (recurrent && blocks.includes('recurrent')) {
      const { compareRecurrent } = await import('./selftest-recurrent.js');
      const all = new Comparison();
      for (const one of await compareRecurrent({ ...options, recurrent }, wasmBackend)) all.add(...one);
      cases.push(...all.cases);
    }
    return { ms: performance.now() - began, cases, failed: cases.filter(({ good }) => !good) };
  } finally {
    await working;
    for (const one of owned) one.free();
    backend.dispose();
  }
}

/**
 * The norms of the smallest heads of queries and keys, by row, where they are normalised: bounds
 * depend on them. A norm of all heads counts as that of each.
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
  const products =
    norm?.kind === 'rms'
      ? fm.fusedRmsNormMatmul([weights.q, weights.k], x, vectors.norm, { ...options, eps: norm.eps })
      : fm.fusedMatmulMany(
          [weights.q, weights.k],
          norm ? fm.layerNorm(x, vectors.norm, vectors.normBias, norm) : x,
          options,
        );
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

/** @typedef {import('./features.js').GpuVariants} GpuVariants */

/**
 * What was chosen and why, in sentences.
 * @typedef {{ variants: GpuVariants, report: string[] }} Choice
 */

/**
 * Forms of kernels in the order in which they are tried: those that are wanted, and with fewer
 * optional features.
 * @param {GpuVariants} wanted
 */
function candidatesOf(wanted) {
  const { subgroups, int8, f16 } = wanted;
  const precisions = [{ int8, f16 }, ...(int8 || f16 ? [{ int8: false, f16: false }] : [])];
  const plain = precisions.flatMap((precision) =>
    (subgroups ? [true, false] : [false]).map((by) => ({ ...PLAIN, ...precision, subgroups: by })),
  );
  const isPlain = Object.entries(plain[0]).every(([name, value]) => value === Reflect.get(wanted, name));
  return isPlain ? plain : [wanted, ...plain];
}

/** @param {GpuVariants} variants */
const nameOf = (variants) => {
  const { subgroups, int8, f16 } = variants;
  const numbers = /** @type {const} */ (['rows', 'invocations', 'groups', 'tile']);
  const uses = [
    ...(subgroups ? ['subgroups'] : []),
    ...(int8 ? ['int8'] : []),
    ...(f16 ? ['f16'] : []),
    ...numbers.filter((name) => variants[name] !== PLAIN[name]).map((name) => `${name} ${variants[name]}`),
  ];
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
 * The forms of kernels that are wanted, or the next ones that compute on this GPU what the wasm
 * module does.
 * @param {SelfTestOptions & { variants: GpuVariants }} options
 * @param {WasmBackend} wasmBackend in the activation mode f32
 * @returns {Promise<Choice & { tests: SelfTestResult[] }>}
 * @throws {GpuError} `selftest`: not even the plain kernels do; `shader`: the driver rejects one of
 *   them; or the device failed
 */
export async function chooseVariants(options, wasmBackend) {
  const candidates = candidatesOf(options.variants);
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
