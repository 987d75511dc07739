/* The forward pass: tokens and their positions to logits, block by block, on the backend that the
 * model was loaded to.
 *
 *   x = embedding[tokens]
 *   for each layer:  x += attention(x), recurrent block(x), or both;  x += feed-forward(x)
 *   logits = head(x)
 *
 * The settings of a layer say what it computes; the backend decides how. All memory is allocated
 * once, for the largest batch; only the logits of many tokens take theirs when they are first asked
 * for. A decoder has the caches and states of one context; those of further contexts share the hidden
 * states and the logits, and take turns or share steps. Where attention is not causal, each token sees
 * all others: a batch is then a whole text, computed in parts, first all keys and values and then the
 * rest. Short texts may share a batch. */

import { NumericError } from './errors.js';
import { isCausal } from './layers.js';
import { Turns } from './lease.js';

/** @typedef {import('../backend.js').Backend} Backend */
/** @typedef {import('../backend.js').Resource} Resource */
/** @typedef {import('../backend.js').Rows} Rows */
/** @typedef {import('../backend.js').RunSettings} RunSettings */
/** @typedef {import('../backend.js').State} State */
/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../backend.js').StepText} StepText */
/** @typedef {import('../backend.js').TokenSampler} TokenSampler */
/** @typedef {import('./pause.js').Pace} Pace */
/** @typedef {import('./plan.js').Plan} Plan */

/**
 * Tokens of one forward pass, from a position on, and the texts that they are, if several.
 * @typedef {{ position: number, nTokens: number, texts?: readonly StepText[], alone?: boolean }} Pass
 */

/**
 * A token that is chosen, and on its way.
 * @typedef {object} Choice
 * @property {Pass} pass  The pass that it follows.
 * @property {number} asked  When it was asked for, in milliseconds.
 * @property {Promise<{ token: number, arrived: number }>} reading
 */

export class Decoder {
  #backend;
  #plan;
  #weights;
  #isCausal;
  /** The last forward pass. @type {Pass} */
  #last = { position: 0, nTokens: 0 };
  #embedding;
  #layers;
  #head;
  /** @type {import('../backend.js').Hidden} */
  #x;
  /** Logits that a token is chosen from. @type {import('../backend.js').DeviceTensor} */
  #logits;
  /** More rows of logits, from the first call of logits() on. @type {Resource | undefined} */
  #manyLogits;
  /** Logits of drafts, from the first call of check() on. @type {Resource | undefined} */
  #draftLogits;
  /** The decoder of the model's first context. @type {Decoder} */
  #first;
  #nVocab;
  #tokens;
  /** @type {Resource[]} */
  #owned = [];
  /** The turns of all contexts of the model. @type {Turns} */
  turns;

