/* A sampler that sees all logits of every token, on the processor: for the options `logits` and
 * `logprobs`, for texts that follow a grammar, and for files that rule tokens out. A file of its own,
 * since few generations need it. */

import { ArgumentError, show } from '../errors.js';
import { argmax, largest, Sampler } from './sampler.js';

/**
 * A token and its probability.
 * @typedef {object} TokenChance
 * @property {number} token  Id of the token.
 * @property {Uint8Array} bytes  Bytes of its text; a control token has those of its spelling.
 * @property {number} logprob  Natural logarithm of its probability as the model computed it: before the
 *   option `logits`, penalties and the temperature.
 */

/**
 * A token that was chosen, with its probability and those of the most likely tokens.
 * @typedef {object} TokenLogprob
 * @property {number} token  Id of the token.
 * @property {Uint8Array} bytes  Bytes of its text; a control token has those of its spelling.
 * @property {number} logprob  Natural logarithm of its probability, as in TokenChance.
 * @property {TokenChance[]} top  The most likely tokens, as many as were asked for, the likeliest first.
 */

/**
 * Changes logits before a token is chosen from them. `row` has one logit for each token of the
 * vocabulary, which the function may change; a token with -Infinity is never chosen. The row is valid
 * only during the call. `tokens` are all tokens so far: the prompt, and what was written after it.
 * @typedef {(row: Float32Array, tokens: readonly number[]) => void} LogitsHook
 */

export class HookedSampler extends Sampler {
  /** Tells backends that next() must be called for every token, with all logits. */
  needsAll = true;
  #hook;
  #rule;
  #tokens;
  #nTop;
  #bytes;
  /** Log probabilities of the token that next() chose last. @type {TokenLogprob | undefined} */
  last;

  /**
   * @param {import('./sampler.js').SamplerOptions} options
   * @param {object} means
   * @param {LogitsHook | undefined} means.hook
   * @param {((row: Float32Array) => void) | undefined} [means.rule]  rules tokens out, after the hook
   * @param {readonly number[]} means.tokens  all tokens so far; the caller adds those that are chosen
   * @param {number | undefined} means.nTop  alternatives to report with each token
   * @param {(token: number, special: boolean) => Uint8Array} means.bytes
   */
  constructor(options, { hook, rule, tokens, nTop, bytes }) {
    super(options);
    this.#hook = hook;
    this.#rule = rule;
    this.#tokens = tokens;
    this.#nTop = nTop;
    this.#bytes = bytes;
  }

  /** @param {Float32Array} logits @param {ArrayLike<number>} history */
  next(logits, history) {
    // The hook and penalties overwrite the row.
    const own = this.#nTop === undefined ? undefined : logits.slice();
    if (this.#hook) this.#change(logits, this.#hook);
    if (this.#rule) this.#ruleOut(logits, this.#rule);
    const token = super.next(logits, history);
    if (own) this.last = this.#chances(own, token);
    return token;
  }

  /** @param {Float32Array} logits @param {LogitsHook} hook */
  #change(logits, hook) {
    const result = /** @type {any} */ (hook(logits, this.#tokens));
    if (typeof result?.then === 'function') {
      // Its own error would go unheard.
      result.then(undefined, () => {});
      throw new ArgumentError(
        'logits must not return a promise: the token is chosen as soon as the function returns',
      );
    }
    for (let id = 0; id < logits.length; id++) {
      if (logits[id] < Number.POSITIVE_INFINITY) continue;
      throw new ArgumentError(
        `logits: after the call, row[${id}] is ${show(logits[id])}; each must be a number, or -Infinity to rule the token out`,
      );
    }
    if (logits[argmax(logits)] === Number.NEGATIVE_INFINITY)
      throw new ArgumentError(
        `logits: after the call, all ${logits.length} tokens of the row are -Infinity, so that none is left to choose`,
      );
  }

  /** @param {Float32Array} logits @param {(row: Float32Array) => void} rule */
  #ruleOut(logits, rule) {
    rule(logits);
    if (logits[argmax(logits)] === Number.NEGATIVE_INFINITY)
      throw new ArgumentError(
        `no token can come next: the responseFormat or grammar, the file and the option logits rule out all ${logits.length}`,
      );
  }

  /** @param {Float32Array} logits @param {number} chosen @returns {TokenLogprob} */
  #chances(logits, chosen) {
    const peak = logits[argmax(logits)];
    let sum = 0;
    for (const value of logits) sum += Math.exp(value - peak);
    const all = peak + Math.log(sum);
    const chance = (/** @type {number} */ token) => ({
      token,
      bytes: this.#bytes(token, true).slice(),
      logprob: logits[token] - all,
    });
    const nTop = Math.min(/** @type {number} */ (this.#nTop), logits.length);
    const top = nTop === 0 ? [] : Array.from(largest(logits, nTop), chance);
    return { ...chance(chosen), top };
  }
}
