/**
 * Measures contenders in turns within one process, so that whatever else the machine does affects
 * all of them. Times are per call. A sample is a series of calls that takes SAMPLE_MS.
 */

/** Shortest time of a sample, so that the clock and the call from JavaScript do not matter. */
const SAMPLE_MS = 3;
/**
 * Calls before the first sample, since the engine compiles hot functions again in the background.
 */
const WARM_UP_MS = 150;
const WARM_UP_CALLS = 12;

/**
 * @typedef {{ name: string, run: () => unknown }} Contender  run: if it returns a promise, that is
 *   awaited
 */
/** @typedef {{ name: string, medianMs: number, minMs: number, samples: number }} Timing */
/** @typedef {{ minRounds: number, maxRounds: number, budgetMs: number }} Limits */

/**
 * @param {() => unknown} run @param {number} calls @returns {Promise<number>} milliseconds per call
 */
async function sample(run, calls) {
  const start = performance.now();
  for (let i = 0; i < calls; i++) {
    const pending = run();
    if (pending instanceof Promise) await pending;
  }
  return (performance.now() - start) / calls;
}

/** @param {Contender} contender @returns {Promise<number>} calls per sample */
async function warmUp({ run }) {
  const start = performance.now();
  let calls = 0;
  while (calls < WARM_UP_CALLS && performance.now() - start < 8 * WARM_UP_MS) {
    await run();
    calls++;
  }
  while (performance.now() - start < WARM_UP_MS) await run();
  return Math.max(1, Math.ceil(SAMPLE_MS / (await sample(run, 1))));
}

/** @param {number[]} times */
export function median(times) {
  const sorted = times.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/**
 * @template {Contender} C
 * @param {C[]} contenders @param {Limits} limits
 * @returns {Promise<(C & Timing)[]>}
 */
export async function race(contenders, { minRounds, maxRounds, budgetMs }) {
  const entries = [];
  for (const contender of contenders) {
    entries.push({ contender, calls: await warmUp(contender), times: /** @type {number[]} */ ([]) });
  }
  const start = performance.now();
  for (let round = 0; round < maxRounds; round++) {
    if (round >= minRounds && performance.now() - start > budgetMs) break;
    /* each round begins with a different one */
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[(i + round) % entries.length];
      entry.times.push(await sample(entry.contender.run, entry.calls));
    }
  }
  return entries.map(({ contender, times }) => ({
    ...contender,
    medianMs: median(times),
    minMs: Math.min(...times),
    samples: times.length,
  }));
}

/**
 * The cases that options ask for: those whose names match, else those that run by default.
 * @template {{ name: string, byDefault: boolean }} C
 * @param {C[]} cases
 * @param {{ filter?: string | undefined, list?: boolean }} options  list: all of them, unless there is a filter
 */
export function selectCases(cases, { filter, list = false }) {
  const pattern = filter === undefined ? undefined : new RegExp(filter);
  const selected = cases.filter(({ name, byDefault }) => (pattern ? pattern.test(name) : byDefault || list));
  if (selected.length === 0) throw new Error(`no case matches ${filter}`);
  return selected;
}
