/**
 * `npm run bench -- --contexts`: tokens a second of one context, and of several that generate at the same
 * time, on one thread, with weights larger than most caches. They race in turns.
 */
import { Llama } from '../../js/llama/index.js';
import { median } from './lab.js';
import { largeLlama } from './large-llama.js';
import { table } from './report.js';

const COUNTS = [1, 2, 3, 4, 8];
const TOKENS = 12;

/** @param {number} rounds */
export async function contextsReport(rounds) {
  const options = /** @type {const} */ ({ threads: 1, contextLength: 64, activation: 'int8' });
  const model = await Llama.load(largeLlama('Q4_K_M'), options);
  const contexts = await Promise.all(Array.from({ length: 8 }, () => model.context()));
  /** Milliseconds of a step of the first contexts. @param {number} n */
  const stepOf = async (n) => {
    const runs = contexts.slice(0, n).map((context, i) => {
      context.clear();
      return context.generate([5 + i], { temperature: 0, ignoreEnd: true, maxTokens: TOKENS + 1 });
    });
    for (const run of runs) await run.next();
    const start = performance.now();
    await Promise.all(runs.map((run) => run.text()));
    return (performance.now() - start) / TOKENS;
  };
  /** @type {Map<number, number[]>} */
  const times = new Map(COUNTS.map((n) => [n, []]));
  for (const n of COUNTS) await stepOf(n);
  for (let round = 0; round < rounds; round++) for (const n of COUNTS) times.get(n)?.push(await stepOf(n));
  const { kernels, memory } = model.info;
  model.dispose();
  const alone = median(times.get(1) ?? []);
  const rows = [...times].map(([n, all]) => {
    const ms = median(all);
    const cells = [ms, Math.min(...all), (1000 * n) / ms].map((value) => value.toFixed(1));
    return [String(n), ...cells, `${((n * alone) / ms).toFixed(2)}x`];
  });
  const head = ['contexts', 'step ms', 'least ms', 'tokens/s together', 'to one'];
  const megabytes = (memory.weights / 1e6).toFixed(0);
  return `${table(head, rows)}\n\nQ4_K_M of ${megabytes} MB, int8 on ${kernels.isa}, 1 thread, ${rounds} rounds in turns`;
}
