/* Several backends as one: each computes some layers of a model, the first one the embedding too, and
 * the last one the head. Only hidden states cross from one to the next, by reading and writing.
 *
 * Calls are queued, as a block can be computed only when the states that it needs have arrived: a
 * backend on the CPU computes at the call. */

import { HandleError } from './errors.js';
import { isCausal } from './llama/layers.js';
import { LONGEST_STRETCH, nextTask } from './llama/pause.js';
import { Queue } from './queue.js';
import {
  Parts,
  StagedCache,
  StagedHidden,
  StagedState,
  StagedTensor,
  StagedTokens,
} from './staged-handles.js';

/** @typedef {import('./backend.js').Backend} Backend */
/** @typedef {import('./backend.js').BatchRows} BatchRows */
/** @typedef {import('./backend.js').LoadedWeights} LoadedWeights */
/** @typedef {import('./backend.js').Resource} Resource */
/** @typedef {import('./backend.js').Rows} Rows */
/** @typedef {import('./backend.js').RunSettings} RunSettings */
/** @typedef {import('./backend.js').Sizes} Sizes */
/** @typedef {import('./backend.js').Step} Step */
/** @typedef {import('./llama/numeric.js').Place} Place */
/** @typedef {import('./llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('./llama/plan.js').EmbeddingSettings} EmbeddingSettings */
/** @typedef {import('./llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('./llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('./llama/plan.js').Plan} Plan */
/** @typedef {import('./llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('./llama/plan-slice.js').Slice} Slice */

/** @template S @typedef {import('./backend.js').Block<S>} Block */

/**
 * Layers of a model on a backend: those from `from` up to the one before `to`, and the plan of them.
 * A backend may have several stages.
 * @typedef {{ backend: Backend, from: number, to: number, slice: Slice }} Stage
 */

/**
 * @typedef {import('./backend.js').Backend<
 *   { hidden: StagedHidden, tensor: StagedTensor, cache: StagedCache, state: StagedState,
 *     tokens: StagedTokens }>} Staged
 */

/** @implements {Staged} */
export class StagedBackend {
  #stages;
  #settings;
  #first;
  #last;
  /** Stage of each layer. @type {number[]} */
  #stageOf = [];
  #queue = new Queue();
  #since = performance.now();
  #disposed = false;

  /**
   * @param {readonly Stage[]} stages  of all layers, in order; each has one layer at least
   * @param {RunSettings} settings
   */
  constructor(stages, settings) {
    this.#stages = stages;
    this.#settings = settings;
    this.#first = stages[0].backend;
    this.#last = stages[stages.length - 1].backend;
    for (const [s, { from, to }] of stages.entries())
      for (let layer = from; layer < to; layer++) this.#stageOf[layer] = s;
  }

