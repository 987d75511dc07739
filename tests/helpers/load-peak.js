/**
 * A process that loads all tensors of a file and prints by how much its memory has grown at its
 * peak: node load-peak.js SOURCE [worker]
 */
import { createKernels, createWorkerKernels, openGguf } from '../../js/index.js';

const [source, where] = process.argv.slice(2);
const inWorker = where === 'worker';
const fm = await (inWorker ? createWorkerKernels() : createKernels());
const gguf = await openGguf(source, source.startsWith('http') ? { retryDelay: 1 } : {});
const [first, ...names] = gguf.tensors.keys();
// Things made only once, such as buffers of the HTTP client and compiled code, do not count.
(await fm.loadWeight(gguf, first)).free();
const measure = () => {
  const { rss, external, arrayBuffers, heapTotal } = process.memoryUsage();
  return { rss, external, arrayBuffers, heapTotal };
};
globalThis.gc?.();
const before = measure();
const peak = { ...before };
const sample = () => {
  for (const [key, value] of Object.entries(measure()))
    peak[/** @type {'rss'} */ (key)] = Math.max(peak[/** @type {'rss'} */ (key)], value);
};
const timer = setInterval(sample, 5);
const weights = await fm.loadWeights(gguf, names, {
  onProgress: sample,
  concurrency: Number(process.env.CONC ?? 4),
});
sample();
clearInterval(timer);
const bytes = weights.reduce((sum, w) => sum + w.byteLength, 0);
const { bytes: linear } = await fm.memory();
/** @type {Record<string, number>} */
const over = { linear: linear - bytes };
for (const key of /** @type {const} */ (['rss', 'external', 'arrayBuffers']))
  over[key] = peak[key] - before[key] - bytes;
process.stdout.write(JSON.stringify({ bytes, over, heap: peak.heapTotal - before.heapTotal }));
fm.dispose();
