/* The worker's side of kernels in a worker: owns the kernels and all handles. Messages are served
 * in order; only loads, which mostly wait for bytes, run beside other messages. */

import { reopenSource } from '../gguf/source.js';
import { createKernels } from '../wasm/create.js';
import { Handle, Tensor, Weight } from '../wasm/handles.js';
import { memoryOf } from '../wasm/kernels.js';
import { loadTensors } from '../wasm/load-weights.js';
import { packError, unpackError } from './errors.js';
import { mapTree } from './methods.js';
import { RelayReader } from './relay.js';

/** @typedef {import('./methods.js').RunMessage} RunMessage */
/** @typedef {import('./methods.js').Reference} Reference */

/** Milliseconds between two messages of progress. */
const PROGRESS_STEP = 33;

/** Ends a run whose caller has its answer already. */
const ABORTED = new Error('aborted');

/** Symbol.dispose, also for engines that lack it. @type {typeof Symbol.dispose} */
const dispose = Symbol.dispose ?? Symbol.for('Symbol.dispose');

/** @typedef {(message: object, transfer?: ArrayBuffer[]) => void} Post */

export class Server {
  #post;
  /** @type {import('../wasm/kernels.js').Kernels | undefined} */
  #kernels;
  /** @type {Map<number, Handle>} */
  #handles = new Map();
  /** @type {WeakMap<Handle, number>} */
  #ids = new WeakMap();
  #lastHandle = 0;
  /** Requests that are not answered yet. @type {Map<number, AbortController>} */
  #active = new Map();
  #relay;
  /** @type {Promise<void>} */
  #queue = Promise.resolve();

  /** @param {Post} post */
  constructor(post) {
    this.#post = post;
    this.#relay = new RelayReader((message, transfer) => post(message, transfer));
  }

