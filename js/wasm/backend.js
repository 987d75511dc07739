/* The CPU as a backend of models. Each block is a few operations of the kernels, finished when the
 * call returns. With norms of the sums, x += .. means x = norm(x + ..).
 *
 *   project  q, k, v = norm(x) Wqkv^T (+ biases); q, k, v = norm; q, k = rope; store k, v in the
 *            cache; only q, where the layer reads keys and values of another one
 *   attend   x += (attention(q, cache) * sigmoid(gate)) Wo^T; the gate, where there is one, comes
 *            from project
 *   recur    x += recurrent block of norm(x): js/wasm/recurrent
 *   feed     x += (act(h gate^T) * (h up^T)) down^T, h = norm(x); or x += act(h up^T) down^T;
 *            with biases of up and down; or experts: feed-experts.js; then layer-inputs.js
 *   head     logits = norm(x) output^T */

import { ArgumentError, show } from '../errors.js';
import { cachedPositions } from '../llama/cached-positions.js';
import { checkNumbers, KV_LARGEST } from '../llama/numeric.js';
import { addBias, cap, correct, multiplyBy } from './after-products.js';
import { aloneIn, MOST_ALONE } from './core.js';
import { createKernels } from './create.js';
import { feedPlain, feedWithFactors, gateOf } from './feed-dense.js';
import { feedExperts } from './feed-experts.js';
import { countFitting, LARGEST_BATCH, lacks, sizes } from './fit.js';
import { addressIn, floatsOf } from './handles.js';
import { WasmHidden } from './hidden.js';
import { Kernels, memoryOf } from './kernels.js';
import { latentValues, projectLatent } from './latent.js';
import { LayerCache } from './layer-cache.js';
import { addLayerInput, makeLayerInputs } from './layer-inputs.js';
import { loadModelWeights } from './model-weights.js';
import { heat, turn } from './positions.js';
import { recurrentBlock } from './recurrent/block.js';
import { RecurrentState } from './recurrent/state.js';
import { viewOf } from './tensor-view.js';
import { positionsOf, rowsOf, textsOf } from './texts.js';
import { Tokens } from './tokens.js';

/**
 * @typedef {import('../backend.js').Backend<
 *   { hidden: WasmHidden, tensor: Tensor, cache: LayerCache, state: RecurrentState,
 *     tokens: Tokens }>} Backend
 */
/** @typedef {import('../backend.js').Resource} Resource */
/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../backend.js').Rows} Rows */
/** @typedef {import('../backend.js').BatchRows} BatchRows */
/** @typedef {import('../llama/numeric.js').Place} Place */
/** @typedef {import('../backend.js').RunSettings} RunSettings */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('../llama/plan.js').Norm} Norm */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernel-types.js').KernelsOptions} KernelsOptions */
/** @typedef {import('./kernel-types.js').Gate} Gate */
/** @typedef {import('./kv-cache.js').KvType} KvType */
/** @typedef {import('./selftest.js').Activation} Activation */

/** @template S @typedef {import('../backend.js').Block<S>} Block */

const QKV = ['q', 'k', 'v'];

/** @implements {Backend} */
export class WasmBackend {
  #kernels;
  /** The same, or with adapters kernels that add to products: one set around another for each part. */
  #fm;
  #activation;
  /** The same mode for steps whose rows are treated as if each were the only one. */
  #alone;
  #kvType;
  #memory;
  /** Settings of the model, for messages about its numbers. */
  #advice;
  #ownsKernels;

  /**
   * @param {Kernels} fm
   * @param {{ activation: Activation, kvType: KvType, ownsKernels: boolean }} options  activation:
   *   mode of all products; kvType: type of the caches; ownsKernels: whether dispose() ends the
   *   kernels
   */
  constructor(fm, { activation, kvType, ownsKernels }) {
    this.#kernels = fm;
    this.#fm = fm;
    this.#activation = activation;
    this.#alone = aloneIn(activation);
    this.#kvType = kvType;
    this.#memory = memoryOf(fm);
    this.#advice = { activation, kvType };
    this.#ownsKernels = ownsKernels;
  }

  /** The means for blocks that have files of their own. */
  #tools(/** @type {Step} */ at) {
    const check = (/** @type {Tensor} */ x, /** @type {Place} */ place) => this.#check(x, place);
    return { fm: this.#fm, memory: this.#memory, activation: this.#modeOf(at), check };
  }

