/* What runs in the worker of createWorkerKernels. It is built into one file, dist/worker-host.js: import maps do not reach
 * into workers. */

import { isNode, nodeModule } from '../node.js';
import { Server } from './serve.js';

if (isNode) {
  nodeModule('worker_threads').then(({ parentPort }) => {
    const server = new Server((message, transfer) => parentPort.postMessage(message, transfer));
    parentPort.on('message', (/** @type {any} */ message) => server.receive(message));
  });
} else {
  const scope = /** @type {any} */ (globalThis);
  const server = new Server((message, transfer = []) => scope.postMessage(message, transfer));
  // Held as long as this worker lives, for its owner to wait for: nothing else tells of a worker's end.
  const lock = `fused-matmul ${Math.random()}`;
  const held = new Promise((resolve) => {
    const { locks } = navigator;
    if (!locks) resolve(false);
    else {
      locks
        .request(lock, () => {
          resolve(true);
          return new Promise(() => {});
        })
        .catch(() => resolve(false));
    }
  });
  scope.addEventListener('message', (/** @type {MessageEvent} */ { data }) => server.receive(data));
  held.then((isHeld) => {
    if (isHeld) scope.postMessage({ kind: 'alive', lock });
  });
}
