/* The forward pass: tokens and their positions to logits, block by block, on the backend that the
 * model was loaded to.
 *
 *   x = embedding[tokens]
 *   for each layer:  x += attention(x);  x += feed-forward(x)
 *   logits = head(x)
 *
 * The settings of a layer say what it computes; the backend decides how. All memory is allocated
 * once, for the largest batch. Where attention is not causal, each token sees all others: a batch
 * is then a whole text, computed in parts, first all keys and values and then the rest. Short texts
 * may share a batch. */

import { NumericError } from './errors.js';

/** @typedef {import('../backend.js').Backend} Backend */
/** @typedef {import('../backend.js').Resource} Resource */
/** @typedef {import('../backend.js').Rows} Rows */
/** @typedef {import('../backend.js').RunSettings} RunSettings */
/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../backend.js').TokenSampler} TokenSampler */
/** @typedef {import('./pause.js').Pace} Pace */
/** @typedef {import('./plan.js').Plan} Plan */

export class Decoder {
  #backend;
  #isCausal;
  /** Position of the first token of the last forward pass. */
  #position = 0;
  /** Texts of the batch, where they are several. @type {readonly Rows[] | undefined} */
  #texts;
  /** The last forward pass again, with more checks. */
  #again = async () => {};
  #embedding;
  #layers;
  #head;
  #x;
  #logits;
  #tokens;
  /** @type {Resource[]} */
  #owned = [];

