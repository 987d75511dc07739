/** Counts the calls of a method: steps that do not depend on how busy the machine is. */

/**
 * @template T
 * @param {any} prototype
 * @param {string} name  name of the method
 * @param {() => T} run
 * @returns {{ result: T, calls: number }}
 */
export function countCalls(prototype, name, run) {
  const original = prototype[name];
  let calls = 0;
  prototype[name] = function (/** @type {any[]} */ ...args) {
    calls += 1;
    return original.apply(this, args);
  };
  try {
    const result = run();
    return { result, calls };
  } finally {
    prototype[name] = original;
  }
}