  /** Kernels of the first stage. */
  get kernels() {
    return /** @type {{ kernels?: unknown }} */ (this.#first).kernels;
  }

  /** @returns {import('./backend.js').BackendInfo} */
  get info() {
    const infos = this.#backends.map(({ info }) => info);
    const kernels = infos.find((info) => info.kernels)?.kernels;
    const gpu = infos.find((info) => info.gpu)?.gpu;
    const memoryBytes = infos.reduce((sum, info) => sum + info.memoryBytes, 0);
    return { name: 'stages', ...(kernels && { kernels }), ...(gpu && { gpu }), memoryBytes };
  }

  /** The backends, each once. */
  get #backends() {
    return [...new Set(this.#stages.map(({ backend }) => backend))];
  }

  get disposed() {
    return this.#disposed;
  }

  dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#queue.end(new HandleError('the devices of this model are disposed', 'disposed'));
    for (const backend of this.#backends) backend.dispose();
  }

  /** As on the backend of the longest stage. @type {Staged['servedBy']} */
  servedBy(type) {
    const [most] = [...this.#stages].sort((a, b) => b.to - b.from - (a.to - a.from));
    return most.backend.servedBy(type);
  }

  /** @type {Staged['lacks']} */
  lacks(_, tensors, settings) {
    const reasons = this.#stages.flatMap(({ backend, slice }) => {
      const names = new Set(slice.tensors.map(({ name }) => name));
      const own = tensors.filter(({ name }) => names.has(name));
      return backend.lacks(slice.plan, own, settings);
    });
    return [...new Set(reasons)];
  }

  /** @type {Staged['sizes']} */
  sizes(plan, settings) {
    const all = this.#stages.map(({ backend, slice }) => backend.sizes(slice.plan, settings));
    const [last] = all.slice(-1);
    const least = (/** @type {keyof Sizes} */ of) => Math.min(...all.map((one) => one[of]));
    const sum = (/** @type {keyof Sizes} */ of) => all.reduce((total, one) => total + one[of], 0);
    const batch = isCausal(plan.layers) ? least('batch') : settings.contextLength;
    const logitRows = Math.min(batch, last.logitRows);
    const part = Math.min(batch, least('part'));
    return { batch, part, logitRows, kvBytes: sum('kvBytes'), workspaceBytes: sum('workspaceBytes') };
  }

  /** A step has one text. */
  get packs() {
    return false;
  }

  /** Work is queued, and each token is read before the next one is computed. */
  ahead() {
    return 0;
  }

  /** @type {Staged['multiply']} */
  multiply(...product) {
    return this.#last.multiply(...product);
  }

  /** @type {Staged['fits']} */
  fits(pieces) {
    return this.#first.fits(pieces);
  }

  /** @type {Staged['loadWeights']} */
  async loadWeights(gguf, _plan, _tensors, { onProgress, signal }) {
    const bytesOf = (/** @type {Stage} */ { slice }) =>
      slice.tensors.reduce((sum, { name }) => sum + gguf.tensor(name).byteLength, 0);
    const total = this.#stages.reduce((sum, stage) => sum + bytesOf(stage), 0);
    let before = 0;
    /** @type {LoadedWeights[]} */
    const loaded = [];
    /** @type {import('./backend.js').Weights} */
    const byRole = { layers: [] };
    try {
      for (const [s, stage] of this.#stages.entries()) {
        const { backend, from, to, slice } = stage;
        const done = before;
        const { kvBytes, workspaceBytes } = backend.sizes(slice.plan, this.#settings);
        const weights = await backend.loadWeights(gguf, slice.plan, slice.tensors, {
          otherBytes: kvBytes + workspaceBytes,
          ...(onProgress && { onProgress: ({ loaded: n }) => onProgress({ loaded: done + n, total }) }),
          ...(signal && { signal }),
        });
        loaded.push(weights);
        before += bytesOf(stage);
        const { layers, embedding, head, dense, ranker } = weights.byRole;
        for (let i = 0; i < to - from; i++) byRole.layers[from + i] = layers[i];
        if (s === 0) byRole.embedding = embedding;
        if (s === this.#stages.length - 1) Object.assign(byRole, { head, dense, ranker });
      }
    } catch (error) {
      for (const weights of loaded) weights.free();
      throw error;
    }
    const all = new Parts(loaded);
    return {
      byRole,
      free: () => all.free(),
      get freed() {
        return all.freed;
      },
    };
  }

  /** @param {{ nRows: number, nCols: number }} shape */
  tensor(shape) {
    return new StagedTensor(this.#last.tensor(shape));
  }

  /** @param {Plan} _ @param {Pick<Sizes, 'batch' | 'part'>} sizes */
  hidden(_, sizes) {
    return new StagedHidden(
      this.#made(this.#stages, ({ backend, slice }) => backend.hidden(slice.plan, sizes)),
    );
  }

  /** @param {number} length */
  tokens(length) {
    const [first, last] = this.#made([this.#first, this.#last], (backend) => backend.tokens(length));
    return new StagedTokens(first, last, length);
  }

  /** @param {AttentionSettings} attention @param {RunSettings} settings @param {number} layer */
  cache(attention, settings, layer) {
    const { backend } = this.#stages[this.#stageOf[layer]];
    return new StagedCache(backend.cache(attention, settings, layer), backend, attention.window > 0);
  }

  /** @param {RecurrentSettings} recurrent @param {RunSettings} settings @param {number} layer */
  state(recurrent, settings, layer) {
    const { backend } = this.#stages[this.#stageOf[layer]];
    return new StagedState(backend.state(recurrent, settings, layer), backend);
  }

  /** @param {StagedCache | StagedState} part @param {number} nTokens */
  async save({ backend, all: [one] }, nTokens) {
    await this.#queue.drained();
    return backend.save(one, nTokens);
  }

  /**
   * @param {StagedCache | StagedState} part
   * @param {import('./backend.js').Saved} saved
   * @param {number} nTokens
   */
  restore({ backend, all: [one] }, saved, nTokens) {
    return backend.restore(one, saved, nTokens);
  }

  /**
   * Makes a handle for each of some things, or after an error none.
   * @template T
   * @param {readonly T[]} all
   * @param {(one: T) => any} make
   */
  #made(all, make) {
    /** @type {Resource[]} */
    const made = [];
    try {
      for (const one of all) made.push(make(one));
      return made;
    } catch (error) {
      new Parts(made).free();
      throw error;
    }
  }

  /**
   * @param {StagedTokens} tokens
   * @param {StagedHidden} x
   * @param {Block<EmbeddingSettings>} block
   * @param {Step} at
   */
  embed(tokens, x, block, at) {
    const [first, last] = tokens.all;
    this.#whenThere(
      async () => {
        for (let p = at.position; p < at.position + at.nTokens; p++) {
          if (!tokens.picked.delete(p)) continue;
          this.#first.writeTokens(first, p, await this.#last.readTokens(last, p, 1));
        }
      },
      () => Array.from({ length: at.nTokens }, (_, i) => at.position + i).some((p) => tokens.picked.has(p)),
    );
    this.#call(() => this.#first.embed(first, x.all[0], block, at));
    x.at = 0;
  }

  /**
   * @param {StagedHidden} x
   * @param {Block<AttentionSettings>} block
   * @param {StagedCache} cache
   * @param {Step} at
   */
  project(x, block, cache, at) {
    const s = this.#stageAt(block);
    const { backend, from } = this.#stages[s];
    if (block.layer === from) this.#cross(x, s, at);
    const done = cache.ask();
    this.#call(() => {
      backend.project(x.all[s], block, cache.all[0], at);
      done();
    });
    x.at = s;
  }

