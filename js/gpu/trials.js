/* Candidates for the forms of kernels: compiled, compared with the wasm module, and timed. */

import { performance } from '../node.js';
import { Commands } from './commands.js';
import { GpuError } from './errors.js';
import { precisionOf } from './features.js';
import { productWork } from './products.js';
import { normOf, productError } from './selftest-bounds.js';
import { DISTINCT, generator, makeMatrix, makeStates } from './selftest-data.js';
import { toGpu } from './selftest-model.js';
import { up16 } from './shader.js';
import { WGSL_TYPES } from './wgsl/types.js';

/** @typedef {import('./choice.js').ChoiceOptions} ChoiceOptions */
/** @typedef {import('./choice.js').Stage} Stage */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./features.js').GpuVariants} GpuVariants */
/** @typedef {import('./pipelines.js').Bound} Bound */
/** @typedef {import('./weight.js').GpuWeight} GpuWeight */
/** @typedef {import('../wasm/kernels.js').Kernels} Kernels */

/** @typedef {ReturnType<typeof precisionOf>} Precision */

/**
 * The sizes of the products: a weight, numbers of fewer rows, and tokens of a prompt.
 * @typedef {{ nRows: number, nCols: number, few: readonly number[], nTokens: number }} Shape
 */

/** Least length of a sample, and the most of a stage's first round, in milliseconds. */
const SAMPLE_MS = 4;
const FIRST_ROUND_MS = 200;
/** A stage takes as long as so many samples, unless its first round takes longer. */
const STAGE_SAMPLES = 12;
/**
 * A sample is so many times as long as a wait, up to a limit: Firefox notices the end of work some
 * milliseconds late.
 */
const WAITS = 4;
const LONGEST_MS = 20;
const MOST_RUNS = 256;
const ROUNDS = 4;
/** A candidate that takes so many times as long as the fastest one is timed no more. */
const BEHIND = 1.25;
/** A form replaces the one in use if it takes less than this part of its time. */
const WORTH = 0.95;
/** Weights take turns until they have so many bytes together, or so many copies. */
const COPIES = { bytes: 2 ** 24, most: 4 };
/** Tokens that differ; the others repeat them. */
const DISTINCT_TOKENS = 5;

/**
 * Forms, and a sample of their products.
 * @typedef {{ forms: GpuVariants, run: (runs: number) => Promise<void> }} Candidate
 */

/** Runs a sample by the clock. @param {GpuVariants} _ @param {() => Promise<void>} run */
async function byClock(_, run) {
  const began = performance.now();
  await run();
  return performance.now() - began;
}

/** A weight on the GPU, activations, and their product. @typedef {Awaited<ReturnType<typeof makeData>>} Data */

/**
 * @param {Pick<ChoiceOptions, 'gpu' | 'pipelines' | 'type'>} options
 * @param {Shape} shape
 * @param {Kernels} fm
 * @param {{ free: () => void }[]} owned  gets all that must be freed, also if this fails
 */
async function makeData({ gpu, pipelines, type }, { nRows, nCols, nTokens }, fm, owned) {
  const random = generator(0x9e3779b9);
  const matrix = makeMatrix(fm, { type, nRows, nCols, mean: 0.02 }, random);
  const n = Math.min(COPIES.most, Math.ceil(COPIES.bytes / matrix.data.length));
  const { trees, owned: ofTrees } = await toGpu(
    { gpu, pipelines },
    Array.from({ length: n }, () => ({ w: matrix })),
  );
  owned.push(...ofTrees);
  const states = makeStates(DISTINCT_TOKENS, nCols, random, 'rms');
  const distinct = Math.min(DISTINCT, nRows);
  const data = matrix.data.subarray(0, (matrix.data.length / nRows) * distinct);
  const w = fm.weight({ type, nRows: distinct, nCols, data });
  const expected = fm.fusedMatmul(w, states, { activation: 'f32' });
  w.free();
  const x = new Float32Array(nTokens * nCols);
  const norms = Array.from({ length: DISTINCT_TOKENS }, (_, t) =>
    normOf(states.subarray(t * nCols, (t + 1) * nCols)),
  );
  for (let t = 0; t < nTokens; t++) {
    const from = t % DISTINCT_TOKENS;
    x.set(states.subarray(from * nCols, (from + 1) * nCols), t * nCols);
  }
  const activations = gpu.bufferOf(x, { label: 'activations' });
  owned.push(activations);
  return {
    weights: trees.map((tree) => /** @type {GpuWeight} */ (/** @type {any} */ (tree).w)),
    x: activations,
    /**
     * Whether a value is near enough.
     * @param {number} value @param {number} t @param {number} r @param {Precision} precision
     */
    isRight(value, t, r, precision) {
      const bound = productError(matrix, r, precision) * norms[t % DISTINCT_TOKENS] + 2 ** -140;
      const exact = expected[(t % DISTINCT_TOKENS) * distinct + (r % distinct)];
      return Math.abs(value - exact) <= bound;
    },
  };
}