  /** @param {any} message */
  receive(message) {
    const { kind, id } = message;
    if (kind === 'abort') this.#active.get(id)?.abort();
    else if (kind === 'chunk') this.#relay.receive(message);
    else {
      const controller = new AbortController();
      if (id !== undefined) this.#active.set(id, controller);
      this.#queue = this.#queue.then(async () => {
        const served = this.#serve(message, controller.signal);
        if (kind !== 'load') await served;
      });
    }
  }

  /**
   * @param {any} message
   * @param {AbortSignal} signal
   */
  async #serve(message, signal) {
    const { kind, id } = message;
    if (kind === 'free') {
      this.#free(message.handle);
      return;
    }
    try {
      if (kind === 'run') await this.#run(message, signal);
      else if (kind === 'load') await this.#load(message, signal);
      else {
        if (kind === 'create') this.#kernels = await createKernels(message.options);
        const { info, types } = this.#ready();
        this.#post({ id, value: { info, types } });
      }
    } catch (error) {
      this.#post({ id, error: packError(error) });
    } finally {
      this.#active.delete(id);
    }
  }

  /**
   * @param {RunMessage} message
   * @param {AbortSignal} signal
   */
  async #run({ id, steps, arrays: sent, outs, result, abortable, flag }, signal) {
    const kernels = this.#ready();
    const arrays = sent.map((item) =>
      'length' in item && !ArrayBuffer.isView(item) ? new Float32Array(item.length) : item,
    );
    const flagged = flag && new Int32Array(flag);
    /** @type {any[]} */
    const results = [];
    const resolve = (/** @type {any} */ leaf) => {
      if (leaf?.$ === 'handle') return this.#handles.get(leaf.id);
      if (leaf?.$ === 'array') return arrays[leaf.at];
      if (leaf?.$ !== 'step') return leaf;
      return leaf.item === undefined ? results[leaf.at] : results[leaf.at][leaf.item];
    };
    /** @type {Set<Handle>} */
    const kept = new Set();
    try {
      for (const [at, { method, target, args }] of steps.entries()) {
        // Without a shared flag only a message tells of an abort, so messages must get a turn.
        if (abortable && !flagged) await breathe();
        if (signal.aborted || (flagged && Atomics.load(flagged, 0) !== 0)) throw ABORTED;
        try {
          const on = /** @type {any} */ (target ? resolve(target) : kernels);
          if (method === 'free' && target?.$ === 'handle') this.#free(target.id);
          else results[at] = on[method](...args.map((arg) => mapTree(arg, resolve)));
        } catch (error) {
          if (steps.length > 1 && error instanceof Error)
            Object.assign(error, { step: at, operation: method });
          throw error;
        }
      }
      this.#answer(id, { result: mapTree(result, resolve), arrays, outs }, kept);
    } finally {
      for (const handle of results.flat(1)) {
        if (handle instanceof Handle && !kept.has(handle) && !this.#ids.has(handle)) handle[dispose]();
      }
    }
  }

  /**
   * @param {number} id
   * @param {{ result: unknown, arrays: unknown[], outs: number[] }} done
   * @param {Set<Handle>} kept
   */
  #answer(id, { result, arrays, outs }, kept) {
    const transfer = new Set(outs.map((at) => /** @type {Float32Array<ArrayBuffer>} */ (arrays[at]).buffer));
    const value = mapTree(result, (leaf) => {
      if (leaf instanceof Handle) return leaf.freed ? undefined : this.#register(leaf, kept);
      const at = arrays.indexOf(leaf);
      if (at >= 0) return { $: 'array', at };
      if (ArrayBuffer.isView(leaf)) transfer.add(/** @type {ArrayBuffer} */ (leaf.buffer));
      return leaf;
    });
    this.#post({ id, value: { value, outs: outs.map((at) => [at, arrays[at]]) } }, [...transfer]);
  }

  /**
   * @param {any} message
   * @param {AbortSignal} signal
   */
  async #load({ id, recipe, relay, source: facts, tensors, concurrency, progress }, signal) {
    const memory = memoryOf(this.#ready());
    const source = recipe
      ? await reopenSource(recipe)
      : this.#relay.source(relay, facts, (error) => unpackError(error));
    let last = -Infinity;
    const onProgress = (/** @type {{ loaded: number, total: number }} */ step) => {
      const now = performance.now();
      if (now - last < PROGRESS_STEP && step.loaded < step.total) return;
      last = now;
      this.#post({ kind: 'progress', id, progress: step });
    };
    /** @type {Weight[]} */
    let weights;
    try {
      weights = await loadTensors(memory, source, tensors, {
        signal,
        concurrency,
        onProgress: progress ? onProgress : undefined,
      });
    } finally {
      // Report the state of the cache before the answer.
      const cached = source.cached?.();
      if (cached) this.#post({ kind: 'cached', id, cached, error: cached.error && packError(cached.error) });
    }
    const value = weights.map((weight) => this.#register(weight));
    this.#post({ kind: 'loaded', id, value });
  }

  /**
   * @param {Handle} handle
   * @param {Set<Handle>} [kept]
   */
  #register(handle, kept) {
    const known = this.#ids.get(handle);
    if (known !== undefined) return { $: 'handle', id: known };
    const id = ++this.#lastHandle;
    this.#ids.set(handle, id);
    this.#handles.set(id, handle);
    kept?.add(handle);
    const kind = handle instanceof Weight ? 'weight' : handle instanceof Tensor ? 'tensor' : 'kvCache';
    return { $: 'new', kind, id, text: String(handle), fields: { ...handle } };
  }

  /** @param {number} id  a handle that is freed already is no error */
  #free(id) {
    const handle = this.#handles.get(id);
    this.#handles.delete(id);
    handle?.[dispose]();
  }

  #ready() {
    if (!this.#kernels) throw new Error('there are no kernels yet');
    return this.#kernels;
  }
}

/** @type {MessageChannel | undefined} */
let channel;

/** Lets waiting messages be received. @returns {Promise<void>} */
function breathe() {
  channel ??= new MessageChannel();
  const { port1, port2 } = channel;
  return new Promise((resolve) => {
    port1.onmessage = () => resolve();
    port2.postMessage(0);
  });
}