  /**
   * @param {StagedHidden} x
   * @param {Block<AttentionSettings>} block
   * @param {StagedCache} cache
   * @param {Step} at
   */
  attend(x, block, cache, at) {
    const s = this.#stageAt(block);
    this.#call(() => this.#stages[s].backend.attend(x.all[s], block, cache.all[0], at));
  }

  /**
   * @param {StagedHidden} x
   * @param {Block<RecurrentSettings>} block
   * @param {StagedState} state
   * @param {Step} at
   */
  recur(x, block, state, at) {
    const s = this.#stageAt(block);
    const { backend, from, slice } = this.#stages[s];
    // Where the layer has attention too, project has brought the rows.
    if (block.layer === from && !slice.plan.layers[0].attention) this.#cross(x, s, at);
    const done = state.ask();
    this.#call(() => {
      backend.recur(x.all[s], block, state.all[0], at);
      done();
    });
    x.at = s;
  }

  /** @param {StagedHidden} x @param {Block<FeedSettings>} block @param {Step} at */
  feed(x, block, at) {
    const s = this.#stageAt(block);
    this.#call(() => this.#stages[s].backend.feed(x.all[s], block, at));
  }

  /**
   * @param {StagedHidden} x
   * @param {Block<HeadSettings>} block
   * @param {StagedTensor} logits
   * @param {BatchRows} rows
   */
  head(x, block, logits, rows) {
    const states = x.all[x.all.length - 1];
    this.#call(() => this.#last.head(states, block, logits.all[0], rows));
  }

  /** @param {StagedHidden} x @param {Step} at @param {Omit<Place, 'position'>} place */
  check(x, at, place) {
    const s = place.layer === undefined ? 0 : this.#stageOf[place.layer];
    this.#call(() => this.#stages[s].backend.check(x.all[s], at, place));
  }

  /**
   * @param {StagedTensor} logits
   * @param {number} row
   * @param {StagedTokens} tokens
   * @param {import('./backend.js').TokenSampler} sampler
   * @param {number} position
   */
  pick(logits, row, tokens, sampler, position) {
    this.#call(() => {
      this.#last.pick(logits.all[0], row, tokens.all[1], sampler, position);
      tokens.picked.add(position);
    });
  }

  /** @param {StagedTensor | StagedHidden} from @param {Rows} [rows] */
  async read(from, rows) {
    await this.#queue.drained();
    // A tensor of the ranking head is one of the last backend.
    if (!(from instanceof Parts)) return this.#last.read(from, rows);
    if (!(from instanceof StagedHidden)) return this.#last.read(from.all[0], rows);
    return this.#stages[from.at].backend.read(from.all[from.at], rows);
  }

  /** @param {StagedHidden} x @param {Block<HeadSettings>} block @param {BatchRows} rows */
  async readStates(x, block, rows) {
    await this.#queue.drained();
    return this.#last.readStates(x.all[x.all.length - 1], block, rows);
  }

  /** @param {StagedTensor | StagedHidden} to @param {number} row @param {Float32Array} values */
  write(to, row, values) {
    const copy = values.slice();
    this.#call(() => {
      if (!(to instanceof StagedHidden)) this.#last.write(to.all[0], row, copy);
      else for (const [s, { backend }] of this.#stages.entries()) backend.write(to.all[s], row, copy);
    });
  }

  /** @param {StagedTokens} from @param {number} start @param {number} n */
  async readTokens(from, start, n) {
    /** @type {Promise<Uint32Array> | undefined} */
    let reading;
    // Here and not after later calls, which may write the same positions.
    this.#call(() => {
      reading = this.#last.readTokens(from.all[1], start, n);
      reading.catch(() => {});
    });
    await this.#queue.drained();
    if (!reading) throw new HandleError('work before these tokens failed', 'disposed');
    return reading;
  }

  /** @param {StagedTokens} to @param {number} start @param {ArrayLike<number>} ids */
  writeTokens(to, start, ids) {
    const copy = Uint32Array.from(ids);
    this.#call(() => {
      this.#first.writeTokens(to.all[0], start, copy);
      this.#last.writeTokens(to.all[1], start, copy);
      for (const i of copy.keys()) to.picked.delete(start + i);
    });
  }

  flush() {
    this.#call(() => {
      for (const backend of this.#backends) backend.flush();
    });
  }

  async idle() {
    await this.#queue.drained();
    // All of them, so that no error of a later stage is left for another call.
    const ends = await Promise.allSettled(this.#backends.map((backend) => backend.idle()));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  }

  /** @param {Block<unknown>} block */
  #stageAt({ layer = 0 }) {
    return this.#stageOf[layer];
  }

  /** Calls a backend when everything before is done. @param {() => void} call */
  #call(call) {
    if (this.#disposed) throw new HandleError('the devices of this model are disposed', 'disposed');
    this.#queue.add(() => {
      if (performance.now() - this.#since > LONGEST_STRETCH) return this.#rest();
      call();
      return undefined;
    });
  }

  async #rest() {
    await nextTask();
    this.#since = performance.now();
  }

  /**
   * Waits for something before the work that follows.
   * @param {() => Promise<void>} fetch
   * @param {() => boolean} isNeeded
   */
  #whenThere(fetch, isNeeded = () => true) {
    let done = false;
    this.#queue.add(() => {
      if (done || !isNeeded()) return undefined;
      done = true;
      return fetch();
    });
  }

  /**
   * Brings rows of hidden states to a stage, unless it is the first one.
   * @param {StagedHidden} x
   * @param {number} s
   * @param {Step} at
   */
  #cross(x, s, { start, nTokens }) {
    if (s === 0) return;
    const [from, to] = [this.#stages[s - 1].backend, this.#stages[s].backend];
    this.#whenThere(async () => {
      const rows = await from.read(x.all[s - 1], { start, nRows: nTokens });
      if (!this.#disposed) to.write(x.all[s], start, rows);
    });
  }
}
