/* Python's operators on numbers, strings and lists. */

import { percent } from './format.js';
import { TemplateError } from './lexer.js';
import { concat, isStr, plain } from './text.js';
import { assemble, Float, isNumber, numberOf, Tuple, typeName, Undefined } from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */

/** @param {number} value @returns {number} */
function checked(value) {
  if (Number.isSafeInteger(value)) return value === 0 ? 0 : value;
  throw new TemplateError('an integer becomes larger than 2^53');
}

/** @param {string} operator @param {Value} a @param {Value} b @returns {Value} */
function numeric(operator, a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  const exact = !(a instanceof Float || b instanceof Float);
  const result = (/** @type {number} */ value) => (exact ? checked(value) : new Float(value));
  if ((operator === '/' || operator === '//' || operator === '%') && y === 0)
    throw new TemplateError(operator === '/' ? 'division by zero' : 'integer division or modulo by zero');
  switch (operator) {
    case '+':
      return result(x + y);
    case '-':
      return result(x - y);
    case '*':
      return result(x * y);
    case '/':
      return new Float(x / y);
    case '//':
      return result(Math.floor(x / y));
    case '%': {
      const rest = x % y;
      return result(rest !== 0 && rest < 0 !== y < 0 ? rest + y : rest);
    }
    default:
      if (x === 0 && y < 0) throw new TemplateError('0.0 cannot be raised to a negative power');
      return exact && y >= 0 ? checked(x ** y) : new Float(x ** y);
  }
}

/**
 * Repeats a sequence.
 * @param {Value} value
 * @param {number} times
 * @param {Budget} budget
 * @returns {Value}
 */
function repeat(value, times, budget) {
  const count = Math.max(0, times);
  if (isStr(value)) {
    const { length } = plain(value);
    budget.makes(length * count);
    if (typeof value === 'string') return value.repeat(count);
    budget.spend(count);
    return assemble(['', ...Array.from({ length: count }, () => value)], budget);
  }
  const items = value instanceof Tuple ? value.items : value;
  budget.spend(items.length * count);
  const out = Array.from({ length: items.length * count }, (_, i) => items[i % items.length]);
  return value instanceof Tuple ? new Tuple(out) : out;
}

/**
 * @param {string} operator
 * @param {Value} a
 * @param {Value} b
 * @param {Budget} budget
 * @returns {Value}
 */
export function binary(operator, a, b, budget) {
  if (a instanceof Undefined) a.fail();
  if (operator === '%' && isStr(a)) return percent(a, b, budget);
  if (b instanceof Undefined) b.fail();
  if (isNumber(a) && isNumber(b)) return numeric(operator, a, b);
  const isList = (/** @type {Value} */ value) => Array.isArray(value) || value instanceof Tuple;
  if (operator === '+') {
    if (isStr(a) && isStr(b)) {
      budget.joins(plain(a).length + plain(b).length);
      return typeof a === 'string' && typeof b === 'string' ? a + b : concat([a, b]);
    }
    if (Array.isArray(a) && Array.isArray(b)) {
      budget.spend(a.length + b.length);
      return a.concat(b);
    }
    if (a instanceof Tuple && b instanceof Tuple) return new Tuple(a.items.concat(b.items));
    if (isStr(a)) throw new TemplateError(`can only concatenate str (not "${typeName(b)}") to str`);
  }
  if (operator === '*') {
    if ((isStr(a) || isList(a)) && Number.isInteger(Number(b)) && isNumber(b) && !(b instanceof Float))
      return repeat(a, Number(b), budget);
    if ((isStr(b) || isList(b)) && isNumber(a) && !(a instanceof Float)) return repeat(b, Number(a), budget);
  }
  const shown = operator === '**' ? '** or pow()' : operator;
  throw new TemplateError(`unsupported operand type(s) for ${shown}: '${typeName(a)}' and '${typeName(b)}'`);
}

/** @param {string} operator  + or - @param {Value} value @returns {Value} */
export function unary(operator, value) {
  if (value instanceof Undefined) value.fail();
  if (!isNumber(value))
    throw new TemplateError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
  const number = operator === '-' ? -numberOf(value) : numberOf(value);
  return value instanceof Float ? new Float(number) : number + 0;
}
