/* The threads of a module with shared memory: workers that sleep in C until an operation has work
 * for them. This file is fetched only if there are several threads. */

import { threadFactory } from '../assets-thread.js';
import { findType } from '../types.js';
import { ACTIVATION_NAMES, hashValues, N_COLS, testActivations, testWeights, withData } from './selftest.js';

export { sharedMemory } from './shared-memory.js';
export { planShares } from './thread-plan.js';

/** @typedef {import('./memory.js').WasmExports} WasmExports */
/** @typedef {import('../thread.js').ThreadStart} ThreadStart */

/** Milliseconds that threads may take to start; after that there is one thread. */
const START_MS = 10_000;
/** Argument of fm_threads_use: share work as soon as it pays. */
const USUAL_WORK = 0xffffffff;

/**
 * Size of the product in the self-test: large enough for sleeping threads to wake and take part.
 */
const SHARED_ROWS = 192;
const SHARED_TOKENS = 25;
const RUNS = 4;

/**
 * A worker of a browser or of Node.
 * @typedef {{ worker: any, ready: Promise<void>, end: () => void }} Thread
 */

/** Tells whether this thread may wait in a futex; a browser's main thread may not. */
function maySleep() {
  try {
    // The value is 0 and not 1, so this returns at once.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}

/**
 * Ends the pools of kernels that were garbage-collected.
 * @type {FinalizationRegistry<ThreadPool>}
 */
const forgotten = new FinalizationRegistry((pool) => pool.end());

export class ThreadPool {
  /** The reason why there is only one thread. @type {string | undefined} */
  failure;
  /** Start of each other thread's stack; its scratch memory is below the stack. @type {number[]} */
  stacks = [];
  #exports;
  /** @type {Thread[]} */
  #threads = [];
  #maySleep = maySleep();

  /**
   * @param {WasmExports} exports
   * @param {number} count  number of threads, the caller included
   */
  constructor(exports, count) {
    this.#exports = exports;
    this.count = count;
  }

  /**
   * Starts the threads. Never rejects: if one cannot be started, all are ended, and `failure` says
   * why.
   * @param {WebAssembly.Module} module
   * @param {import('./module.js').Instance} instance
   */
  async spawn(module, { memory, is64 }) {
    try {
      const makeWorker = await threadFactory();
      for (let thread = 1; thread < this.count; thread++) {
        const stack = this.#exports.fm_thread_stack(thread);
        if (stack === 0) throw new Error('no memory for another thread');
        this.stacks.push(stack);
        const worker = makeWorker();
        this.#threads.push({ worker, ...watch(worker, (why) => this.#fail(why)) });
        worker.postMessage({ module, memory, thread, stack: is64 ? BigInt(stack) : stack });
      }
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  /** Waits until the threads run, tests them, and has them used. Never rejects. */
  async ready() {
    try {
      await withTimeout(Promise.all(this.#threads.map(({ ready }) => ready)));
      if (this.failure) return;
      // From here on the threads do not keep a Node process alive.
      for (const { worker } of this.#threads) worker.unref?.();
      const wrong = threadTest(this.#exports, (share) => this.use(share ? this.count : 1, 0));
      if (wrong) throw new Error(wrong);
      this.use(this.count);
    } catch (error) {
      this.#fail(messageOf(error));
    }
  }

  /**
   * @param {number} count  number of threads to use
   * @param {number} [forkWork]  see fm_threads_use
   */
  use(count, forkWork = USUAL_WORK) {
    this.#exports.fm_threads_use(count, forkWork, this.#maySleep ? 1 : 0);
  }

  /** Ends the pool when `owner` is garbage-collected. @param {object} owner */
  belongTo(owner) {
    forgotten.register(owner, this, this);
  }

  /** Ends all threads, sleeping or not. Further calls do nothing. */
  end() {
    forgotten.unregister(this);
    if (this.#threads.length === 0) return;
    const threads = this.#threads;
    this.#threads = [];
    this.#exports.fm_threads_stop();
    for (const { end } of threads) end();
  }

  /** @param {string} why */
  #fail(why) {
    this.failure ??= why;
    this.end();
  }
}

/**
 * Compares products that threads share, however small, with those of one thread. They must have the
 * same bits.
 * @param {WasmExports} exports
 * @param {(share: boolean) => void} use  calls fm_threads_use, for several threads or for one
 * @returns {string | undefined} the reason why threads cannot be used
 */
function threadTest(exports, use) {
  const { id } = /** @type {import('../types.js').GgmlType} */ (findType('Q4_K'));
  const x = new Float32Array(SHARED_TOKENS * N_COLS);
  const some = testActivations();
  for (let i = 0; i < x.length; i++) x[i] = some[i % some.length];
  const w = testWeights('Q4_K', SHARED_ROWS);
  return withData(exports, { w, x, nOut: SHARED_ROWS * SHARED_TOKENS }, (at) => {
    const product = (/** @type {boolean} */ share, /** @type {number} */ nTokens) => {
      use(share);
      at.out().fill(Number.NaN);
      const [tokens, rows, int8] = [nTokens, SHARED_ROWS, ACTIVATION_NAMES.indexOf('int8')];
      exports.fused_matmul(id, at.w, at.x, at.y, tokens, rows, N_COLS, int8);
      return hashValues(at.out());
    };
    for (const nTokens of [1, SHARED_TOKENS]) {
      const right = product(false, nTokens);
      for (let run = 0; run < RUNS; run++) {
        if (product(true, nTokens) !== right) return 'self-test failed: threads compute other bits';
      }
    }
    return undefined;
  });
}

/**
 * @param {any} worker  a worker of a browser or of Node
 * @param {(why: string) => void} fail  called when the worker dies, unless `end` was called
 * @returns {{ ready: Promise<void>, end: () => void }}
 */
function watch(worker, fail) {
  let ended = false;
  /** @type {(why: string) => void} */
  let reject;
  const listen = (/** @type {string} */ name, /** @type {(event: any) => void} */ handler) =>
    worker.on ? worker.on(name, handler) : worker.addEventListener(name, handler);
  /** @type {Promise<void>} */
  const ready = new Promise((resolve, rejectPromise) => {
    reject = (why) => rejectPromise(new Error(why));
    listen('message', () => resolve());
  });
  ready.catch(() => {});
  const die = (/** @type {string} */ why) => {
    if (ended) return;
    reject(why);
    fail(why);
  };
  listen('error', (event) => {
    event.preventDefault?.();
    die(`a thread could not be run: ${event.message || 'thread.js was not loaded'}`);
  });
  listen('exit', (code) => die(`a thread ended (exit code ${code})`));
  const end = () => {
    ended = true;
    worker.terminate();
  };
  return { ready, end };
}

/** @param {unknown} error */
const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/** @template T @param {Promise<T>} promise */
async function withTimeout(promise) {
  /** @type {any} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`threads did not start within ${START_MS} ms`)), START_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