  /**
   * @param {Backend} backend
   * @param {Plan} plan
   * @param {import('../backend.js').Weights} weights  weights by role
   * @param {RunSettings} settings
   */
  constructor(backend, plan, weights, settings) {
    this.#backend = backend;
    this.#isCausal = plan.layers.every(({ attention }) => attention.causal);
    const { batch, part, logitRows, kvBytes, workspaceBytes } = backend.sizes(plan, settings);
    this.kvBytes = kvBytes;
    this.workspaceBytes = workspaceBytes;
    /** Most tokens of one forward pass. */
    this.batch = batch;
    /** Most tokens of a batch of several texts: they are computed in one part. */
    this.part = part;
    /** Most rows that logits() returns at a time. */
    this.logitRows = logitRows;
    this.#embedding = { settings: plan.embedding, weights: weights.embedding };
    this.#head = { settings: plan.head, weights: weights.head ?? {} };
    try {
      this.#layers = plan.layers.map(({ attention, feed }, i) => {
        const { attention: ofAttention, feed: ofFeed } = weights.layers[i];
        return {
          attention: { settings: attention, weights: ofAttention, layer: i },
          feed: { settings: feed, weights: ofFeed, layer: i },
          cache: this.#own(backend.cache(attention, settings)),
        };
      });
      this.#x = this.#own(backend.hidden(plan, { batch, part }));
      this.#logits = this.#own(backend.tensor({ nRows: logitRows, nCols: plan.nVocab }));
      // One more than the positions: the token that is chosen when the context is full.
      this.#tokens = this.#own(backend.tokens(settings.contextLength + 1));
    } catch (error) {
      this.free();
      throw error;
    }
  }

  /**
   * Runs tokens through all layers, and stores their keys and values.
   * @param {readonly number[]} tokens  at most `batch` tokens
   * @param {number} position  position of the first token
   * @param {Pace} pace
   * @param {readonly Rows[]} [texts]  the texts that the tokens are, if they are several; at most
   *   `part` tokens together, and the position is 0
   * @throws {NumericError} a number is NaN, infinite, or too large for the cache
   */
  async forward(tokens, position, pace, texts) {
    this.#position = position;
    this.#texts = texts;
    this.#backend.writeTokens(this.#tokens, position, tokens);
    this.#again = () => this.#pass(tokens.length, pace, true);
    await this.#traced(() => this.#pass(tokens.length, pace, false));
  }

  /**
   * @template T
   * @param {() => Promise<T>} work  a forward pass, or what waits for its results
   * @returns {Promise<T>}
   */
  async #traced(work) {
    try {
      return await work();
    } catch (error) {
      // A NaN spreads. A second pass, which checks the result of every block, finds its origin.
      if (error instanceof NumericError && !Number.isFinite(error.value)) await this.#again();
      throw error;
    }
  }

  /**
   * @param {number} nTokens  tokens of the batch
   * @param {Pace} pace
   * @param {boolean} traced  look for NaN and infinity after every block, not only in the cache's
   *   input and in the end
   */
  async #pass(nTokens, pace, traced) {
    const backend = this.#backend;
    const x = this.#x;
    const whole = this.#step(0, nTokens, nTokens);
    const parts = this.#partsOf(nTokens);
    const check = async (/** @type {import('./errors.js').NumericPart} */ part, at = whole, layer = 0) => {
      backend.check(x, at, { part, layer: part === 'embedding' ? undefined : layer });
      await backend.idle();
    };
    backend.embed(this.#tokens, x, this.#embedding, whole);
    if (traced) await check('embedding');
    for (const [i, { attention, feed, cache }] of this.#layers.entries()) {
      // All keys and values of the batch are stored before any token attends.
      for (const at of parts) {
        if (pace.due) await pace.rest();
        backend.project(x, attention, cache, at);
      }
      for (const at of parts) {
        backend.attend(x, attention, cache, at);
        if (traced) await check('attention', at, i);
        if (nTokens > 1 && pace.due) await pace.rest();
        backend.feed(x, feed, at);
        if (traced) await check('feed-forward', at, i);
      }
    }
    // A NaN of any block stays in the sums, so the last layer's are enough.
    if (!traced) backend.check(x, whole, { part: 'feed-forward', layer: this.#layers.length - 1 });
    backend.flush();
  }

  /** The parts of a batch, each computed at a time. @param {number} nTokens */
  #partsOf(nTokens) {
    const size = this.part;
    if (nTokens <= size) return [this.#step(0, nTokens, nTokens)];
    return Array.from({ length: Math.ceil(nTokens / size) }, (_, i) =>
      this.#step(i * size, Math.min(size, nTokens - i * size), nTokens),
    );
  }

  /**
   * @param {number} start  first token in the batch
   * @param {number} nTokens
   * @param {number} nBatch  tokens of the batch
   * @returns {Step}
   */
  #step(start, nTokens, nBatch) {
    const position = this.#position + start;
    const seen = this.#isCausal ? position + nTokens : this.#position + nBatch;
    const texts = this.#texts;
    return texts ? { position, start, nTokens, seen, texts } : { position, start, nTokens, seen };
  }

  /** Waits until everything is computed. */
  idle() {
    return this.#traced(() => this.#backend.idle());
  }

  /**
   * Logits of some tokens of the last forward pass.
   * @param {number} start  first token, counted in the batch
   * @param {number} nRows  number of tokens, at most `logitRows`
   * @returns {Promise<Float32Array>} nRows x vocabulary, row by row
   * @throws {NumericError} a logit is NaN or infinite
   */
  async logits(start, nRows) {
    this.#logitsOf(start, nRows);
    return this.#traced(() => this.#backend.read(this.#logits, { start: 0, nRows }));
  }

  /**
   * Chooses the token that follows a token of the last forward pass.
   * @param {number} row  index of that token in the batch
   * @param {number} position  position of the token to be chosen
   * @param {TokenSampler} sampler
   * @returns {Promise<number>}
   * @throws {NumericError} a logit is NaN or infinite
   */
  async pick(row, position, sampler) {
    const backend = this.#backend;
    this.#logitsOf(row, 1);
    backend.pick(this.#logits, 0, this.#tokens, sampler, position);
    const [token] = await this.#traced(() => backend.readTokens(this.#tokens, position, 1));
    return token;
  }

  /**
   * Hidden states of the last forward pass after the final norm: the input of the output matrix.
   * @param {number} start  first token, counted in the batch
   * @param {number} nRows
   * @returns {Promise<Float32Array>}
   * @throws {NumericError} a value is NaN or infinite
   */
  hidden(start, nRows) {
    const rows = { start, nRows, position: this.#position + start };
    return this.#traced(() => this.#backend.readStates(this.#x, this.#head, rows));
  }

  /** Frees caches and tensors. */
  free() {
    for (const resource of this.#owned) if (!resource.freed) resource.free();
  }

  /** @param {number} start  first token in the batch @param {number} nRows */
  #logitsOf(start, nRows) {
    const rows = { start, nRows, position: this.#position + start };
    this.#backend.head(this.#x, this.#head, this.#logits, rows);
  }

  /** @template {Resource} R @param {R} resource @returns {R} */
  #own(resource) {
    this.#owned.push(resource);
    return resource;
  }
}
