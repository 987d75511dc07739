/* The kernels of createGpuKernels: products with quantised weights on a GPU; models run on them. */

import { openBackend } from '../backend.js';
import { checkLength, checkNames } from '../checks.js';
import { dispose } from '../dispose.js';
import { ArgumentError, HandleError, ShapeError, show } from '../errors.js';
import { LOAD_MANY_OPTIONS, LOAD_OPTIONS, tensorsOf } from '../gguf/tensor-runs.js';
import { servedType } from '../types.js';
import { checkWeight } from '../weight-data.js';
import { Commands } from './commands.js';
import { loadTensors } from './load-weights.js';
import { Pipelines } from './pipelines.js';
import { formOf, LARGEST_BATCH, productWork } from './products.js';
import { up16, withoutPadding, withPadding } from './shader.js';
import { uploadWeight } from './upload.js';
import { GpuWeight } from './weight.js';
import { embed, embedGroups } from './wgsl/embed.js';

/** @typedef {import('./features.js').GpuVariants} GpuVariants */

/**
 * Names of a GPU, as the browser gives them. Some are empty, in some browsers all.
 * @typedef {object} GpuNames
 * @property {string} name  One of the others, for people.
 * @property {string} vendor  Its maker, for example 'nvidia'.
 * @property {string} architecture  The family that it belongs to, for example 'ampere'.
 * @property {string} device  Its model.
 * @property {string} description  What the driver says of itself.
 */

/**
 * The largest sizes that a GPU allows, in bytes.
 * @typedef {object} GpuLimits
 * @property {number} bufferBytes  The largest buffer.
 * @property {number} bindingBytes  The largest part of a buffer that a kernel can see. Larger
 *   weights are split by rows.
 */

/**
 * Use of GPU memory.
 * @typedef {object} GpuMemory
 * @property {number} bytes  Bytes of all buffers.
 */

/**
 * The GPU and what is used of it.
 * @typedef {object} GpuInfo
 * @property {GpuNames} adapter  Names of the GPU.
 * @property {boolean} software  The adapter computes on the processor.
 * @property {readonly import('./features.js').GpuFeature[]} features  Optional features that
 *   kernels may use.
 * @property {GpuLimits} limits  The largest sizes that it allows.
 * @property {Readonly<GpuVariants>} variants  Which forms of kernels are in use.
 * @property {readonly string[]} steps  Sentences about what was tried and chosen.
 * @property {number} memoryBytes  GPU memory in use.
 */

/**
 * Kernels on a GPU. createGpuKernels makes them; `Llama.load(source, { kernels })` runs a model on
 * them.
 */
export class GpuKernels {
  #gpu;
  #pipelines;
  #commands;
  #variants;
  /** @type {string[]} */
  #steps;
  #disposed = false;
  #isTested;
  #activation;
  #trial;
  /** Self-tests by what they are for. @type {Map<string, Promise<void>>} */
  #tests = new Map();

  /**
   * @hideconstructor
   * @param {import('./device.js').GpuDevice} gpu
   * @param {{ variants: GpuVariants, steps: string[], isTested: boolean,
   *   activation: import('./features.js').GpuActivation, trial?: import('./choice.js').Trial }}
   *   choice isTested: kernels are compared with the wasm module before they are used
   */
  constructor(gpu, { variants, steps, isTested, activation, trial = {} }) {
    this.#gpu = gpu;
    this.#pipelines = new Pipelines(gpu);
    this.#commands = new Commands(gpu, this.#pipelines);
    this.#variants = variants;
    this.#steps = steps;
    this.#isTested = isTested;
    this.#activation = activation;
    this.#trial = trial;
    /**
     * Resolves with the reason once the GPU cannot be used any more: it was reset, its process
     * ended, or dispose() was called.
     * @type {Promise<import('./errors.js').GpuError>}
     */
    this.lost = gpu.lost;
  }

