/* A GPU as a backend of models. Blocks become dispatches; they are recorded in order and submitted
 * when something is read or the runner says so. */

import { HandleError } from '../errors.js';
import { ModelError } from '../llama/errors.js';
import { KV_LARGEST, numericError } from '../llama/numeric.js';
import { attendWork, embedWork, feedWork, headWork, isSplit, projectWork, statesWork } from './blocks.js';
import { Commands } from './commands.js';
import { GpuError } from './errors.js';
import { lacks, sizes } from './fit.js';
import { GpuCache, GpuTensor, GpuTokens } from './handles.js';
import { GpuHidden } from './hidden.js';
import { loadWeights } from './model-weights.js';
import { Pipelines } from './pipelines.js';
import { FILLING_GROUPS, formOf } from './products.js';
import { Queue } from './queue.js';
import { up16, withoutPadding } from './shader.js';
import { FAULT_WORDS, readFault } from './wgsl/faults.js';
import { findFaults, findFaultsGroups } from './wgsl/find-faults.js';
import { samplingPasses } from './wgsl/sample.js';

/**
 * @typedef
 *   {import('../backend.js').Backend<{ hidden: GpuHidden, tensor: GpuTensor, cache: GpuCache, tokens: GpuTokens }>}
 *   Backend
 */
/** @typedef {import('../backend.js').BatchRows} BatchRows */
/** @typedef {import('../backend.js').Rows} Rows */
/** @typedef {import('../backend.js').RunSettings} RunSettings */
/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../llama/numeric.js').Place} Place */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').EmbeddingSettings} EmbeddingSettings */
/** @typedef {import('../llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./pipelines.js').Bound} Bound */
/** @typedef {import('./features.js').GpuVariants} Variants */
/** @typedef {import('./products.js').Work} Work */

/** @template S @typedef {import('../backend.js').Block<S>} Block */

/** The layer of a fault outside of layers. */
const NO_LAYER = 0xffffffff;

/** Compiled work. @typedef {{ bound: Bound, groups: Work['groups'] }} Ready */

/** @implements {Backend} */
export class GpuBackend {
  #gpu;
  #pipelines;
  #commands;
  #queue = new Queue();
  #means;
  #kvType;
  #onDispose;
  #test;
  /**
   * Compiled work by block (or another key), hidden states and form.
   * @type {WeakMap<object, Map<string, Ready[] | Promise<void>>>}
   */
  #ready = new WeakMap();
  /** @type {Set<GpuHidden>} */
  #hiddens = new Set();
  /**
   * A number for each hidden, cache and tensor, to tell them apart in keys.
   * @type {WeakMap<object, number>}
   */
  #numbers = new WeakMap();
  #lastNumber = 0;
  #disposed = false;
  /** Buffers that belong to no handle. @type {Set<GpuBuffer>} */
  #owned = new Set();

  /**
   * @param {GpuDevice} gpu
   * @param {object} options
   * @param {import('../wasm/kv-cache.js').KvType} options.kvType of the caches
   * @param {Variants} options.variants
   * @param {Pipelines} [options.pipelines]
   * @param {import('./kernels.js').GpuKernels} [options.kernels] that it belongs to
   * @param
   *   {(types: string[], layer: Partial<import('./selftest.js').SelfTestOptions>) => Promise<void>}
   *   [options.test] compares kernels with the wasm module, and may switch variants off
   * @param {() => void} [options.onDispose] ends the device, where the backend owns it
   */
  constructor(
    gpu,
    {
      kvType,
      variants,
      pipelines = new Pipelines(gpu),
      kernels,
      test = async () => {},
      onDispose = () => {},
    },
  ) {
    /** The kernels that it belongs to. */
    this.kernels = kernels;
    this.#gpu = gpu;
    this.#pipelines = pipelines;
    this.#commands = new Commands(gpu, pipelines);
    this.#kvType = kvType;
    this.#means = { variants, groups: FILLING_GROUPS };
    this.#test = test;
    this.#onDispose = onDispose;
  }

