/* The calling side of kernels in a worker: requests with promises, handles, and an orderly end. */

import { KERNELS_SCRIPT } from '../assets-kernels.js';
import { checkNames } from '../checks.js';
import { ArgumentError, HandleError, WorkerError } from '../errors.js';
import { sourceOf } from '../gguf/file.js';
import { LOAD_MANY_OPTIONS, LOAD_OPTIONS, tensorsOf } from '../gguf/tensor-runs.js';
import { KERNELS_OPTIONS } from '../wasm/kernels-options.js';
import { unpackError } from './errors.js';
import { HANDLE_CLASSES } from './handles.js';
import { CALL_OPTIONS, METHODS, mapTree } from './methods.js';
import { openPort, startError } from './port.js';
import { Relay } from './relay.js';
import { sendable } from './sendable.js';
import { Recorder, splitOptions } from './sequence.js';

/** @typedef {import('./types.js').CallOptions} CallOptions */
/** @typedef {import('./types.js').WorkerKernelsOptions} WorkerKernelsOptions */
/** @typedef {import('./types.js').SequenceOps} SequenceOps */
/** @typedef {import('./methods.js').StepName} StepName */
/** @typedef {import('./handles.js').WorkerHandle} WorkerHandle */
/** @typedef {import('./handles.js').WorkerWeight} WorkerWeight */
/** @typedef {import('../gguf/cache.js').CacheState} CacheState */
/** @typedef {Pick<import('../wasm/kernels.js').Kernels, 'info' | 'types'>} Facts */

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(reason: unknown) => void} reject
 * @property {(progress: { loaded: number, total: number }) => void} [onProgress]
 * @property {(cached: CacheState) => void} [onCached]
 * @property {() => void} [done]  Removes the listener from the signal.
 * @property {{ reason: unknown }} [aborted]
 */

/** @type {{ dispose: typeof Symbol.dispose, asyncDispose: typeof Symbol.asyncDispose }} */
const symbols = {
  dispose: Symbol.dispose ?? Symbol.for('Symbol.dispose'),
  asyncDispose: Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose'),
};

const CREATE_OPTIONS = [...KERNELS_OPTIONS, 'worker', 'signal'];

export class WorkerKernels {
  /** @type {import('./port.js').Port | undefined} */
  #port;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  /** @type {Map<number, WorkerHandle>} */
  #handles = new Map();
  #relay = new Relay((message, transfer) => this.#port?.post(message, transfer));
  #lastId = 0;
  /** @type {Facts} */
  #facts = /** @type {any} */ (undefined);
  /** @type {Error | undefined} */
  #end;
  /** @type {Promise<void> | undefined} */
  #closed;
  /** @type {Recorder | undefined} */
  #recorder;

  /** @type {import('./handles.js').Owner} */
  #owner = {
    check: () => {
      if (this.#end) throw this.#end;
    },
    isGone: () => this.#end !== undefined,
    call: (handle, method, args) => this.#call(method, args, handle),
    free: (handle, id) => {
      if (this.#recorder) {
        this.#recorder.record('free', [], handle);
        this.#recorder.freed.push(id);
      } else this.#port?.post({ kind: 'free', handle: id });
      this.#handles.delete(id);
    },
  };

