/* Binds the arguments of filters, tests, methods and functions, by position and by name. */

import { TemplateError } from './lexer.js';
import { isStr, plain } from './text.js';
import { isNumber, numberOf, typeName, Undefined } from './values.js';

/** @typedef {import('./values.js').Value} Value */

/**
 * The arguments in the order of their names; undefined for those that are not given.
 * @param {string} what  name of the callee, for messages
 * @param {readonly string[]} names
 * @param {Value[]} args
 * @param {Map<string, Value>} named
 * @returns {(Value | undefined)[]}
 */
export function bind(what, names, args, named) {
  if (args.length > names.length)
    throw new TemplateError(`${what} takes at most ${names.length} argument(s), got ${args.length}`);
  const bound = names.map((_, i) => args[i]);
  for (const [name, value] of named) {
    const i = names.indexOf(name);
    if (i < 0) throw new TemplateError(`${what} got an unexpected keyword argument '${name}'`);
    if (i < args.length) throw new TemplateError(`${what} got multiple values for argument '${name}'`);
    bound[i] = value;
  }
  return bound;
}

/**
 * An integer argument, or its default.
 * @param {Value | undefined} value
 * @param {number} by
 * @param {string} what
 */
export function integer(value, by, what) {
  if (value === undefined) return by;
  if (value instanceof Undefined) value.fail();
  if (typeof value === 'number' || typeof value === 'boolean') return Number(value);
  throw new TemplateError(`${what}: '${typeName(value)}' object cannot be interpreted as an integer`);
}

/** A number argument. @param {Value} value @param {string} what */
export function number(value, what) {
  if (value instanceof Undefined) value.fail();
  if (isNumber(value)) return numberOf(value);
  throw new TemplateError(`${what}: must be a number, not ${typeName(value)}`);
}

/**
 * A string argument.
 * @param {Value | undefined} value
 * @param {string} what
 * @returns {import('./text.js').Str}
 */
export function text(value, what) {
  if (isStr(value)) return value;
  if (value instanceof Undefined) value.fail();
  throw new TemplateError(`${what}: must be str, not ${value === undefined ? 'missing' : typeName(value)}`);
}

/**
 * A string argument; undefined if it is none or not given.
 * @param {Value | undefined} value
 * @param {string} what
 */
export const optionalText = (value, what) =>
  value === undefined || value === null ? undefined : plain(text(value, what));
