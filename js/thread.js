/* Script of a thread of the pool: another instance of the module on the same memory, which waits in
 * C for work until the pool ends. pool.js starts it as a module worker in browsers and as a worker
 * thread in Node. It imports nothing, so that bundlers may copy or bundle it. */

/**
 * @typedef {object} ThreadStart
 * @property {WebAssembly.Module} module
 * @property {WebAssembly.Memory} memory
 * @property {number} thread  Number of the thread, from 1 on.
 * @property {number | bigint} stack  Address where its stack starts.
 */

/** @type {any} */
const scope = globalThis;

/** The port to the pool: parentPort in Node, the worker's global scope in browsers. */
async function findPort() {
  if (typeof scope.postMessage === 'function' && typeof scope.process?.versions?.node !== 'string') {
    return { port: scope, next: (/** @type {(data: ThreadStart) => void} */ use) => listen(scope, use) };
  }
  const id = 'node:worker_threads';
  const { parentPort } =
    scope.process.getBuiltinModule?.(id) ?? (await import(/* webpackIgnore: true */ /* @vite-ignore */ id));
  return {
    port: parentPort,
    next: (/** @type {(data: ThreadStart) => void} */ use) => parentPort.once('message', use),
  };
}

/** @param {any} target @param {(data: ThreadStart) => void} use */
function listen(target, use) {
  target.addEventListener('message', (/** @type {MessageEvent} */ { data }) => use(data), { once: true });
}

/** @param {any} port @param {ThreadStart} start */
async function run(port, { module, memory, thread, stack }) {
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  const exports = /** @type {any} */ (instance.exports);
  exports._emscripten_stack_restore(stack);
  port.postMessage('ready');
  try {
    exports.fm_thread_run(thread);
  } catch (error) {
    exports.fm_thread_failed();
    throw error;
  }
  port.close();
}

findPort().then(({ port, next }) =>
  next((start) => {
    run(port, start).catch((error) => {
      // Thrown outside of the promise, so that it becomes an error event of the worker.
      setTimeout(() => {
        throw error;
      });
    });
  }),
);