  /**
   * @param {WorkerKernelsOptions} given
   * @returns {Promise<WorkerKernels>}
   */
  static async create(given) {
    checkNames(given, CREATE_OPTIONS);
    const { worker, signal, ...options } = given;
    const kernels = new WorkerKernels();
    signal?.throwIfAborted();
    try {
      kernels.#port = await openPort(worker, KERNELS_SCRIPT, {
        onMessage: (message) => kernels.#receive(message),
        onEnd: (error) => kernels.#finish(error),
      });
      const message = { kind: 'create', options: { ...options, wasm: sendable(options.wasm) } };
      kernels.#facts = await kernels.#request(message, [], { signal });
      return kernels;
    } catch (error) {
      const reason =
        error instanceof WorkerError
          ? startError(error.message.replace('the worker ended: ', ''), error.cause ?? error)
          : error;
      await kernels.#stop(/** @type {Error} */ (reason));
      throw reason;
    }
  }

  /** Facts about the kernels in the worker, and why they were chosen. */
  get info() {
    return this.#facts.info;
  }

  /** Name of the instruction set in use. */
  get isa() {
    return this.info.isa;
  }

  /** Weight types that the kernels serve. */
  get types() {
    return this.#facts.types;
  }

  /** True after dispose(), and once the worker has ended by itself. */
  get disposed() {
    return this.#end !== undefined;
  }

  /**
   * Loads a weight like Kernels.loadWeight. The bytes go from the network or the disk straight to
   * the worker.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {string} name
   * @param {import('../wasm/kernel-types.js').LoadOptions} [options]  onProgress is called about
   *   thirty times a second
   * @returns {Promise<WorkerWeight>}
   */
  async loadWeight(gguf, name, options = {}) {
    checkNames(options, LOAD_OPTIONS);
    const [weight] = await this.loadWeights(gguf, [name], { ...options, concurrency: 1 });
    return weight;
  }

  /**
   * Loads weights like Kernels.loadWeights. Other calls are served meanwhile.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {Iterable<string>} names
   * @param {import('../wasm/kernel-types.js').LoadOptions & { concurrency?: number }} [options]
   * @returns {Promise<WorkerWeight[]>} the weights in the order of names
   */
  async loadWeights(gguf, names, options = {}) {
    checkNames(options, LOAD_MANY_OPTIONS);
    const { onProgress, signal, concurrency } = options;
    this.#checkCall();
    const tensors = tensorsOf(gguf, names).map((tensor) => {
      const { name, type, nRows, nCols, offset, part, byteLength } = tensor;
      return { name, type, nRows, nCols, offset, part, byteLength };
    });
    const source = sourceOf(gguf);
    const recipe = source.recipe?.();
    const { name, size } = source;
    const relay = recipe ? undefined : this.#relay.offer(source);
    const message = { kind: 'load', recipe, relay, source: { name, size }, tensors, concurrency };
    try {
      const onCached = (/** @type {CacheState} */ cached) => source.count?.(cached);
      return await this.#request(message, [], { signal, onProgress, onCached, isLoad: true });
    } finally {
      if (relay !== undefined) this.#relay.withdraw(relay);
    }
  }

  /**
   * Sends several operations as one message. `record` calls them on its argument as if it were
   * kernels in this thread; results are arguments of later operations. Only the values that
   * `record` returns come back: one value, a list or an object. Everything else that the operations
   * made is freed.
   * @template R
   * @param {(ops: SequenceOps) => R} record  called at once; not async
   * @param {CallOptions} [options]  an abort takes effect between two operations
   * @returns {Promise<import('./types.js').Returned<R>>}
   */
  async sequence(record, options = {}) {
    checkNames(options, CALL_OPTIONS);
    this.#checkCall();
    const recorder = new Recorder(this.#owner);
    try {
      recorder.transfer(options.transfer);
      this.#recorder = recorder;
      const result = record(/** @type {any} */ (opsOf(recorder)));
      if (result instanceof Promise) {
        result.catch(() => {});
        throw new ArgumentError(
          'what is given to sequence() must not be async: it only notes what is to be done',
        );
      }
      this.#recorder = undefined;
      return await this.#run(recorder, result, options.signal);
    } catch (error) {
      this.#recorder = undefined;
      for (const id of recorder.freed) this.#port?.post({ kind: 'free', handle: id });
      throw error;
    }
  }

  /**
   * Ends the worker with everything in it, even while it works. Pending calls are rejected. Further
   * calls of dispose() do nothing.
   * @returns {Promise<void>} resolves when the worker is gone
   */
  dispose() {
    return this.#stop(new HandleError('these kernels are disposed', 'disposed'));
  }

  /** For `using`. */
  [symbols.dispose]() {
    this.dispose();
  }

  /** For `await using`. */
  [symbols.asyncDispose]() {
    return this.dispose();
  }

  /**
   * Runs one operation, or records it while a sequence is being recorded.
   * @param {StepName} method
   * @param {readonly unknown[]} given
   * @param {WorkerHandle} [target]
   * @returns {any}
   */
  #call(method, given, target) {
    if (target && this.#recorder) return this.#recorder.record(method, given, target);
    return this.#callAlone(method, given, target);
  }

  /**
   * @param {StepName} method
   * @param {readonly unknown[]} given
   * @param {WorkerHandle} [target]
   */
  async #callAlone(method, given, target) {
    this.#checkCall();
    const { args, options } = splitOptions(method, given);
    const recorder = new Recorder(this.#owner);
    recorder.transfer(options.transfer);
    const result = await this.#run(recorder, recorder.record(method, args, target), options.signal);
    if (method === 'select') this.#facts = await this.#request({ kind: 'facts' });
    return result;
  }

  #checkCall() {
    if (this.#end) throw this.#end;
    if (this.#recorder)
      throw new ArgumentError('inside sequence(), operations are called on what its function is given');
  }

  /**
   * @param {Recorder} recorder
   * @param {unknown} result
   * @param {AbortSignal} [signal]
   */
  async #run(recorder, result, signal) {
    const { message, transfer, given } = recorder.finish(result);
    const answer = await this.#request(message, transfer, { signal });
    for (const [at, values] of answer.outs) /** @type {Float32Array} */ (given(at)).set(values);
    return this.#unpack(answer.value, given);
  }

  /**
   * @param {unknown} value
   * @param {(at: number) => any} [given]
   */
  #unpack(value, given) {
    return mapTree(value, (leaf) => {
      if (leaf?.$ === 'new') {
        const handle = new HANDLE_CLASSES[/** @type {'weight'} */ (leaf.kind)](this.#owner, leaf);
        this.#handles.set(leaf.id, handle);
        return handle;
      }
      if (leaf?.$ === 'handle') return this.#handles.get(leaf.id);
      return leaf?.$ === 'array' ? given?.(leaf.at) : leaf;
    });
  }

  /**
   * @param {object} message
   * @param {ArrayBuffer[]} [transfer]
   * @param {{ signal?: AbortSignal, onProgress?: Pending['onProgress'],
   *   onCached?: Pending['onCached'], isLoad?: boolean }} [options]
   * @returns {Promise<any>}
   */
  #request(message, transfer, { signal, onProgress, onCached, isLoad = false } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#end) throw this.#end;
      const id = ++this.#lastId;
      // A flag in shared memory reaches the worker even while it is busy.
      const flag = signal && typeof SharedArrayBuffer === 'function' ? new SharedArrayBuffer(4) : undefined;
      /** @type {Pending} */
      const pending = { resolve, reject, onProgress, onCached };
      if (signal) {
        const abort = () => {
          if (flag) Atomics.store(new Int32Array(flag), 0, 1);
          this.#port?.post({ kind: 'abort', id });
          pending.aborted = { reason: signal.reason };
          // A load ends when the worker has freed all of it. Other operations may take long to
          // stop.
          if (!isLoad) reject(signal.reason);
        };
        signal.addEventListener('abort', abort);
        pending.done = () => signal.removeEventListener('abort', abort);
      }
      try {
        this.#port?.post(
          { ...message, id, abortable: signal !== undefined, flag, progress: !!onProgress },
          transfer,
        );
      } catch (cause) {
        pending.done?.();
        const why = cause instanceof Error ? cause.message : String(cause);
        throw Object.assign(new ArgumentError(`an argument cannot be sent to a worker: ${why}`), { cause });
      }
      this.#pending.set(id, pending);
      this.#port?.hold(true);
    });
  }

  /** @param {any} message */
  #receive(message) {
    if (message.kind === 'read' || message.kind === 'leave') {
      this.#relay.receive(message);
      return;
    }
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if (message.kind === 'progress') {
      try {
        pending.onProgress?.(message.progress);
      } catch (error) {
        pending.onProgress = undefined;
        pending.aborted = { reason: error };
        this.#port?.post({ kind: 'abort', id: message.id });
      }
      return;
    }
    if (message.kind === 'cached') {
      const error = message.error && unpackError(message.error);
      pending.onCached?.({ ...message.cached, ...(error && { error }) });
      return;
    }
    this.#pending.delete(message.id);
    pending.done?.();
    if (this.#pending.size === 0) this.#port?.hold(false);
    if (pending.aborted) {
      mapTree(message.value, (leaf) => {
        if (leaf?.$ === 'new') this.#port?.post({ kind: 'free', handle: leaf.id });
      });
      pending.reject(pending.aborted.reason);
    } else if (message.error) pending.reject(unpackError(message.error));
    else pending.resolve(message.kind === 'loaded' ? this.#unpack(message.value) : message.value);
  }

  /**
   * Ends all calls.
   * @param {Error} error  the error that pending and future calls are rejected with
   */
  #finish(error) {
    this.#end ??= error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#handles.clear();
    for (const { reject, done } of pending) {
      done?.();
      reject(error);
    }
    this.#relay.end();
  }

  /** @param {Error} error */
  #stop(error) {
    this.#finish(error);
    this.#closed ??= this.#port?.close() ?? Promise.resolve();
    return this.#closed;
  }

  static {
    for (const method of Object.keys(METHODS)) {
      Object.defineProperty(WorkerKernels.prototype, method, {
        configurable: true,
        writable: true,
        /** @this {WorkerKernels} @param {unknown[]} args */
        value(...args) {
          return this.#callAlone(/** @type {StepName} */ (method), args);
        },
      });
    }
  }
}

/** @param {Recorder} recorder */
function opsOf(recorder) {
  return Object.fromEntries(
    Object.keys(METHODS)
      .filter((method) => method !== 'select')
      .map((method) => [
        method,
        (/** @type {unknown[]} */ ...args) => recorder.record(/** @type {StepName} */ (method), args),
      ]),
  );
}
