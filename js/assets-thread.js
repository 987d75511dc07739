/* URL of the script of the threads; see assets-worker.js. */

import { scriptUrl } from './assets-worker.js';
import { isNode, nodeModule } from './node.js';

/**
 * Makes a function that starts a thread of the pool.
 * @returns {Promise<() => any>}
 * @throws {import('./errors.js').LoadError}
 */
export async function threadFactory() {
  const url = scriptUrl(
    '../js/thread.js',
    "the threads' script js/thread.js",
    'bundle as ES modules, or use createWorkerKernels({ worker }), whose script has it beside it',
  );
  if (!isNode) return () => new Worker(new URL('../js/thread.js', import.meta.url), { type: 'module' });
  const { Worker: NodeWorker } = await nodeModule('worker_threads');
  return () => new NodeWorker(url, { execArgv: [], name: 'fused-matmul' });
}