  /** @returns {import('../backend.js').BackendInfo} */
  get info() {
    return { name: 'webgpu', gpu: this.kernels?.info, memoryBytes: this.#gpu.inUse };
  }

  /** Dispatches and submissions so far. */
  get counts() {
    return this.#commands.counts;
  }

  get disposed() {
    return this.#disposed;
  }

  /** A step has one text. */
  get packs() {
    return false;
  }

  /** Models with such products are refused. @type {import('../backend.js').Backend['multiply']} */
  async multiply() {
    throw new ModelError('products after the pooling are not supported on the GPU');
  }

  dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#queue.end(disposedError());
    this.#commands.free();
    for (const buffer of this.#owned) buffer.free();
    this.#onDispose();
  }

  /** The least precision of products. @returns {'f32' | 'int8'} */
  get #activation() {
    return this.#means.variants.int8 ? 'int8' : 'f32';
  }

  /** @type {Backend['servedBy']} */
  servedBy() {
    return { isa: 'webgpu', activation: this.#activation };
  }

  /** @type {Backend['lacks']} */
  lacks(plan, tensors, settings) {
    return lacks(plan, tensors, settings, this.#gpu.limits);
  }

  /** @type {Backend['sizes']} */
  sizes(plan, settings) {
    return sizes(plan, settings);
  }

  /** @type {Backend['loadWeights']} */
  async loadWeights(gguf, plan, tensors, options) {
    const means = { gpu: this.#gpu, pipelines: this.#pipelines, commands: this.#commands };
    const types = tensors.filter(({ use }) => use !== 'vector' && use !== 'bias');
    // The kernels are tested while the weights arrive.
    const testing = this.#testLayers(
      plan,
      types.map(({ name }) => gguf.tensor(name).type),
      tensors.some(({ role }) => role.endsWith('.attention.qBias')),
    );
    testing.catch(() => {});
    const weights = await loadWeights(means, gguf, plan, tensors, options);
    try {
      await testing;
      return weights;
    } catch (error) {
      weights.free();
      throw error;
    }
  }

  /**
   * Tests the kernels with the settings of every kind of layer.
   * @param {Plan} plan
   * @param {string[]} types  of weights
   * @param {boolean} biases
   */
  async #testLayers({ layers, head, embedding }, types, biases) {
    const kinds = new Map(layers.map((layer) => [JSON.stringify(layer), layer]));
    for (const { attention, feed } of kinds.values())
      await this.#test(types, {
        attention: { ...attention, biases },
        ...{ feed, head, embeddingScale: embedding.scale },
      });
  }

  /** @param {{ nRows: number, nCols: number }} shape */
  tensor(shape) {
    return new GpuTensor(this.#gpu, shape);
  }

  /** @param {Plan} plan @param {{ batch: number }} sizes */
  hidden(plan, { batch }) {
    const hidden = new GpuHidden(this.#gpu, plan, batch);
    this.#hiddens.add(hidden);
    return hidden;
  }

  /** @param {number} length */
  tokens(length) {
    return new GpuTokens(this.#gpu, length);
  }

  /** @param {AttentionSettings} attention @param {RunSettings} settings */
  cache({ nKvHeads, headSize }, { contextLength, kvType }) {
    return new GpuCache(this.#gpu, { type: kvType, nPositions: contextLength, nKvHeads, headSize });
  }

  /**
   * @param {GpuTokens} tokens
   * @param {GpuHidden} x
   * @param {Block<EmbeddingSettings>} block
   * @param {Step} at
   */
  embed(tokens, x, block, at) {
    this.#run(block, [tokens, x], 'embed', at, () => embedWork(block, tokens.buffer, x));
  }

  /**
   * @param {GpuHidden} x
   * @param {Block<AttentionSettings>} block
   * @param {GpuCache} cache
   * @param {Step} at
   */
  project(x, block, cache, at) {
    const form = formOf(at.nTokens);
    this.#run(block, [x, cache], `project ${form}`, at, () =>
      projectWork(block, x, cache, form, this.#meansOf(x)),
    );
  }

  /**
   * @param {GpuHidden} x
   * @param {Block<AttentionSettings>} block
   * @param {GpuCache} cache
   * @param {Step} at
   */
  attend(x, block, cache, at) {
    const form = formOf(at.nTokens);
    const split = form !== 'many' && isSplit(block.settings, at);
    const means = { ...this.#meansOf(x), isSplit: split, most: cache.shape.nPositions };
    const name = `attend ${form}${split ? ', split' : ''}`;
    this.#run(block, [x, cache], name, at, () => attendWork(block, x, cache, form, means));
  }

  /** @param {GpuHidden} x @param {Block<FeedSettings>} block @param {Step} at */
  feed(x, block, at) {
    const form = formOf(at.nTokens);
    this.#run(block, [x], `feed ${form}`, at, () => feedWork(block, x, form, this.#meansOf(x)));
  }

  /**
   * @param {GpuHidden} x
   * @param {Block<HeadSettings>} block
   * @param {GpuTensor} logits
   * @param {BatchRows} rows
   */
  head(x, block, logits, { start, nRows, position }) {
    const form = nRows === 1 ? 'one' : 'few';
    const at = { position, start, nTokens: nRows, seen: 0 };
    this.#run(block, [x, logits], `head ${form}`, at, () =>
      headWork(block, x, logits, form, this.#meansOf(x)),
    );
    this.#findFaults(x, logits.buffer, logits.nCols, { ...at, start: 0 }, { part: 'output' });
  }

  /** @param {GpuHidden} x @param {Step} at @param {Omit<Place, 'position'>} place */
  check(x, at, place) {
    this.#findFaults(x, x.buffers.x, x.nCols, at, place);
  }

  /**
   * Looks for numbers that are not finite, and notes the first.
   * @param {GpuHidden} hidden  whose note it is
   * @param {GpuBuffer} buffer
   * @param {number} nCols
   * @param {Step} at
   * @param {Omit<Place, 'position'>} place
   */
  #findFaults(hidden, buffer, nCols, at, { part, layer }) {
    const step = { ...at, seen: layer === undefined ? NO_LAYER : layer };
    this.#run(hidden, [buffer], `check ${part}`, step, () => [
      {
        shader: findFaults({ part, nCols }),
        buffers: { x: buffer, y: hidden.buffers.heads },
        groups: ({ nTokens }) => findFaultsGroups({ nCols }, nTokens),
      },
    ]);
  }

  /**
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {number} position
   */
  pick(logits, row, tokens, sampler, position) {
    const { temperature, repeatPenalty } = sampler.options;
    if (temperature === 0 && repeatPenalty === 1) this.#pickLargest(logits, row, tokens, position);
    else this.#pickByProcessor(logits, row, tokens, sampler, position);
  }

  /**
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {number} position
   */
  #pickLargest(logits, row, tokens, position) {
    const passes = samplingPasses(logits.nCols, 1);
    let values = logits.buffer;
    /** @type {GpuBuffer[]} */
    const left = this.#remembered(logits, 'candidates', () =>
      passes.map(({ nLeft }) => this.#own(this.#gpu.buffer(8 * nLeft, { label: 'candidates' }))),
    );
    const work = passes.map(({ shader, groups }, i) => {
      const buffers = { values, best: left[i] };
      values = left[i];
      return { shader, buffers, groups: () => groups };
    });
    this.#run(logits, [], 'largest', { position, start: row, nTokens: 1, seen: 0 }, () => work);
    this.#queue.add(() => {
      // Here and not before: work that waits may write the same position first.
      tokens.unknown.add(position);
      const best = /** @type {GpuBuffer} */ (left.at(-1));
      this.#commands.copy({ buffer: best, offset: 4, bytes: 4 }, tokens.buffer, 4 * position);
      return undefined;
    });
  }

  /**
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {number} position
   */
  #pickByProcessor(logits, row, tokens, sampler, position) {
    let picked = false;
    this.#queue.add(() => {
      if (picked) return undefined;
      return (async () => {
        const stride = 4 * up16(logits.nCols);
        const history = await this.#ids(tokens, 0, position);
        const [values] = await this.#readChecked([
          { buffer: logits.buffer, offset: row * stride, bytes: 4 * logits.nCols },
        ]);
        this.#write(tokens, position, [sampler.next(new Float32Array(values), history)]);
        picked = true;
      })();
    });
  }

  /** @param {GpuTensor | GpuHidden} from @param {Rows} [rows] */
  async read(from, { start, nRows } = { start: 0, nRows: from.nRows }) {
    await this.#queue.drained();
    const stride = up16(from.nCols);
    const buffer = from instanceof GpuHidden ? from.buffers.x : from.buffer;
    const [bytes] = await this.#readChecked([
      { buffer, offset: 4 * start * stride, bytes: 4 * nRows * stride },
    ]);
    return withoutPadding(new Float32Array(bytes), nRows, from.nCols);
  }

  /** @param {GpuHidden} x @param {Block<HeadSettings>} block @param {BatchRows} rows */
  async readStates(x, block, { start, nRows, position }) {
    const at = { position, start, nTokens: nRows, seen: 0 };
    const normed = x.buffers.normed;
    this.#run(block, [x], 'states', at, () => statesWork(block, x));
    this.#findFaults(x, normed, x.nCols, { ...at, start: 0 }, { part: 'output' });
    await this.#queue.drained();
    const [bytes] = await this.#readChecked([
      { buffer: normed, offset: 0, bytes: 4 * nRows * up16(x.nCols) },
    ]);
    return withoutPadding(new Float32Array(bytes), nRows, x.nCols);
  }

  /** @param {GpuTensor | GpuHidden} to @param {number} row @param {Float32Array} values */
  write(to, row, values) {
    const buffer = to instanceof GpuHidden ? to.buffers.x : to.buffer;
    const stride = up16(to.nCols);
    const nRows = values.length / to.nCols;
    const padded = new Float32Array(nRows * stride);
    for (let r = 0; r < nRows; r++) padded.set(values.subarray(r * to.nCols, (r + 1) * to.nCols), r * stride);
    this.#queue.add(() => {
      this.#commands.write(buffer, 4 * row * stride, padded);
      return undefined;
    });
  }

  /** @param {GpuTokens} from @param {number} start @param {number} n */
  async readTokens(from, start, n) {
    await this.#queue.drained();
    // Reading them tells of faults; where they are known, that is asked for.
    const isKnown = unknownOf(from, start, start + n).length === 0;
    const ids = await this.#ids(from, start, n);
    if (isKnown) await this.#throwFaults();
    return ids;
  }

  /** @param {GpuTokens} to @param {number} start @param {ArrayLike<number>} ids */
  writeTokens(to, start, ids) {
    const copy = Uint32Array.from(ids);
    this.#queue.add(() => {
      this.#write(to, start, copy);
      return undefined;
    });
  }

  flush() {
    this.#queue.add(() => {
      this.#commands.flush();
      return undefined;
    });
  }

  async idle() {
    await this.#queue.drained();
    await this.#throwFaults();
  }

  /**
   * Records the work of a block; the first time it is compiled, and what follows waits.
   * @param {object} owner  work is remembered as long as it is there
   * @param {readonly object[]} operands  which it is for
   * @param {string} name  of the work
   * @param {Step} step
   * @param {() => Work[]} make
   */
  #run(owner, operands, name, step, make) {
    if (this.#disposed) throw disposedError();
    const key = `${name} ${operands.map((one) => this.#numberOf(one)).join(' ')}`;
    let known = this.#ready.get(owner);
    if (!known) {
      known = new Map();
      this.#ready.set(owner, known);
    }
    const all = known;
    // Compiling begins now, beside that of the blocks that follow.
    if (!all.has(key)) {
      const compiling = this.#compile(make()).then((ready) => void all.set(key, ready));
      // Heard of by the work that waits for it, unless that is dropped.
      compiling.catch(() => {});
      all.set(key, compiling);
    }
    this.#queue.add(() => {
      const ready = all.get(key);
      if (ready instanceof Promise) return ready;
      // Another call has failed to compile the same.
      if (!ready) throw new GpuError(`the kernels of ${name} are not there`, 'shader');
      for (const { bound, groups } of ready) this.#commands.dispatch(bound, groups(step), step);
      return undefined;
    });
  }

  /** @param {Work[]} work @returns {Promise<Ready[]>} */
  async #compile(work) {
    const pipelines = await Promise.all(work.map(({ shader }) => this.#pipelines.compile(shader)));
    return work.map(({ buffers, groups }, i) => ({ bound: pipelines[i].bind(buffers), groups }));
  }

  /** @param {object} one */
  #numberOf(one) {
    let number = this.#numbers.get(one);
    if (number === undefined) {
      number = ++this.#lastNumber;
      this.#numbers.set(one, number);
    }
    return number;
  }

  /** @type {WeakMap<object, Map<string, any>>} */
  #memory = new WeakMap();

  /** @template T @param {object} owner @param {string} name @param {() => T} make @returns {T} */
  #remembered(owner, name, make) {
    const of = this.#memory.get(owner) ?? new Map();
    this.#memory.set(owner, of);
    if (!of.has(name)) of.set(name, make());
    return of.get(name);
  }

  /** Frees a buffer with the backend. @param {GpuBuffer} buffer */
  #own(buffer) {
    this.#owned.add(buffer);
    return buffer;
  }

  /** @param {GpuHidden} hidden */
  #meansOf(hidden) {
    return {
      ...this.#means,
      spare: (/** @type {string} */ label, /** @type {number} */ bytes) => hidden.spare(label, bytes),
      gpu: this.#gpu,
      own: (/** @type {GpuBuffer} */ buffer) => this.#own(buffer),
      remembered: (/** @type {object} */ owner, /** @type {string} */ name, /** @type {() => any} */ make) =>
        this.#remembered(owner, name, make),
      commands: this.#commands,
    };
  }

  /** @param {GpuTokens} tokens @param {number} start @param {ArrayLike<number>} ids */
  #write(tokens, start, ids) {
    tokens.ids.set(ids, start);
    for (let i = 0; i < ids.length; i++) tokens.unknown.delete(start + i);
    this.#commands.write(tokens.buffer, 4 * start, Uint32Array.from(ids));
  }

  /**
   * Tokens as they are when everything is done that is recorded.
   * @param {GpuTokens} tokens
   * @param {number} start
   * @param {number} n
   */
  async #ids(tokens, start, n) {
    const end = start + n;
    const asked = unknownOf(tokens, start, end);
    if (asked.length > 0) {
      const first = Math.min(...asked);
      const count = Math.max(...asked) + 1 - first;
      const [bytes] = await this.#readChecked([
        { buffer: tokens.buffer, offset: 4 * first, bytes: 4 * count },
      ]);
      tokens.ids.set(new Uint32Array(bytes), first);
      for (const position of asked) tokens.unknown.delete(position);
    }
    return tokens.ids.slice(start, end);
  }

  /**
   * Reads regions, and the notes of faults with them.
   * @param {import('./commands.js').Region[]} regions
   */
  async #readChecked(regions) {
    const hiddens = [...this.#hiddens].filter(({ freed }) => !freed);
    const all = await this.#commands.read([...regions, ...hiddens.map(({ faults }) => faults)]);
    for (const [i, hidden] of hiddens.entries()) this.#throwFault(hidden, all[regions.length + i]);
    return all.slice(0, regions.length);
  }

  async #throwFaults() {
    await this.#readChecked([]);
  }

  /** @param {GpuHidden} hidden @param {ArrayBuffer} bytes */
  #throwFault(hidden, bytes) {
    const fault = readFault(bytes);
    if (!fault) return;
    this.#commands.write(hidden.buffers.heads, 0, new Uint32Array(FAULT_WORDS));
    const { value, ...place } = fault;
    const kvType = this.#kvType;
    const largest = Number.isFinite(value) ? KV_LARGEST[kvType] : undefined;
    throw numericError(value, place, { activation: this.#activation, kvType }, largest);
  }
}

/**
 * Positions whose token only the GPU knows.
 * @param {GpuTokens} tokens
 * @param {number} start
 * @param {number} end
 */
const unknownOf = ({ unknown }, start, end) =>
  [...unknown].filter((position) => position >= start && position < end);

const disposedError = () => new HandleError('the GPU of this model is disposed', 'disposed');
