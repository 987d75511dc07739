/* Converts JavaScript values to template values and back. */

import { ArgumentError, show } from '../../../errors.js';
import { LIMITS } from './limits.js';
import { isStr, outside, plain } from './text.js';
import { Callable, Dict, Float, itemsOf } from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./limits.js').Budget} Budget */

/**
 * Converts a JavaScript value for a template. Its strings are marked as coming from outside.
 * @param {unknown} value
 * @param {string} what  name of the value in messages
 * @param {number} [depth]
 * @returns {Value}
 * @throws {ArgumentError} templates have no value of this kind, or it is nested too deeply
 */
export function toValue(value, what, depth = 0) {
  if (depth > LIMITS.depth)
    throw new ArgumentError(`${what} is nested ${depth} levels deep, ${LIMITS.depth} are allowed`);
  if (value === null || typeof value === 'boolean') return value;
  if (value instanceof Float) return value;
  if (typeof value === 'string') return outside(value);
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : new Float(value);
  if (Array.isArray(value)) return value.map((item, i) => toValue(item ?? null, `${what}[${i}]`, depth + 1));
  if (typeof value === 'object') {
    const entries = value instanceof Map ? [...value] : Object.entries(/** @type {object} */ (value));
    const dict = new Dict();
    for (const [key, item] of entries)
      if (item !== undefined) dict.set(outside(String(key)), toValue(item, `${what}.${key}`, depth + 1));
    return dict;
  }
  throw new ArgumentError(
    `${what} is ${show(value)}: a template takes texts, numbers, booleans, null, lists and objects`,
  );
}

/**
 * Makes a JavaScript function callable by a template. Arguments and result are converted.
 * @param {Function} call
 * @param {string} name
 * @param {Budget} budget
 * @returns {Callable}
 */
export function toCallable(call, name, budget) {
  return new Callable(name, (args, named) => {
    const given = args.map((one) => toPlain(one, budget, 0));
    if (named.size > 0)
      given.push(Object.fromEntries([...named].map(([key, one]) => [key, toPlain(one, budget, 0)])));
    return toValue(call(...given) ?? null, `the result of ${name}()`);
  });
}

/** @param {Value} value @param {Budget} budget @param {number} depth @returns {unknown} */
function toPlain(value, budget, depth) {
  budget.nests(depth);
  budget.spend(1);
  if (isStr(value)) return plain(value);
  if (value instanceof Float) return value.value;
  if (value instanceof Dict)
    return Object.fromEntries(
      value.entries().map(([key, one]) => [plain(key), toPlain(one, budget, depth + 1)]),
    );
  if (value === null || typeof value !== 'object') return value;
  return itemsOf(value, budget)?.map((one) => toPlain(one, budget, depth + 1));
}