/** Candidates of a device. */
export class Trials {
  #options;
  #shape;
  #fm;
  #commands;
  #time;
  /** @type {Data | undefined} */
  #data;
  /** @type {Map<string, GpuBuffer>} */
  #spare = new Map();
  /** @type {{ free: () => void }[]} */
  #owned = [];
  /** Milliseconds of all samples. */
  spent = 0;

  /** @param {ChoiceOptions} options @param {Shape} shape @param {Kernels} fm */
  constructor(options, shape, fm) {
    this.#options = options;
    this.#shape = shape;
    this.#fm = fm;
    this.#commands = new Commands(options.gpu, options.pipelines);
    this.#time = options.trial?.time ?? byClock;
  }

  free() {
    this.#commands.free();
    for (const one of this.#owned) one.free();
  }

  /** @param {number} bytes @param {string} label */
  #buffer(bytes, label) {
    const buffer = this.#options.gpu.buffer(bytes, { label });
    this.#owned.push(buffer);
    return buffer;
  }

  /**
   * The fastest candidate of a stage.
   * @param {Stage} stage
   * @param {GpuVariants} current
   * @returns {Promise<{ forms: GpuVariants, ratio: number, wrong: GpuVariants[] }>} ratio: of its
   *   time to that of the forms in use; wrong: whose results are
   */
  async fastest(stage, current) {
    this.#data ??= await makeData(this.#options, this.#shape, this.#fm, this.#owned);
    const { candidates, wrong } = await this.#prepare(stage, current, this.#data);
    return { ...(await this.#measure(candidates, current)), wrong };
  }

  /**
   * Compiles candidates, and leaves out those whose results are wrong.
   * @param {Stage} stage
   * @param {GpuVariants} current
   * @param {Data} data
   */
  async #prepare({ form, rows, candidates }, current, data) {
    const nTokens = form === 'one' ? 1 : this.#shape.nTokens;
    const outputs = rows.map((nRows) => [0, 1].map(() => this.#buffer(4 * nTokens * up16(nRows), 'results')));
    const spare = (/** @type {string} */ label, /** @type {number} */ bytes) => {
      const found = this.#spare.get(label);
      if (found && found.bytes >= bytes) return found;
      const buffer = this.#buffer(bytes, label);
      this.#spare.set(label, buffer);
      return buffer;
    };
    /** Candidates by their kernels: those with the same are one. @type {Map<string, GpuVariants>} */
    const different = new Map();
    const workOf = (/** @type {GpuVariants} */ forms, /** @type {GpuWeight} */ weight, run = 0) =>
      rows.flatMap((nRows, i) =>
        productWork({ weights: [weight.rows(0, nRows)], x: data.x, y: outputs[i][run] }, form, {
          variants: forms,
          spare,
        }),
      );
    for (const forms of [current, ...candidates.map((one) => ({ ...current, ...one }))]) {
      const code = workOf(forms, data.weights[0]).map(({ shader }) => shader.code);
      if (!different.has(code.join())) different.set(code.join(), forms);
    }
    const step = { position: 0, start: 0, nTokens, seen: nTokens };
    const bind = async (/** @type {GpuVariants} */ forms, /** @type {GpuWeight} */ weight, run = 0) =>
      Promise.all(
        workOf(forms, weight, run).map(async ({ shader, buffers, groups }) => ({
          bound: (await this.#options.pipelines.compile(shader)).bind(buffers),
          groups: groups(step),
        })),
      );
    const compiled = await Promise.allSettled(
      [...different.values()].map(async (forms) => ({
        forms,
        copies: await Promise.all(data.weights.map((weight) => bind(forms, weight))),
        again: await bind(forms, data.weights[0], 1),
      })),
    );
    const dispatch = (/** @type {Awaited<ReturnType<typeof bind>>} */ work) => {
      for (const { bound, groups } of work) this.#commands.dispatch(bound, groups, step);
    };
    /** @type {Candidate[]} */
    const right = [];
    /** @type {GpuVariants[]} */
    const wrong = [];
    for (const one of compiled) {
      if (one.status === 'rejected') {
        const { reason } = one;
        // There are others.
        if (reason instanceof GpuError && reason.reason === 'shader') continue;
        throw reason;
      }
      const { forms, copies, again } = one.value;
      const precision = form === 'one' ? 'f32' : precisionOf(forms, WGSL_TYPES[this.#options.type].coded);
      const results = await this.#results(outputs.flat(), () => {
        dispatch(copies[copies.length - 1]);
        dispatch(again);
      });
      const isRight = rows.every((nRows, i) => {
        const [first, second] = results.slice(2 * i);
        for (let t = 0; t < nTokens; t++) {
          for (let r = 0; r < nRows; r++) {
            const at = t * up16(nRows) + r;
            if (first[at] !== second[at] || !data.isRight(first[at], t, r, precision)) return false;
          }
        }
        return true;
      });
      if (!isRight) {
        wrong.push(forms);
        continue;
      }
      let turn = 0;
      const run = async (/** @type {number} */ runs) => {
        for (let i = 0; i < runs; i++) dispatch(copies[turn++ % copies.length]);
        await this.#commands.idle();
      };
      right.push({ forms, run });
    }
    return { candidates: right, wrong };
  }

  /**
   * The results of work. The buffers are filled with NaN before.
   * @param {readonly GpuBuffer[]} buffers
   * @param {() => void} work
   */
  async #results(buffers, work) {
    for (const buffer of buffers)
      this.#commands.write(buffer, 0, new Float32Array(buffer.bytes / 4).fill(Number.NaN));
    work();
    const regions = buffers.map((buffer) => ({ buffer, offset: 0, bytes: buffer.bytes }));
    return (await this.#commands.read(regions)).map((bytes) => new Float32Array(bytes));
  }

  /**
   * Times candidates in turns.
   * @param {readonly Candidate[]} candidates
   * @param {GpuVariants} current
   */
  async #measure(candidates, current) {
    const same = { forms: current, ratio: 1 };
    // Without the form in use there is nothing that another one could be faster than.
    if (candidates.length < 2 || candidates[0].forms !== current) return same;
    const sample = async (/** @type {Candidate} */ { forms, run }, /** @type {number} */ runs) => {
      const ms = await this.#time(forms, () => run(runs));
      this.spent += ms;
      return ms;
    };
    // The first time in use, buffers and caches are filled. Nothing to do shows how long a wait is.
    await sample(candidates[0], 1);
    const wait = await sample(candidates[0], 0);
    const enough = Math.min(LONGEST_MS, Math.max(SAMPLE_MS, WAITS * wait));
    let runs = 1;
    while (runs < MOST_RUNS && (await sample(candidates[0], runs)) < enough) runs *= 2;
    const begun = this.spent;
    let left = candidates.map((of) => ({ of, ms: Number.POSITIVE_INFINITY }));
    const [first] = left;
    for (let round = 0; round < ROUNDS; round++) {
      for (const one of left) {
        const most = round === 0 ? FIRST_ROUND_MS : STAGE_SAMPLES * enough;
        if (this.spent - begun > most) break;
        one.ms = Math.min(one.ms, await sample(one.of, runs));
      }
      const least = Math.min(...left.map(({ ms }) => ms));
      left = left.filter((one) => one === first || one.ms < BEHIND * least);
    }
    const best = left.reduce((a, b) => (b.ms < a.ms ? b : a));
    const ratio = best.ms / first.ms;
    return ratio < WORTH ? { forms: best.of.forms, ratio } : same;
  }
}