  /** The GPU and what is used of it. @returns {GpuInfo} */
  get info() {
    const { adapter, software, features, limits, inUse, name } = this.#gpu;
    const { vendor, architecture, device, description } = adapter;
    const { bufferBytes, bindingBytes } = limits;
    return {
      adapter: { name, vendor, architecture, device, description },
      software,
      features: [...features],
      limits: { bufferBytes, bindingBytes },
      variants: { ...this.#variants },
      steps: [...this.#steps],
      memoryBytes: inUse,
    };
  }

  /** True after dispose(). */
  get disposed() {
    return this.#disposed;
  }

  /**
   * Makes a weight of bytes in GGUF block layout, which are copied to the GPU.
   * @param {import('../wasm/kernel-types.js').WeightData} weight
   * @returns {Promise<GpuWeight>}
   * @throws {ShapeError} nCols is no multiple of the type's block, or data has another length than
   *   the shape
   * @throws {import('./errors.js').GpuError} the GPU has no room, or is lost
   */
  async weight(weight) {
    const { type, nRows, nCols, name, bytes, byteLength } = checkWeight(weight);
    this.#alive();
    const shape = { type: type.name, nRows, nCols, name };
    const data = bytes ?? new Uint8Array(byteLength);
    const uploading = uploadWeight(this.#gpu, this.#pipelines, this.#commands, shape, data);
    const [made] = await this.#afterTest([type.name], uploading, (weight) => [weight]);
    return made;
  }

  /**
   * Loads a tensor of a GGUF file.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {string} name
   * @param {import('../wasm/kernel-types.js').LoadOptions} [options]
   * @returns {Promise<GpuWeight>}
   * @throws {import('../errors.js').GgufError} there is no such tensor, or it cannot be read
   * @throws {import('./errors.js').GpuError} the GPU has no room, or is lost
   */
  async loadWeight(gguf, name, options = {}) {
    checkNames(options, LOAD_OPTIONS);
    const [weight] = await this.loadWeights(gguf, [name], options);
    return weight;
  }

  /**
   * Loads tensors of a GGUF file: all of them or, after an error, none.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {Iterable<string>} names
   * @param {import('../wasm/kernel-types.js').LoadOptions & { concurrency?: number }} [options]
   *   onProgress: bytes of all tensors; concurrency: most requests at a time, default 2
   * @returns {Promise<GpuWeight[]>}  the weights in the order of names
   * @throws {import('../errors.js').GgufError} there is no such tensor, or it cannot be read
   * @throws {import('./errors.js').GpuError} the GPU has no room, or is lost
   */
  async loadWeights(gguf, names, options = {}) {
    checkNames(options, LOAD_MANY_OPTIONS);
    const tensors = tensorsOf(gguf, names);
    for (const { type } of tensors) servedType(type);
    this.#alive();
    const types = tensors.map(({ type }) => type);
    return this.#afterTest(types, loadTensors(this.#means(), gguf, tensors, options), (weights) => weights);
  }

  /**
   * Multiplies f32 rows by a quantised weight: y[t][r] = sum_c x[t][c] * w[r][c].
   * @param {GpuWeight} w
   * @param {Float32Array} x  nTokens * nCols values
   * @param {{ out?: Float32Array }} [options]  out: nTokens * nRows values; a new array by default
   * @returns {Promise<Float32Array>} out
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   * @throws {HandleError} the weight is freed
   * @throws {import('./errors.js').GpuError} the GPU has no room, or is lost
   */
  async fusedMatmul(w, x, options = {}) {
    checkNames(options, ['out']);
    const { nRows, nCols } = this.#checkWeight(w);
    const nTokens = countRows(x, nCols, w);
    const out = outOf(options.out, nTokens * nRows, `out of ${nTokens} rows of ${w}`);
    for (let start = 0; start < nTokens; start += LARGEST_BATCH) {
      const n = Math.min(LARGEST_BATCH, nTokens - start);
      const rows = x.subarray(start * nCols, (start + n) * nCols);
      out.set(await this.#multiply(w, rows, n), start * nRows);
    }
    return out;
  }

  /**
   * Decodes rows of a weight to f32, for a look at them: products never do so.
   * @param {GpuWeight} w
   * @param {{ start?: number, end?: number, out?: Float32Array }} [options]  start, end: rows, all
   *   by default; out: a new array by default
   * @returns {Promise<Float32Array>} (end - start) * nCols values
   * @throws {ShapeError} the rows reach beyond the weight, or out has another length
   */
  async dequantize(w, options = {}) {
    checkNames(options, ['start', 'end', 'out']);
    const { nRows, nCols } = this.#checkWeight(w);
    const { start = 0, end = nRows } = options;
    const view = w.rows(start, end - start);
    const out = outOf(options.out, (end - start) * nCols, `out of rows ${start} to ${end} of ${w}`);
    for (let first = 0; first < view.nRows; first += LARGEST_BATCH) {
      const n = Math.min(LARGEST_BATCH, view.nRows - first);
      const ids = this.#gpu.bufferOf(Uint32Array.from({ length: n }, (_, i) => first + i));
      const rows = await this.#compute([ids], n, nCols, (y) =>
        view.units().map(({ unit, buffer, firstRow }) => ({
          shader: embed({ unit, scale: 1, firstRow }),
          buffers: { w: buffer, ids, y },
          groups: () => embedGroups(unit, n),
        })),
      );
      out.set(rows, first * nCols);
    }
    return out;
  }

  /**
   * GPU memory in use.
   * @returns {GpuMemory}
   */
  memory() {
    return { bytes: this.#gpu.inUse };
  }

  /** Ends the device and frees everything on it. */
  dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#gpu.destroy();
  }

  /** For `using`. */
  [dispose]() {
    this.dispose();
  }

  /**
   * @internal
   * @param {import('../backend.js').BackendSettings} settings
   * @returns {Promise<import('../backend.js').Backend>}
   */
  async [openBackend]({ kvType, activation, ownsKernels = false }) {
    const { GpuBackend } = await import('./backend.js');
    this.#alive();
    const exact = activation !== 'int8';
    return new GpuBackend(this.#gpu, {
      ...{ kernels: this, pipelines: this.#pipelines, kvType, exact },
      variants: this.#variants,
      test: (types, layer) => this.#test(types, { kvType, ...layer }, exact),
      ...(ownsKernels && { onDispose: () => this.dispose() }),
    });
  }

  /**
   * Chooses forms of kernels, once, and compares kernels with those of the wasm module, once for
   * the same types and settings. Optional forms that fail are not used any more.
   * @param {readonly string[]} types  of weights
   * @param {Partial<import('./selftest.js').SelfTestOptions>} options
   * @param {boolean} [exact]  products in f32 are tested, whatever was chosen
   * @returns {Promise<void>}
   * @throws {import('./errors.js').GpuError} kernels compute wrong results on this GPU
   */
  #test(types, options, exact = false) {
    if (!this.#isTested) return Promise.resolve();
    const unique = [...new Set(types)].sort();
    const key = JSON.stringify([unique, options, exact]);
    let test = this.#tests.get(key);
    if (!test) {
      test = this.#runTest(unique, { ...options, exact, type: mostOf(types) });
      test.catch(() => this.#tests.delete(key));
      this.#tests.set(key, test);
    }
    return test;
  }

  /**
   * @param {readonly string[]} types
   * @param {Partial<import('./selftest.js').SelfTestOptions> & { exact: boolean, type: string }}
   *   options
   */
  async #runTest(types, options) {
    const { proveKernels } = await import('./choice.js');
    const report = await proveKernels({
      ...{ gpu: this.#gpu, pipelines: this.#pipelines, activation: this.#activation, trial: this.#trial },
      ...{ types, ...options, variants: this.#variants },
    });
    this.#steps.push(...report.map((line) => `${types.join(', ')}: ${line}`));
  }

  /**
   * Waits for weights and, meanwhile, for the self-test of their types. Where that fails they are
   * freed.
   * @template T
   * @param {readonly string[]} types
   * @param {Promise<T>} loading
   * @param {(loaded: T) => GpuWeight[]} weightsOf
   */
  async #afterTest(types, loading, weightsOf) {
    const testing = this.#test(types, { blocks: ['embed', 'feed'] });
    testing.catch(() => {});
    const weights = weightsOf(await loading);
    try {
      await testing;
      return weights;
    } catch (error) {
      for (const weight of weights) weight.free();
      throw error;
    }
  }

  #means() {
    return { gpu: this.#gpu, pipelines: this.#pipelines, commands: this.#commands };
  }

  #alive() {
    if (this.#disposed) throw new HandleError('these kernels are disposed', 'disposed');
    this.#gpu.check();
  }

  /** @param {unknown} w @returns {GpuWeight} */
  #checkWeight(w) {
    this.#alive();
    if (!(w instanceof GpuWeight))
      throw new ArgumentError(`w must be a weight of these kernels, got ${show(w)}`);
    if (!w.isOn(this.#gpu)) throw new HandleError(`${w} belongs to other kernels`, 'foreign');
    w.check();
    return w;
  }

  /** @param {GpuWeight} w @param {Float32Array} x @param {number} nTokens */
  async #multiply(w, x, nTokens) {
    const { nRows, nCols } = w;
    const input = this.#gpu.bufferOf(withPadding(x, nCols));
    const buffers = [input];
    const spare = (/** @type {string} */ label, /** @type {number} */ bytes) => {
      const buffer = this.#gpu.buffer(bytes, { label });
      buffers.push(buffer);
      return buffer;
    };
    const means = { variants: this.#variants, spare };
    return this.#compute(buffers, nTokens, nRows, (y) =>
      productWork({ weights: [w], x: input, y }, formOf(nTokens), means),
    );
  }

  /**
   * Runs kernels and reads their result: rows of nCols values.
   * @param {import('./device.js').GpuBuffer[]} buffers  freed afterwards, with the result
   * @param {number} nRows
   * @param {number} nCols
   * @param {(y: import('./device.js').GpuBuffer) => import('./products.js').Work[]} workFor  the
   *   kernels that write the result to y
   */
  async #compute(buffers, nRows, nCols, workFor) {
    const bytes = 4 * nRows * up16(nCols);
    const step = { position: 0, start: 0, nTokens: nRows, seen: nRows };
    try {
      const y = this.#gpu.buffer(bytes);
      buffers.push(y);
      const work = workFor(y);
      const pipelines = await Promise.all(work.map(({ shader }) => this.#pipelines.compile(shader)));
      for (const [i, one] of work.entries())
        this.#commands.dispatch(pipelines[i].bind(one.buffers), one.groups(step), step);
      const [rows] = await this.#commands.read([{ buffer: y, offset: 0, bytes }]);
      return withoutPadding(new Float32Array(rows), nRows, nCols);
    } finally {
      for (const buffer of buffers) buffer.free();
    }
  }
}

/** The most frequent element. @param {readonly string[]} list */
const mostOf = (list) => {
  const count = (/** @type {string} */ one) => list.filter((other) => other === one).length;
  return list.reduce((a, b) => (count(b) > count(a) ? b : a));
};

/** @param {unknown} x @param {number} nCols @param {GpuWeight} w */
function countRows(x, nCols, w) {
  if (!(x instanceof Float32Array)) throw new ArgumentError(`x must be a Float32Array, got ${show(x)}`);
  const nRows = x.length / nCols;
  if (nRows >= 1 && Number.isInteger(nRows)) return nRows;
  throw new ShapeError(`x has ${x.length} values, which is no multiple of the ${nCols} columns of ${w}`, {
    got: x.length,
    expected: nCols,
  });
}

/** @param {unknown} out @param {number} length @param {string} what */
function outOf(out, length, what) {
  if (out === undefined) return new Float32Array(length);
  if (!(out instanceof Float32Array)) throw new ArgumentError(`out must be a Float32Array, got ${show(out)}`);
  checkLength(out, length, what);
  return out;
}
