/**
 * Long lists of cases are drawn by a seed, which FM_TEST_SEED sets; tests show it in their names.
 * FM_TEST_DEEP=1 runs all cases.
 */
import { draw } from './prng.js';

export const DEEP = Boolean(process.env.FM_TEST_DEEP);
export const SEED = Number(process.env.FM_TEST_SEED ?? Date.now() % 1e6);

/**
 * A function that draws some cases of many, or gives all of them.
 * @param {number} seed
 */
export const samplerOf =
  (seed) =>
  /** @template T @param {readonly T[]} cases @param {number} n */
  (cases, n) =>
    DEEP ? cases : draw(cases, n, seed);

export const sampled = samplerOf(SEED);

/**
 * Calls a function when its result is first asked for: not for tests that do not run.
 * @template T
 * @param {() => T} make
 */
export function once(make) {
  /** @type {{ made: T } | undefined} */
  let known;
  return () => {
    known ??= { made: make() };
    return known.made;
  };
}
