/* Replaces the devices of a model after one of them is lost: the GPU was reset or unplugged, its
 * process ended, or it has no memory left. The same devices are opened again, or the CPU, and the
 * weights are loaded again from the file. */

import { GpuError } from '../gpu/errors.js';
import { describe } from './info.js';
import { freeParts, loadParts, openCpu } from './place.js';

/** @typedef {import('./context.js').Keeper} Keeper */
/** @typedef {import('./decoder.js').Decoder} Decoder */
/** @typedef {import('./load-options.js').LlamaOptions} LlamaOptions */
/** @typedef {import('./model.js').Parts} Parts */
/** @typedef {import('./place.js').ModelFacts} ModelFacts */
/** @typedef {import('./place.js').Open} Open */

/** A device that is lost twice within so many milliseconds is not opened again. */
const SOON_MS = 60_000;
/** Errors of opening, or loading, that the CPU may not have. */
const OF_DEVICES = ['FM_GPU', 'FM_MODEL'];

/** @param {unknown} error */
const codeOf = (error) => /** @type {{ code?: string } | undefined} */ (error)?.code ?? '';

/** Rejects with its reason when a signal is aborted. @param {AbortSignal} signal @returns {Promise<never>} */
const endOf = (signal) =>
  new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason));
  });

/** @implements {Keeper} */
export class DeviceKeeper {
  #parts;
  #open;
  #facts;
  #options;
  /** When a device was lost last. */
  #lostAt = Number.NEGATIVE_INFINITY;
  /** The loss that is not made up for yet, or the last one. */
  #loss = { message: '', what: '' };
  /** Whether only the CPU is left, and why. @type {string | undefined} */
  #onlyCpu;
  /** Settles when no replacement is under way. @type {Promise<unknown>} */
  #running = Promise.resolve();

  /**
   * @param {Parts} parts  of the model; replaced ones are put here
   * @param {Open} open  opens the devices that the options ask for
   * @param {ModelFacts} facts  with an open file
   * @param {LlamaOptions} options
   */
  constructor(parts, open, facts, { signal: _, onProgress: __, ...options }) {
    this.#parts = parts;
    this.#open = open;
    this.#facts = facts;
    this.#options = options;
  }

  /** @param {unknown} error @param {Decoder} decoder */
  isLoss(error, decoder) {
    if (decoder.backend !== this.#parts.backend || this.#parts.backend.disposed) return true;
    return !this.#onlyCpu && error instanceof GpuError && ['lost', 'memory'].includes(error.reason);
  }

  /**
   * @param {unknown} error
   * @param {Decoder} decoder
   * @param {number} nTokens
   * @param {import('./lease.js').Lease} lease
   * @returns {Promise<Decoder>}
   * @throws {GpuError} the model cannot be loaded again; the next call tries it again
   */
  async replace(error, decoder, nTokens, lease) {
    // Another call, of this context or of another one, may still be loading.
    for (let running; running !== this.#running; ) {
      running = this.#running;
      await running;
    }
    lease.check();
    const parts = this.#parts;
    if (decoder.backend !== parts.backend) return parts.decoder;
    if (!parts.backend.disposed) this.#note(/** @type {GpuError} */ (error), nTokens);
    const ending = new AbortController();
    const forget = lease.onEnd((reason) => ending.abort(reason));
    const loading = this.#load(ending.signal);
    this.#running = loading.catch(() => {});
    try {
      await Promise.race([loading, endOf(ending.signal)]);
    } finally {
      forget();
    }
    return parts.decoder;
  }

  /** @param {GpuError} error @param {number} nTokens */
  #note({ message }, nTokens) {
    const now = Date.now();
    if (now - this.#lostAt < SOON_MS) this.#onlyCpu = 'the GPU was lost twice within a minute';
    this.#lostAt = now;
    const what = `the GPU was lost after ${nTokens} ${nTokens === 1 ? 'token' : 'tokens'}`;
    this.#loss = { message, what };
    const parts = this.#parts;
    parts.choice.steps.push(`${what}: ${message}`);
    parts.lastInfo = describe(parts);
    freeParts(parts);
  }

  /** @param {AbortSignal} signal */
  async #load(signal) {
    let loaded;
    try {
      loaded = await this.#loadAgain(signal);
    } catch (cause) {
      signal.throwIfAborted();
      throw new GpuError(
        `${this.#loss.message}; the model cannot be loaded again: ${/** @type {Error} */ (cause).message}`,
        'lost',
        { cause },
      );
    }
    if (signal.aborted) freeParts(loaded);
    signal.throwIfAborted();
    const { choice } = loaded;
    const steps = [...this.#parts.choice.steps, ...choice.steps];
    Object.assign(this.#parts, loaded, { choice: { ...choice, steps }, lastInfo: undefined });
  }

  /** @param {AbortSignal} signal */
  async #loadAgain(signal) {
    const facts = this.#facts;
    const options = { ...this.#options, signal };
    if (!this.#onlyCpu) {
      try {
        const loaded = await loadParts(await this.#open(options, facts), facts, options);
        const { name, reason } = loaded.choice;
        const how = name === 'cpu' ? reason : 'opened again';
        return { ...loaded, choice: { ...loaded.choice, reason: `${this.#loss.what}: ${how}` } };
      } catch (error) {
        signal.throwIfAborted();
        if (!OF_DEVICES.includes(codeOf(error))) throw error;
        this.#onlyCpu = `${this.#loss.what}: it cannot be opened again: ${/** @type {Error} */ (error).message}`;
      }
    }
    const choice = { name: /** @type {const} */ ('cpu'), reason: this.#onlyCpu, steps: [this.#onlyCpu] };
    return loadParts({ backend: await openCpu(options), choice }, facts, options);
  }
}