  /**
   * @param {Backend} backend
   * @param {Plan} plan
   * @param {import('../backend.js').Weights} weights  weights by role
   * @param {RunSettings} settings
   * @param {Decoder} [first]  the decoder of the model's first context, which it shares memory with
   */
  constructor(backend, plan, weights, settings, first) {
    this.#backend = backend;
    this.#plan = plan;
    this.#weights = weights;
    this.#isCausal = isCausal(plan.layers);
    const sizes = backend.sizes(plan, settings);
    const { batch, part, logitRows, workspaceBytes } = first ?? sizes;
    this.kvBytes = sizes.kvBytes;
    /** @type {number} */
    this.workspaceBytes = workspaceBytes;
    /** Most tokens of one forward pass. @type {number} */
    this.batch = batch;
    /** Most tokens of a batch of several texts: they are computed in one part. @type {number} */
    this.part = part;
    /** Most rows that logits() returns at a time. @type {number} */
    this.logitRows = logitRows;
    this.turns = first ? first.turns : new Turns();
    this.#first = first ?? this;
    this.#nVocab = plan.nVocab;
    this.#embedding = { settings: plan.embedding, weights: weights.embedding };
    this.#head = { settings: plan.head, weights: weights.head ?? {} };
    /** @type {import('../backend.js').Cache[]} */
    const caches = [];
    try {
      this.#layers = plan.layers.map(({ attention, recurrent, feed }, i) => {
        const of = weights.layers[i];
        if (attention)
          caches[i] = attention.kvBack
            ? caches[i - attention.kvBack]
            : this.own(backend.cache(attention, settings, i));
        return {
          attention: attention && {
            block: { settings: attention, weights: of.attention, layer: i },
            cache: caches[i],
          },
          recurrent: recurrent && {
            block: { settings: recurrent, weights: of.recurrent, layer: i },
            state: this.own(backend.state(recurrent, settings, i)),
          },
          feed: { settings: feed, weights: of.feed, layer: i },
        };
      });
      this.#x = first ? first.#x : this.own(backend.hidden(plan, { batch, part }));
      this.#logits = first ? first.#logits : this.own(backend.tensor({ nRows: 1, nCols: plan.nVocab }));
      // One more than the positions: the token that is chosen when the context is full.
      this.#tokens = this.own(backend.tokens(settings.contextLength + 1));
    } catch (error) {
      this.free();
      throw error;
    }
  }

  /**
   * A decoder with caches and states of its own, for another context. It can be used as long as this
   * one is not freed.
   * @param {RunSettings} settings  no more positions than those of this decoder
   */
  another(settings) {
    return new Decoder(this.#backend, this.#plan, this.#weights, settings, this);
  }

  /** The parts of a model and of this context that a step of several contexts needs. */
  get shared() {
    const [x, tokens, layers] = [this.#x, this.#tokens, this.#layers];
    return { x, tokens, layers, embedding: this.#embedding, head: this.#head, nVocab: this.#nVocab };
  }

  /** The backend that it computes on. */
  get backend() {
    return this.#backend;
  }

  /**
   * Runs tokens through all layers, and stores their keys and values. States must be there for the
   * first of them, as `keeps` tells.
   * @param {readonly number[]} tokens  at most `batch` tokens
   * @param {number} position  position of the first token
   * @param {Pace} pace
   * @param {readonly Rows[]} [texts]  the texts that the tokens are, if they are several; at most
   *   `part` tokens together, and the position is 0
   * @throws {NumericError} a number is NaN, infinite, or too large for the cache
   */
  async forward(tokens, position, pace, texts) {
    const of = texts?.map((rows) => ({ ...rows, position: 0, cached: rows.start }));
    const pass = { position, nTokens: tokens.length, ...(of && { texts: of }) };
    this.#last = pass;
    this.#backend.writeTokens(this.#tokens, position, tokens);
    await this.#traced(() => this.#pass(pass, pace, false), pass, pace);
  }

  /**
   * Runs the token through all layers that choose() left on the device.
   * @param {number} position
   * @param {Pace} pace
   */
  async follow(position, pace) {
    this.#last = { position, nTokens: 1 };
    await this.#pass(this.#last, pace, false);
  }

  /**
   * Most tokens that check() takes; 0 where the device or a layer has no way back from tokens that turn
   * out to be wrong.
   */
  get checked() {
    return this.#states.length > 0 ? 0 : Math.min(this.#backend.alone ?? 0, this.part, this.batch);
  }

  /**
   * Runs a token, and drafts of those after it, through all layers. Keys, values and logits have the
   * bits that they have when the tokens are computed one by one. A later pass overwrites the drafts.
   * @param {readonly number[]} tokens  at most `checked` tokens
   * @param {number} position  position of the first token
   * @param {Pace} pace
   * @returns {Promise<Float32Array>} logits after each token, row by row
   * @throws {NumericError} a number is NaN, infinite, or too large for the cache, perhaps of a draft
   * @throws {import('../errors.js').MemoryError} there is no room for the logits
   */
  async check(tokens, position, pace) {
    const backend = this.#backend;
    const first = this.#first;
    const nRows = tokens.length;
    const shape = { nRows: this.checked, nCols: this.#nVocab };
    const logits = first.#draftLogits ?? first.own(backend.tensor(shape));
    if (logits !== first.#draftLogits) first.workspaceBytes += 4 * shape.nRows * shape.nCols;
    first.#draftLogits = logits;
    const texts = tokens.map((_, i) => ({ start: i, nRows: 1, position: position + i, cached: 0 }));
    this.#last = { position, nTokens: nRows, texts, alone: true };
    backend.writeTokens(this.#tokens, position, tokens);
    await this.#pass(this.#last, pace, false);
    pace.check();
    this.#logitsOf(logits, 0, nRows);
    return backend.read(logits, { start: 0, nRows });
  }

  /**
   * @template T
   * @param {() => Promise<T>} work  a forward pass, or what waits for its results
   * @param {Pass} pass
   * @param {Pace} pace
   * @returns {Promise<T>}
   */
  async #traced(work, pass, pace) {
    try {
      return await work();
    } catch (error) {
      // A NaN spreads. A second pass, which checks the result of every block, finds its origin, if
      // the states of that position are still there.
      const isSpreading = error instanceof NumericError && !Number.isFinite(error.value);
      if (isSpreading && this.#states.every((state) => isAt(state, pass.position))) {
        pace.check();
        await this.#pass(pass, pace, true);
      }
      throw error;
    }
  }

  /**
   * @param {Pass} pass
   * @param {Pace} pace
   * @param {boolean} traced  look for NaN and infinity after every block, not only in the cache's
   *   input and in the end
   */
  async #pass(pass, pace, traced) {
    const backend = this.#backend;
    const x = this.#x;
    const { nTokens } = pass;
    const whole = this.#step(pass, 0, nTokens);
    const parts = this.#partsOf(pass);
    const check = async (/** @type {import('./errors.js').NumericPart} */ part, at = whole, layer = 0) => {
      backend.check(x, at, { part, layer: part === 'embedding' ? undefined : layer });
      await backend.idle();
      // Another context may have its turn by now, and the hidden states.
      pace.check();
    };
    backend.embed(this.#tokens, x, this.#embedding, whole);
    if (traced) await check('embedding');
    for (const [i, { attention, recurrent, feed }] of this.#layers.entries()) {
      // All keys and values of the batch are stored before any token attends.
      for (const at of parts) {
        if (pace.due) await pace.rest();
        if (attention) backend.project(x, attention.block, attention.cache, at);
      }
      for (const at of parts) {
        if (recurrent) {
          backend.recur(x, recurrent.block, recurrent.state, at);
          if (traced) await check('recurrent', at, i);
        }
        if (attention) {
          backend.attend(x, attention.block, attention.cache, at);
          if (traced) await check('attention', at, i);
        }
        if (nTokens > 1 && pace.due) await pace.rest();
        backend.feed(x, feed, at);
        if (traced) await check('feed-forward', at, i);
      }
    }
    // A NaN of any block stays in the sums, so the last layer's are enough.
    if (!traced) backend.check(x, whole, { part: 'feed-forward', layer: this.#layers.length - 1 });
    // A single token waits for more to submit with it, most often its logits.
    if (nTokens > 1) backend.flush();
  }

  /** The parts of a batch, each computed at a time. @param {Pass} pass */
  #partsOf(pass) {
    const { nTokens } = pass;
    const size = this.part;
    if (nTokens <= size) return [this.#step(pass, 0, nTokens)];
    return Array.from({ length: Math.ceil(nTokens / size) }, (_, i) =>
      this.#step(pass, i * size, Math.min(size, nTokens - i * size)),
    );
  }

  /**
   * @param {Pass} pass
   * @param {number} start  first token in the batch
   * @param {number} nTokens
   * @returns {Step}
   */
  #step({ position: first, nTokens: nBatch, texts, alone = false }, start, nTokens) {
    const position = first + start;
    const seen = this.#isCausal ? position + nTokens : first + nBatch;
    return { position, start, nTokens, seen, ...(texts && { texts }), ...(alone && { alone }) };
  }

  /** Waits until everything is computed. @param {Pace} pace */
  idle(pace) {
    return this.#traced(() => this.#backend.idle(), this.#last, pace);
  }

  /**
   * Logits of some tokens of the last forward pass.
   * @param {number} start  first token, counted in the batch
   * @param {number} nRows  number of tokens, at most `logitRows`
   * @param {Pace} pace
   * @returns {Promise<Float32Array>} nRows x vocabulary, row by row
   * @throws {NumericError} a logit is NaN or infinite
   */
  async logits(start, nRows, pace) {
    const backend = this.#backend;
    const shape = { nRows: this.logitRows, nCols: this.#nVocab };
    const logits = this.#manyLogits ?? this.own(backend.tensor(shape));
    this.#manyLogits = logits;
    this.#logitsOf(logits, start, nRows);
    return this.#traced(() => backend.read(logits, { start: 0, nRows }), this.#last, pace);
  }

  /** Tokens that may be chosen ahead of the one that is read. @param {TokenSampler} sampler */
  ahead(sampler) {
    return this.#backend.ahead?.(sampler) ?? 0;
  }

  /**
   * Begins the choice of the token that follows a token of the last forward pass.
   * @param {number} row  index of that token in the batch
   * @param {number} position  position of the token to be chosen
   * @param {TokenSampler} sampler
   * @returns {Choice}
   */
  choose(row, position, sampler) {
    const backend = this.#backend;
    const asked = performance.now();
    this.#logitsOf(this.#logits, row, 1);
    backend.pick(this.#logits, 0, this.#tokens, sampler, position);
    const arrives = async () => {
      const [token] = await backend.readTokens(this.#tokens, position, 1);
      return { token, arrived: performance.now() };
    };
    const reading = arrives();
    // A choice that nobody waits for any more may fail unheard.
    reading.catch(() => {});
    return { pass: this.#last, asked, reading };
  }

  /**
   * Waits for a token. Meanwhile other contexts may compute.
   * @param {Choice} choice
   * @param {Pace} pace
   * @throws {NumericError} a logit is NaN or infinite
   */
  async token({ reading, pass }, pace) {
    try {
      return await reading;
    } catch (error) {
      return this.trace(error, pass, pace);
    }
  }

  /**
   * Throws an error of a pass, or that of the first block with a NaN.
   * @param {unknown} error
   * @param {Pass} pass
   * @param {Pace} pace
   * @returns {Promise<never>}
   */
  trace(error, pass, pace) {
    return this.turns.take(pace.lease, () => this.#traced(() => Promise.reject(error), pass, pace));
  }

  /**
   * Hidden states of the last forward pass after the final norm: the input of the output matrix.
   * @param {number} start  first token, counted in the batch
   * @param {number} nRows
   * @param {Pace} pace
   * @returns {Promise<Float32Array>}
   * @throws {NumericError} a value is NaN or infinite
   */
  hidden(start, nRows, pace) {
    const rows = { start, nRows, position: this.#last.position + start };
    return this.#traced(() => this.#backend.readStates(this.#x, this.#head, rows), this.#last, pace);
  }

  /**
   * The last position, up to a given one, whose token can be computed: all caches have what it needs,
   * and all states are there. 0 is always possible.
   * @param {number} position
   */
  keeps(position) {
    const states = this.#states;
    const isKept = (/** @type {number} */ at) =>
      at > 0 && at <= position && this.#cachesReach(at) && states.every((state) => isAt(state, at));
    if (states.length === 0) return isKept(position) ? position : 0;
    const [{ position: latest, savedAt }] = states;
    return [latest, savedAt].find(isKept) ?? 0;
  }

  /** Whether the caches have all that the token of a position sees. @param {number} position */
  #cachesReach(position) {
    return this.#layers.every(({ attention }) => {
      if (!attention) return true;
      const { block, cache } = attention;
      const { window } = block.settings;
      return (cache.first ?? 0) <= (window > 0 ? Math.max(0, position + 1 - window) : 0);
    });
  }

  /** The caches and states, each once. */
  get parts() {
    const all = this.#layers.map(({ attention, recurrent }) => [attention?.cache, recurrent?.state]);
    return [...new Set(all.flat())].filter((part) => part !== undefined);
  }

  get #states() {
    return this.#layers.flatMap(({ recurrent }) => recurrent?.state ?? []);
  }

  /** Frees caches and tensors. */
  free() {
    for (const resource of this.#owned) if (!resource.freed) resource.free();
  }

  /** @param {Resource} logits @param {number} start  first token in the batch @param {number} nRows */
  #logitsOf(logits, start, nRows) {
    const { position, alone = false } = this.#last;
    const rows = { start, nRows, position: position + start, alone };
    this.#backend.head(this.#x, this.#head, logits, rows);
  }

  /**
   * Frees a resource with the decoder.
   * @template {Resource} R
   * @param {R} resource
   * @returns {R}
   */
  own(resource) {
    this.#owned.push(resource);
    return resource;
  }
}

/** Whether computing can go on at a position. @param {State} state @param {number} position */
const isAt = (state, position) => position === 0 || state.position === position || state.savedAt === position;
