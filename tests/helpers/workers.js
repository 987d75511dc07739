/** Kernels in workers for tests, and a count of the live workers in this process. */
import assert from 'node:assert/strict';
import { syncBuiltinESMExports } from 'node:module';
import path from 'node:path';
import workerThreads from 'node:worker_threads';
import { createWorkerKernels } from '../../js/index.js';
import { projectRoot } from './test-data.js';

/** @import { TestContext } from 'node:test' */

/** @type {Set<workerThreads.Worker>} */
const alive = new Set();

const { Worker } = workerThreads;
workerThreads.Worker = class extends Worker {
  /** @param {ConstructorParameters<typeof Worker>} args */
  constructor(...args) {
    super(...args);
    alive.add(this);
    this.on('exit', () => alive.delete(this));
  }
};
syncBuiltinESMExports();

/** Workers that have started and not ended. */
export const workersAlive = () => alive.size;

/** Waits until exactly this many workers are alive. @param {number} count */
export async function untilAlive(count) {
  for (let i = 0; i < 200 && alive.size !== count; i++) await pause(10);
  assert.equal(alive.size, count, 'workers alive');
}

/** @param {number} ms */
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** @param {TestContext} t @param {Parameters<typeof createWorkerKernels>[0]} [options] */
export async function workerKernels(t, options) {
  const fm = await createWorkerKernels(options);
  t.after(() => fm.dispose());
  return fm;
}

export const modelPath = path.join(projectRoot, 'web/public/tiny-tales-Q4_K_M.gguf');
export const hostUrl = new URL('../../dist/worker-host.js', import.meta.url);

/** @param {Promise<unknown>} promise @returns {Promise<any>} the error with which it is rejected */
export const rejection = (promise) =>
  promise.then(
    () => assert.fail('it was not rejected'),
    (error) => error,
  );
