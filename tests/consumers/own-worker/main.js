/** A page with its own worker. The test waits for globalThis.outcome. */
const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });

globalThis.outcome = new Promise((resolve) => {
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = ({ message }) => resolve({ error: message });
});
worker.postMessage(new URL('model.gguf', location.href).href);
