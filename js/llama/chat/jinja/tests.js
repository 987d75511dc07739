/* The tests of Jinja2: value is name(arguments). */

import { contains } from './access.js';
import { binary } from './arithmetic.js';
import { number } from './calls.js';
import { TemplateError } from './lexer.js';
import { str } from './print.js';
import { isCased } from './strings.js';
import { isStr, plain } from './text.js';
import {
  Callable,
  compare,
  Dict,
  equal,
  Facade,
  Float,
  isNumber,
  itemsOf,
  lengthOf,
  Range,
  Stream,
  Undefined,
  View,
} from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */
/**
 * @typedef {{ budget: Budget, hasFilter: (name: string) => boolean, hasTest: (name: string) =>
 *   boolean }} TestTools
 */
/**
 * @typedef {{ count: number, run: (value: Value, args: Value[], tools: TestTools) => boolean }}
 *   Test
 */

/** @param {(value: Value, tools: TestTools) => boolean} run @returns {Test} */
const of = (run) => ({ count: 0, run: (value, _, tools) => run(value, tools) });

/** @param {(value: Value, other: Value, tools: TestTools) => boolean} run @returns {Test} */
const by = (run) => ({ count: 1, run: (value, [other], tools) => run(value, other, tools) });

/** @param {Value} value @param {Value} divisor @param {Budget} budget */
const remainder = (value, divisor, budget) => {
  const rest = binary('%', value, divisor, budget);
  return number(rest, 'the remainder');
};

const eq = by((a, b, { budget }) => equal(a, b, budget));
const ne = by((a, b, { budget }) => !equal(a, b, budget));
const lt = by((a, b, { budget }) => compare(a, b, budget, '<') < 0);
const le = by((a, b, { budget }) => compare(a, b, budget, '<=') <= 0);
const gt = by((a, b, { budget }) => compare(a, b, budget, '>') > 0);
const ge = by((a, b, { budget }) => compare(a, b, budget, '>=') >= 0);

/**
 * Tells whether two values are the same object. Equal strings count as the same, as Python often
 * shares them.
 * @param {Value} a
 * @param {Value} b
 */
const same = (a, b) => a === b || (isStr(a) && isStr(b) && plain(a) === plain(b));

/** @type {Record<string, Test>} */
export const TESTS = {
  odd: of((value, { budget }) => remainder(value, 2, budget) === 1),
  even: of((value, { budget }) => remainder(value, 2, budget) === 0),
  divisibleby: by((value, divisor, { budget }) => remainder(value, divisor, budget) === 0),
  defined: of((value) => !(value instanceof Undefined)),
  undefined: of((value) => value instanceof Undefined),
  filter: of((value, { hasFilter }) => isStr(value) && hasFilter(plain(value))),
  test: of((value, { hasTest }) => isStr(value) && hasTest(plain(value))),
  none: of((value) => value === null),
  boolean: of((value) => typeof value === 'boolean'),
  false: of((value) => value === false),
  true: of((value) => value === true),
  integer: of((value) => typeof value === 'number'),
  float: of((value) => value instanceof Float),
  lower: of((value, { budget }) => isCased(plain(str(value, budget)), (text) => text.toLowerCase())),
  upper: of((value, { budget }) => isCased(plain(str(value, budget)), (text) => text.toUpperCase())),
  string: of((value) => isStr(value)),
  mapping: of((value) => value instanceof Dict),
  number: of((value) => isNumber(value)),
  sequence: of(
    (value) =>
      isStr(value) || value instanceof Range || (lengthOf(value) !== undefined && !(value instanceof View)),
  ),
  iterable: of((value, { budget }) => {
    if (value instanceof Stream || isStr(value)) return true;
    return lengthOf(value) !== undefined || itemsOf(value, budget) !== undefined;
  }),
  callable: of(
    (value) =>
      value instanceof Callable ||
      value instanceof Undefined ||
      (value instanceof Facade && value.call !== undefined),
  ),
  sameas: by(same),
  escaped: of(() => false),
  in: by((value, list, { budget }) => contains(value, list, budget)),
  ...{ '==': eq, eq, equalto: eq, '!=': ne, ne },
  ...{ '>': gt, gt, greaterthan: gt, '>=': ge, ge, '<': lt, lt, lessthan: lt, '<=': le, le },
};

/**
 * @param {string} name
 * @param {Value} value
 * @param {Value[]} args
 * @param {TestTools} tools
 * @returns {boolean}
 */
export function runTest(name, value, args, tools) {
  if (!Object.hasOwn(TESTS, name)) throw new TemplateError(`No test named '${name}'`);
  const { count, run } = TESTS[name];
  if (args.length !== count)
    throw new TemplateError(`the test '${name}' takes ${count} argument(s), got ${args.length}`);
  for (const one of [value, ...args]) if (isStr(one)) tools.budget.reads(plain(one).length);
  return run(value, args, tools);
}
