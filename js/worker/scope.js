/* The worker's side of a connection: receives messages, and tells the page when the worker ends. */

import { isNode, nodeModule } from '../node.js';

/** @typedef {(message: object, transfer?: ArrayBuffer[]) => void} Post */

/**
 * Serves the messages of the thread that started this worker.
 * @param {(post: Post) => { receive(message: any): void }} makeServer
 */
export function serve(makeServer) {
  if (isNode) {
    nodeModule('worker_threads').then(({ parentPort }) => {
      const server = makeServer((message, transfer) => parentPort.postMessage(message, transfer));
      parentPort.on('message', (/** @type {any} */ message) => server.receive(message));
    });
    return;
  }
  const scope = /** @type {any} */ (globalThis);
  const server = makeServer((message, transfer = []) => scope.postMessage(message, transfer));
  scope.addEventListener('message', (/** @type {MessageEvent} */ { data }) => server.receive(data));
  announce(scope);
}

/**
 * Holds a lock as long as this worker lives. The page waits for the lock, because no event tells it
 * that a worker has closed itself.
 * @param {any} scope
 */
function announce(scope) {
  const lock = `fused-matmul ${Math.random()}`;
  const hold = () => {
    scope.postMessage({ kind: 'alive', lock });
    return new Promise(() => {});
  };
  navigator.locks?.request(lock, hold).catch(() => {});
}
