/* A GPU as a backend of models. Blocks become dispatches; they are recorded in order and submitted
 * when something is read or the runner says so. */

import { ModelError } from '../llama/errors.js';
import { servedType } from '../types.js';
import {
  attendWork,
  embedWork,
  feedWork,
  headWork,
  isSplit,
  loadBlocks,
  projectWork,
  statesWork,
} from './blocks.js';
import { CheckedReads } from './checked-reads.js';
import { Commands } from './commands.js';
import { precisionOf } from './features.js';
import { cacheShape, lacks, sizes } from './fit.js';
import { GpuCache, GpuTensor, GpuTokens } from './handles.js';
import { GpuHidden, widths } from './hidden.js';
import { kindsOf } from './layer-kinds.js';
import { loadWeights } from './model-weights.js';
import { Picks } from './picks.js';
import { Pipelines } from './pipelines.js';
import { multiplyRows } from './pooled.js';
import { formOf } from './products.js';
import { Recorder } from './recorder.js';
import { recurrentBlocks } from './recurrent.js';
import { roomFor } from './room.js';
import { up16, withoutPadding, withPadding } from './shader.js';
import { NO_LAYER } from './wgsl/faults.js';
import { findFaults, findFaultsGroups } from './wgsl/find-faults.js';

/**
 * @typedef {import('../backend.js').Backend<
 *   { hidden: GpuHidden, tensor: GpuTensor, cache: GpuCache, state: GpuState, tokens: GpuTokens }>} Backend
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
/** @typedef {import('../llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./products.js').Variants} Variants */
/** @typedef {import('./recurrent-state.js').GpuState} GpuState */
/** @typedef {import('./products.js').Work} Work */

/** @template S @typedef {import('../backend.js').Block<S>} Block */

/** @implements {Backend} */
export class GpuBackend {
  #gpu;
  #pipelines;
  #commands;
  #recorder;
  #reads;
  #picks;
  #given;
  #exact;
  #onDispose;
  #test;