  /** Mode of the products of a step. @param {{ alone?: boolean }} at  the step, or its rows */
  #modeOf({ alone }) {
    return alone ? this.#alone : this.#activation;
  }

  get kernels() {
    return this.#kernels;
  }

  /** @returns {import('../backend.js').BackendInfo} */
  get info() {
    return { name: 'wasm', kernels: this.#fm.info, memoryBytes: this.#fm.memory().bytes };
  }

  get disposed() {
    return this.#fm.disposed;
  }

  get packs() {
    return true;
  }

  get alone() {
    return MOST_ALONE;
  }

  dispose() {
    if (this.#ownsKernels) this.#fm.dispose();
  }

  /** @param {string} type */
  servedBy(type) {
    return this.#fm.servedBy(type, this.#activation);
  }

  /** @type {Backend['lacks']} */
  lacks(plan, tensors) {
    return lacks(plan, tensors);
  }

  /** @type {Backend['sizes']} */
  sizes(plan, settings) {
    return sizes(plan, settings);
  }

  /** @type {Backend['fits']} */
  async fits(pieces) {
    return countFitting(pieces, this.#fm.memory().inUse, this.#fm.info.memory64);
  }

  /** @type {Backend['loadWeights']} */
  async loadWeights(gguf, plan, tensors, options) {
    const code = plan.lowRank && (await import('./low-rank.js'));
    const weights = await loadModelWeights(this.#kernels, gguf, plan, tensors, options);
    if (!code) return weights;
    const adapted = code.adapt(this.#fm, plan, weights, this.#activation);
    this.#fm = adapted.kernels;
    return adapted.weights;
  }

  /** @param {{ nRows: number, nCols: number }} shape */
  tensor(shape) {
    return this.#fm.tensor(shape);
  }

  /** @param {Plan} plan @param {{ batch: number, part: number }} sizes */
  hidden(plan, sizes) {
    return new WasmHidden(this.#fm, plan, sizes);
  }

  /** @param {number} length */
  tokens(length) {
    return new Tokens(length);
  }

  /** @param {AttentionSettings} attention @param {RunSettings} settings */
  cache(attention, { contextLength, kvType }) {
    const { nKvHeads, headSize, window, latent } = attention;
    const nPositions = cachedPositions(attention, contextLength, LARGEST_BATCH);
    const shape = { type: kvType, nPositions, nKvHeads, headSize };
    const keys = this.#fm.kvCache(shape);
    try {
      return new LayerCache(keys, latent ? keys : this.#fm.kvCache(shape), window);
    } catch (error) {
      keys.free();
      throw error;
    }
  }

  /** @param {RecurrentSettings} recurrent */
  state(recurrent) {
    return new RecurrentState(this.#fm, recurrent);
  }

  /** @type {Backend['save']} */
  async save(part, nTokens) {
    return (await import('./saved.js')).save(this.#memory, part, nTokens);
  }

  /** @type {Backend['restore']} */
  async restore(part, saved, nTokens) {
    (await import('./saved.js')).restore(this.#memory, part, saved, nTokens);
  }

  /**
   * @param {Tokens} tokens
   * @param {WasmHidden} hidden
   * @param {Block<import('../llama/plan.js').EmbeddingSettings>} block
   * @param {Step} at
   */
  embed({ ids }, hidden, { settings, weights }, at) {
    const fm = this.#fm;
    const { position, nTokens } = at;
    const { x: out, added } = hidden.states(at);
    fm.embed(weights.table, ids.subarray(position, position + nTokens), { out });
    if (settings.scale !== 1) fm.scale(out, settings.scale, { out });
    if (weights.positions) fm.add(out, fm.embed(weights.positions, positionsOf(at), { out: added }), { out });
    addBias(this.#fm, out, weights.types);
    if (settings.norm) this.#norm(out, weights, 'norm', settings.norm, out);
    makeLayerInputs(fm, hidden, ids, { settings, weights }, at, this.#modeOf(at));
  }

  /**
   * @param {WasmHidden} hidden
   * @param {Block<AttentionSettings>} block
   * @param {LayerCache} cache
   * @param {Step} at
   */
  project(hidden, { settings, weights, layer }, cache, at) {
    const fm = this.#fm;
    const activation = this.#modeOf(at);
    const { position } = at;
    const { norm, qkNorm, valueNorm } = settings;
    const { x } = hidden.states(at);
    const views = hidden.attention(at, settings);
    const texts = textsOf(at);
    const { qkv, gate, latent } = views;
    /** @type {(Tensor | undefined)[]} */
    const [, k, v] = qkv;
    const [q] = qkv;
    const multiply = (/** @type {any[]} */ products, /** @type {Tensor[]} */ out) => {
      if (norm?.kind === 'rms')
        fm.fusedRmsNormMatmul(products, x, weights.norm, { eps: norm.eps, out, activation });
      else fm.fusedMatmulMany(products, this.#normed(x, hidden, weights, norm), { out, activation });
    };
    if (latent) projectLatent(this.#tools(at), multiply, { qkv, latent }, settings, weights);
    else {
      const products = [weights.q, ...(k ? [weights.k, weights.v] : []), ...(gate ? [weights.gate] : [])];
      multiply(products, gate ? [...qkv, gate] : qkv);
      for (const [i, role] of QKV.entries()) if (qkv[i]) correct(fm, qkv[i], weights, role);
    }
    const [, , ofValues] = views.heads;
    if (valueNorm && ofValues) fm.rmsNorm(ofValues, undefined, { eps: valueNorm.eps, out: ofValues });
    if (qkNorm && !qkNorm.afterRope) this.#normQk(views, weights, qkNorm);
    for (const text of texts) turn(fm, rowsOf(q, text), k && rowsOf(k, text), settings, weights, text);
    if (qkNorm?.afterRope) this.#normQk(views, weights, qkNorm);
    if (settings.temperature)
      for (const text of texts) heat(fm, rowsOf(q, text), settings.temperature, text.position);
    // Infinite queries or keys may only give weights of 0, which no later check would find.
    const largest = KV_LARGEST[this.#kvType];
    this.#check(q, { part: 'queries', layer, position });
    if (k) this.#check(k, { part: 'keys', layer, position }, largest);
    if (v) this.#check(v, { part: 'values', layer, position }, largest);
    if (gate) {
      multiplyBy(this.#fm, gate, weights.gateFactor);
      this.#check(gate, { part: 'attention', layer, position });
    }
    if (!k) return;
    // All rows share one cache: room for all is made first, since room for a later row would displace
    // positions that an earlier one sees.
    if (at.alone) cache.rowFor(position, at.nTokens);
    for (const text of texts) {
      const own = text.cache ?? cache;
      const row = own.rowFor(text.cached + text.position, text.nTokens);
      own.keys.write(rowsOf(k, text), row);
      if (v) own.values.write(rowsOf(v, text), row);
    }
  }

  /**
   * @param {WasmHidden} hidden
   * @param {Block<AttentionSettings>} block
   * @param {LayerCache} cache
   * @param {Step} at
   */
  attend(hidden, { settings, weights }, cache, at) {
    const { causal, window, scale, softcap } = settings;
    const { x, added } = hidden.states(at);
    const { qkv, attended, gate, latent } = hidden.attention(at, settings);
    for (const text of textsOf(at)) {
      const { position, seen, cached: start } = text;
      const { keys, values, first } = text.cache ?? cache;
      const [firstPosition, nPositions] = [position - first, seen - first];
      const out = rowsOf(attended, text);
      const { sinks } = weights;
      const options = { firstPosition, nPositions, start, causal, window, scale, softcap, sinks, out };
      this.#fm.flashAttention(rowsOf(qkv[0], text), keys, values, options);
    }
    if (gate) this.#fm.gated(gate, attended, { act: 'sigmoid', out: attended });
    const mixed = latent ? latentValues(this.#tools(at), attended, latent, settings, weights) : attended;
    this.#fm.fusedMatmul(weights.output, mixed, { out: added, activation: this.#modeOf(at) });
    correct(this.#fm, added, weights, 'output');
    this.#addTo(x, added, settings, weights);
  }

  /** @type {Backend['recur']} */
  recur(hidden, block, state, at) {
    const added = recurrentBlock(this.#tools(at), hidden, block, state, at);
    this.#addTo(hidden.states(at).x, added, block.settings, block.weights);
  }

  /** @param {WasmHidden} hidden @param {Block<FeedSettings>} block @param {Step} at */
  feed(hidden, block, at) {
    this.#feed(hidden, block, at);
    addLayerInput(this.#fm, hidden, block, at, this.#modeOf(at));
    multiplyBy(this.#fm, hidden.states(at).x, block.weights.sumFactor);
  }

  /** @param {WasmHidden} hidden @param {Block<FeedSettings>} block @param {Step} at */
  #feed(hidden, { settings, weights }, at) {
    const { kind, norm, postNorm, sumNorm, residualScale } = settings;
    const { x, added } = hidden.states(at);
    const activation = this.#modeOf(at);
    const isRms = norm?.kind === 'rms';
    const isChanged = ['gate', 'up', 'down'].some(
      (role) => weights[`${role}Factor`] !== undefined || weights[`${role}Lora`] !== undefined,
    );
    if (kind !== 'gated' || isChanged) {
      // Products of experts have no norm in front of them.
      const h = isRms && kind !== 'experts' ? x : this.#normed(x, hidden, weights, norm);
      if (kind === 'experts')
        feedExperts(this.#fm, x, h, added, hidden.experts(at, settings), settings, weights, activation);
      else if (kind === 'plain')
        feedPlain(this.#fm, h, added, hidden.inner(at, settings), settings, weights, activation);
      else feedWithFactors(this.#fm, h, added, hidden.gated(at, settings), settings, weights, activation);
      this.#addTo(x, added, settings, weights);
      return;
    }
    const normed = isRms ? x : this.#normed(x, hidden, weights, norm);
    const { gate, up, down } = weights;
    const ffn = { gate, up, down, norm: isRms ? weights.norm : undefined };
    const residual = !postNorm && residualScale === 1 && normed === x && !weights.downBias;
    const out = residual ? x : added;
    const act = gateOf(settings);
    this.#fm.fusedFfn(ffn, normed, { eps: norm?.eps, act, residual, out, activation });
    if (!residual) {
      addBias(this.#fm, added, weights.downBias);
      this.#addTo(x, added, settings, weights);
    } else if (sumNorm) this.#norm(x, weights, 'sumNorm', sumNorm, x);
  }

  /**
   * @param {WasmHidden} x
   * @param {Block<HeadSettings>} block
   * @param {Tensor} logits
   * @param {BatchRows} rows
   */
  head(x, { settings, weights }, logits, rows) {
    const out = viewOf(logits, { nRows: rows.nRows });
    const { norm } = settings;
    const options = { out: [out], activation: this.#modeOf(rows) };
    const states = x.rows(rows);
    if (norm?.kind === 'rms')
      this.#fm.fusedRmsNormMatmul([weights.output], states, weights.norm, { ...options, eps: norm.eps });
    else this.#fm.fusedMatmulMany([weights.output], this.#normed(states, x, weights, norm), options);
    multiplyBy(this.#fm, out, weights.outputFactor);
    if (settings.scale !== 1) this.#fm.scale(out, settings.scale, { out });
    cap(out, settings.softcap);
    this.#check(out, { part: 'output', position: rows.position });
  }

  /** @param {WasmHidden} x @param {Step} at @param {Omit<Place, 'position'>} place */
  check(x, { start, position, nTokens }, place) {
    this.#check(x.rows({ start, nRows: nTokens }), { ...place, position });
  }

  /** @type {Backend['pick']} */
  pick(logits, row, { ids }, sampler, position) {
    const values = floatsOf(viewOf(logits, { start: row, nRows: 1 }));
    ids[position] = sampler.next(values, ids.subarray(0, position));
  }

  /** @param {Tensor | WasmHidden} from @param {Rows} [rows] */
  async read(from, rows = { start: 0, nRows: from.nRows }) {
    return (from instanceof WasmHidden ? from.rows(rows) : viewOf(from, rows)).toArray();
  }

  /** @param {WasmHidden} x @param {Block<HeadSettings>} block @param {BatchRows} rows */
  async readStates(x, { settings, weights }, { start, nRows, position }) {
    const { added } = x.states({ start: 0, nTokens: nRows });
    const states = x.rows({ start, nRows });
    const out = settings.norm ? this.#norm(states, weights, 'norm', settings.norm, added) : states;
    this.#check(out, { part: 'output', position });
    return out.toArray();
  }

  /** @type {Backend['multiply']} */
  async multiply(x, matrix, bias) {
    const y = this.#fm.fusedMatmul(matrix, x, { activation: this.#activation });
    const added = /** @type {Tensor | undefined} */ (bias)?.toArray();
    return added ? y.map((value, i) => value + added[i % added.length]) : y;
  }

  /** @param {Tensor | WasmHidden} to @param {number} row @param {Float32Array} values */
  write(to, row, values) {
    const tensor = to instanceof WasmHidden ? to.rows({ start: 0, nRows: to.nRows }) : to;
    tensor.set(values, row * to.nCols);
  }

  /** @param {Tokens} from @param {number} start @param {number} n */
  async readTokens({ ids }, start, n) {
    return ids.slice(start, start + n);
  }

  /** @param {Tokens} to @param {number} start @param {ArrayLike<number>} ids */
  writeTokens(to, start, ids) {
    to.ids.set(ids, start);
  }

  flush() {}

  async idle() {}

  /** @param {Tensor} tensor  a row for each token @param {Place} place @param {number} [largest] */
  #check(tensor, place, largest) {
    const memory = this.#memory;
    const from = addressIn(tensor, memory) / 4;
    checkNumbers(memory.f32, from, from + tensor.length, tensor.nCols, place, this.#advice, largest);
  }

  /**
   * @param {Tensor} x
   * @param {import('../backend.js').Weights} weights
   * @param {string} role  of the norm's weight
   * @param {Norm} norm
   * @param {Tensor} out
   */
  #norm(x, weights, role, { kind, eps }, out) {
    if (kind === 'rms') return this.#fm.rmsNorm(x, weights[role], { eps, out });
    return this.#fm.layerNorm(x, weights[role], weights[`${role}Bias`], { eps, out });
  }

  /**
   * Hidden states after the norm of a block, in work memory, or the states if there is no norm.
   * @param {Tensor} x
   * @param {WasmHidden} hidden
   * @param {import('../backend.js').Weights} weights
   * @param {Norm | undefined} norm
   */
  #normed(x, hidden, weights, norm) {
    return norm ? this.#norm(x, weights, 'norm', norm, hidden.normed(x.nRows)) : x;
  }

  /**
   * @param {{ qkv: Tensor[], heads: Tensor[] }} views
   * @param {import('../backend.js').Weights} weights
   * @param {import('../llama/plan.js').QkNorm} norm
   */
  #normQk({ qkv, heads }, { qNorm, kNorm }, { eps, span }) {
    const [q, k] = span === 'head' ? heads : qkv;
    this.#fm.rmsNorm(q, qNorm, { eps, out: q });
    if (k) this.#fm.rmsNorm(k, kNorm, { eps, out: k });
  }

  /**
   * x = sumNorm(x + residualScale * postNorm(added)).
   * @param {Tensor} x
   * @param {Tensor} added  overwritten
   * @param {Pick<FeedSettings, 'postNorm' | 'residualScale'> & { sumNorm?: Norm | undefined }} settings
   * @param {import('../backend.js').Weights} weights
   */
  #addTo(x, added, { postNorm, sumNorm, residualScale }, weights) {
    if (postNorm) this.#norm(added, weights, 'postNorm', postNorm, added);
    if (residualScale === 1) this.#fm.add(x, added, { out: x });
    else this.#fm.addScaled(x, added, residualScale, { out: x });
    if (sumNorm) this.#norm(x, weights, 'sumNorm', sumNorm, x);
  }
}

/**
 * Makes the backend of one model, on the given kernels or on new ones that end with it.
 * @param {Kernels | undefined} kernels
 * @param {KernelsOptions} options  options of new kernels
 * @param {{ activation: Activation, kvType: KvType }} settings  mode of all products, type of the
 *   caches
 */
export async function openWasmBackend(kernels, options, settings) {
  const fm = kernels ?? (await createKernels(options));
  return new WasmBackend(fm, { ...settings, ownsKernels: !kernels });
}

/**
 * @param {unknown} kernels  the option `kernels`
 * @throws {ArgumentError} they are not kernels
 */
export function checkKernels(kernels) {
  if (kernels instanceof Kernels) return;
  throw new ArgumentError(`kernels must come from createKernels or createGpuKernels, got ${show(kernels)}`);
}