  /**
   * @param {GpuDevice} gpu
   * @param {object} options
   * @param {import('../wasm/kv-cache.js').KvType} options.kvType of the caches
   * @param {Variants} options.variants
   * @param {boolean} [options.exact]  products are f32, whatever the variants say
   * @param {Pipelines} [options.pipelines]
   * @param {import('./kernels.js').GpuKernels} [options.kernels] that it belongs to
   * @param
   *   {(types: string[], layer: Partial<import('./selftest.js').SelfTestOptions>) => Promise<void>}
   *   [options.test] compares kernels with the wasm module, and may switch variants off
   * @param {() => void} [options.onDispose] ends the device, where the backend owns it
   * @param {number} [options.ahead] tokens that are computed ahead of the one that is read;
   *   default: as measured
   */
  constructor(
    gpu,
    {
      kvType,
      variants,
      exact = false,
      pipelines = new Pipelines(gpu),
      kernels,
      test = async () => {},
      onDispose = () => {},
      ahead,
    },
  ) {
    /** The kernels that it belongs to. */
    this.kernels = kernels;
    this.#gpu = gpu;
    this.#pipelines = pipelines;
    const commands = new Commands(gpu, pipelines);
    const recorder = new Recorder(pipelines, commands);
    const reads = new CheckedReads(commands, () => ({ kvType, activation: this.#activation }));
    this.#commands = commands;
    this.#recorder = recorder;
    this.#reads = reads;
    const check = (/** @type {GpuTensor} */ logits) => this.#checkLogits(logits, 1);
    this.#picks = new Picks({ gpu, commands, recorder, reads, check, ahead });
    this.#given = variants;
    this.#exact = exact;
    this.#test = test;
    this.#onDispose = onDispose;
  }

  /** @returns {import('../backend.js').BackendInfo} */
  get info() {
    const gpu = this.kernels?.info;
    return { name: 'webgpu', gpu, activation: this.#activation, memoryBytes: this.#gpu.inUse };
  }

  /** Dispatches and submissions so far. */
  get counts() {
    return this.#commands.counts;
  }

  get disposed() {
    return this.#recorder.disposed;
  }

  /** A step has one text. */
  get packs() {
    return false;
  }

  dispose() {
    if (this.disposed) return;
    this.#recorder.dispose();
    this.#commands.free();
    this.#onDispose();
  }

  /** The forms of kernels; a self-test may have changed them. @returns {Variants} */
  get #variants() {
    return this.#exact ? { ...this.#given, int8: false, f16: false } : this.#given;
  }

  /** The least precision of products. */
  get #activation() {
    return precisionOf(this.#variants, true);
  }

  /** @type {Backend['servedBy']} */
  servedBy(type) {
    // The type may have no weight here. Types with blocks have codes.
    const isCoded = servedType(type).blockValues > 1;
    return { isa: 'webgpu', activation: precisionOf(this.#variants, isCoded) };
  }

  /** @type {Backend['lacks']} */
  lacks(plan, tensors, settings) {
    return lacks(plan, tensors, settings, this.#gpu.limits);
  }

  /** @type {Backend['sizes']} */
  sizes(plan, settings) {
    return sizes(plan, settings);
  }

  /** @type {Backend['fits']} */
  fits(pieces) {
    return roomFor(this.#gpu, pieces);
  }

  /** @type {Backend['loadWeights']} */
  async loadWeights(gguf, plan, tensors, options) {
    const means = { gpu: this.#gpu, pipelines: this.#pipelines, commands: this.#commands };
    await loadBlocks(plan.layers);
    // The kernels are tested while the weights arrive.
    const testing = this.selfTest(gguf, plan, tensors);
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
   * Tests the kernels for a model: its types of weights, and the settings of every kind of layer.
   * A test that has run before is not repeated.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {Plan} plan
   * @param {readonly import('../llama/plan.js').PlannedTensor[]} tensors
   * @throws {GpuError} kernels compute wrong results on this GPU
   */
  async selfTest(gguf, plan, tensors) {
    const { types, kinds } = kindsOf(gguf, plan, tensors);
    for (const kind of kinds) await this.#test(types, kind);
  }

  /** @param {{ nRows: number, nCols: number }} shape */
  tensor(shape) {
    return new GpuTensor(this.#gpu, shape);
  }

  /** @param {Plan} plan @param {{ batch: number }} sizes */
  hidden(plan, { batch }) {
    const hidden = new GpuHidden(this.#gpu, plan, batch);
    this.#reads.watch(hidden);
    return hidden;
  }

  /** @param {number} length */
  tokens(length) {
    return new GpuTokens(this.#gpu, length);
  }

  /** @param {AttentionSettings} attention @param {RunSettings} settings */
  cache(attention, { contextLength, kvType }) {
    return new GpuCache(this.#gpu, cacheShape(attention, contextLength, kvType));
  }

  /** @param {RecurrentSettings} recurrent */
  state(recurrent) {
    return recurrentBlocks().makeState(this.#gpu, recurrent);
  }

  /** @returns {Promise<never>} */
  async save() {
    throw new ModelError('saving and copying contexts is not supported on the GPU');
  }

  /** @returns {Promise<never>} */
  async restore() {
    throw new ModelError('restoring contexts is not supported on the GPU');
  }

  /** Begins a pass. @param {GpuHidden} x */
  #begin(x) {
    const pass = ++x.pass;
    this.#recorder.add(() => {
      this.#reads.begin(x, pass);
      return undefined;
    });
  }

  /**
   * @param {GpuTokens} tokens
   * @param {GpuHidden} x
   * @param {Block<EmbeddingSettings>} block
   * @param {Step} at
   */
  embed(tokens, x, block, at) {
    this.#begin(x);
    this.#run(block, [tokens, x], 'embed', at, () => embedWork(block, tokens.buffer, x));
  }

  /**
   * @param {GpuHidden} x
   * @param {Block<AttentionSettings>} block
   * @param {GpuCache} cache
   * @param {Step} at
   */
  project(x, block, cache, at) {
    cache.note(at.position, at.nTokens);
    const form = formOf(at.nTokens);
    this.#run(block, [x, cache], `project ${form}`, at, () =>
      projectWork(block, x, cache, form, this.#meansOf(x)),
    );
    // A gate hides an infinity.
    const { settings, layer } = block;
    if (settings.outputGate)
      this.#findFaults(x, x.buffers.up, widths(settings).q, at, { part: 'attention', layer });
  }

  /**
   * @param {GpuHidden} x
   * @param {Block<AttentionSettings>} block
   * @param {GpuCache} cache
   * @param {Step} at
   */
  attend(x, block, cache, at) {
    const form = formOf(at.nTokens);
    const most = cache.shape.nPositions;
    const split = form !== 'many' && isSplit(block.settings, at);
    const keyOf = (/** @type {boolean} */ isSplit) => ({
      owner: block,
      operands: [x, cache],
      name: `attend ${form}${isSplit ? ', split' : ''}`,
    });
    const workOf = (/** @type {boolean} */ isSplit) => () =>
      attendWork(block, x, cache, form, { ...this.#meansOf(x), isSplit, most });
    this.#recorder.run(keyOf(split), at, workOf(split));
    // A text grows into it: then nothing is compiled or allocated in its middle.
    if (form === 'one' && !split && isSplit(block.settings, { ...at, seen: most }))
      this.#recorder.prepare(keyOf(true), workOf(true));
  }

  /**
   * @param {GpuHidden} x
   * @param {Block<RecurrentSettings>} block
   * @param {GpuState} state
   * @param {Step} at
   */
  recur(x, block, state, at) {
    const form = formOf(at.nTokens);
    if (!x.states.has(state)) {
      // Contexts that are gone have left theirs.
      for (const old of x.states) if (old.freed) x.states.delete(old);
      x.states.add(state);
    }
    if (state.advance(at, x.pass)) {
      const { current, saved } = state;
      this.#recorder.add(() => {
        this.#commands.copy({ buffer: saved, offset: 0, bytes: saved.bytes }, current);
        return undefined;
      });
    }
    const step = { ...at, seen: block.layer ?? NO_LAYER };
    this.#run(block, [x, state], `recur ${form}`, step, () =>
      recurrentBlocks().recurWork(block, x, state, form, this.#meansOf(x)),
    );
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
    const form = formOf(nRows);
    const at = { position, start, nTokens: nRows, seen: 0 };
    this.#run(block, [x, logits], `head ${form}`, at, () =>
      headWork(block, x, logits, form, this.#meansOf(x)),
    );
    logits.unchecked = { hidden: x, position };
    // A single row is most often one to choose from, which looks at every logit anyway.
    if (nRows > 1) this.#checkLogits(logits, nRows);
  }

  /** @param {GpuTensor} logits @param {number} nRows */
  #checkLogits(logits, nRows) {
    if (!logits.unchecked) return;
    const { hidden, position } = logits.unchecked;
    logits.unchecked = undefined;
    const at = { position, start: 0, nTokens: nRows, seen: 0 };
    this.#findFaults(hidden, logits.buffer, logits.nCols, at, { part: 'output' });
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
    this.#run(hidden, [buffer], `check ${part} ${nCols}`, step, () => [
      {
        shader: findFaults({ part, nCols }),
        buffers: { x: buffer, y: hidden.buffers.heads },
        groups: ({ nTokens }) => findFaultsGroups({ nCols }, nTokens),
      },
    ]);
  }

  /** @param {import('../backend.js').TokenSampler} sampler */
  ahead(sampler) {
    return this.#picks.ahead(sampler);
  }

  /**
   * @param {GpuTensor} logits
   * @param {number} row
   * @param {GpuTokens} tokens
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {number} position
   */
  pick(logits, row, tokens, sampler, position) {
    this.#picks.pick(logits, row, tokens, sampler, position);
  }

  /** @param {GpuTensor | GpuHidden} from @param {Rows} [rows] */
  async read(from, { start, nRows } = { start: 0, nRows: from.nRows }) {
    if (from instanceof GpuTensor) this.#checkLogits(from, 1);
    const buffer = from instanceof GpuHidden ? from.buffers.x : from.buffer;
    return this.#readRows(buffer, from.nCols, { start, nRows });
  }

  /** @param {GpuBuffer} buffer @param {number} nCols @param {Rows} rows */
  async #readRows(buffer, nCols, { start, nRows }) {
    await this.#recorder.drained();
    const stride = up16(nCols);
    const region = { buffer, offset: 4 * start * stride, bytes: 4 * nRows * stride };
    const [bytes] = await this.#reads.read([region]);
    return withoutPadding(new Float32Array(bytes), nRows, nCols);
  }

  /** @param {GpuHidden} x @param {Block<HeadSettings>} block @param {BatchRows} rows */
  async readStates(x, block, { start, nRows, position }) {
    const at = { position, start, nTokens: nRows, seen: 0 };
    this.#run(block, [x], 'states', at, () => statesWork(block, x));
    const [buffer, first] = block.settings.norm ? [x.buffers.normed, 0] : [x.buffers.x, start];
    this.#findFaults(x, buffer, x.nCols, { ...at, start: first }, { part: 'output' });
    return this.#readRows(buffer, x.nCols, { start: first, nRows });
  }

  /** @type {Backend['multiply']} */
  multiply(x, matrix, bias) {
    const [gpu, recorder, variants] = [this.#gpu, this.#recorder, this.#variants];
    return multiplyRows({ backend: this, gpu, recorder, variants }, x, matrix, bias);
  }

  /** @param {GpuTensor | GpuHidden} to @param {number} row @param {Float32Array} values */
  write(to, row, values) {
    if (to instanceof GpuTensor) to.unchecked = undefined;
    const buffer = to instanceof GpuHidden ? to.buffers.x : to.buffer;
    const padded = withPadding(values, to.nCols);
    const kept = padded === values ? values.slice() : padded;
    // States of another backend: a pass begins here.
    if (to instanceof GpuHidden && row === 0) this.#begin(to);
    this.#recorder.add(() => {
      this.#commands.write(buffer, 4 * row * up16(to.nCols), kept);
      return undefined;
    });
  }

  /** @param {GpuTokens} from @param {number} start @param {number} n */
  readTokens(from, start, n) {
    return this.#picks.read(from, start, n);
  }

  /** @param {GpuTokens} to @param {number} start @param {ArrayLike<number>} ids */
  writeTokens(to, start, ids) {
    this.#picks.write(to, start, ids);
  }

  flush() {
    this.#recorder.add(() => {
      this.#commands.flush();
      return undefined;
    });
  }

  async idle() {
    await this.#recorder.drained();
    await this.#reads.read([]);
  }

  /**
   * Records the work of a block.
   * @param {object} owner  work is remembered as long as it is there
   * @param {readonly object[]} operands  which it is for
   * @param {string} name  of the work
   * @param {Step} step
   * @param {() => Work[]} make
   */
  #run(owner, operands, name, step, make) {
    this.#recorder.run({ owner, operands, name }, step, make);
  }

  /** @param {GpuHidden} hidden */
  #meansOf(hidden) {
    const recorder = this.#recorder;
    return {
      variants: this.#variants,
      spare: (/** @type {string} */ label, /** @type {number} */ bytes) => hidden.spare(label, bytes),
      gpu: this.#gpu,
      own: (/** @type {GpuBuffer} */ buffer) => recorder.own(buffer),
      remembered: (/** @type {object} */ owner, /** @type {string} */ name, /** @type {() => any} */ make) =>
        recorder.remembered(owner, name, make),
      commands: this.#commands,
    };
  }
}
