/* The values of a template: those of Python, as far as templates need them.
 *
 * None is null, a bool is a boolean, an int is a number, a float is a Float, a str is a string or a
 * Text, and a list is an array. The other types are classes of this file. */

import { TemplateError } from './lexer.js';
import { chars, concat, isStr, plain } from './text.js';

/** @typedef {any} Value */
/** @typedef {import('./limits.js').Budget} Budget */

/**
 * A name, an attribute or an item that does not exist. It prints as nothing; all other uses fail.
 */
export class Undefined {
  /** @param {string} what  message of a failure, e.g. "'x' is undefined" */
  constructor(what) {
    this.what = what;
  }

  /** @returns {never} */
  fail() {
    throw new TemplateError(this.what);
  }
}

/** A float: Python prints it with a point. */
export class Float {
  /** @param {number} value */
  constructor(value) {
    this.value = value;
  }
}

export class Tuple {
  /** @param {Value[]} items */
  constructor(items) {
    this.items = items;
  }
}

/** A tuple of a grouper and its items, from groupby. */
export class Group extends Tuple {}

/** The numbers of a range(). */
export class Range {
  /** @param {number} start @param {number} stop @param {number} step */
  constructor(start, stop, step) {
    this.start = start;
    this.stop = stop;
    this.step = step;
    this.length = Math.max(0, Math.ceil((stop - start) / step));
  }

  /** @param {number} index */
  at(index) {
    return this.start + index * this.step;
  }
}

/** An iterator that can be read once, such as the result of `map`. */
export class Stream {
  #items;
  #at = 0;

  /** @param {Value[]} items @param {string} [type]  name of the type in Python */
  constructor(items, type = 'generator') {
    this.#items = items;
    this.type = type;
  }

  /** The remaining items. @returns {Value[]} */
  take() {
    const rest = this.#items.slice(this.#at);
    this.#at = this.#items.length;
    return rest;
  }

  /** The next item, or undefined at the end. @returns {Value | undefined} */
  next() {
    return this.#at < this.#items.length ? this.#items[this.#at++] : undefined;
  }
}

/** Keys, values or items of a dict. */
export class View {
  /** @param {'keys' | 'values' | 'items'} kind @param {Value[]} list */
  constructor(kind, list) {
    this.kind = kind;
    this.list = list;
  }
}

export class Namespace {
  /** @type {Map<string, Value>} */
  values = new Map();
}

/** A function, a macro or a method. */
export class Callable {
  /**
   * @param {string} name
   * @param {(args: Value[], named: Map<string, Value>) => Value | Generator<undefined, Value,
   *   void>} call
   */
  constructor(name, call) {
    this.name = name;
    this.call = call;
  }
}

/** An object of the engine with attributes, such as `loop`. */
export class Facade {
  /**
   * @param {string} type
   * @param {(name: string) => Value | undefined} attribute
   * @param {Callable['call']} [call]
   */
  constructor(type, attribute, call) {
    this.type = type;
    this.attribute = attribute;
    this.call = call;
  }
}

/** A dict. It keeps the order of its keys, and 1, 1.0 and true are the same key, as in Python. */
export class Dict {
  /** @type {Map<unknown, [Value, Value]>} */
  #entries = new Map();

  /** @param {Iterable<[Value, Value]>} [entries] */
  constructor(entries = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  get size() {
    return this.#entries.size;
  }

  /** @param {Value} key */
  has(key) {
    return this.#entries.has(hash(key));
  }

  /** @param {Value} key @returns {Value | undefined} */
  get(key) {
    return this.#entries.get(hash(key))?.[1];
  }

  /** @param {Value} key @param {Value} value */
  set(key, value) {
    const hashed = hash(key);
    this.#entries.set(hashed, [this.#entries.get(hashed)?.[0] ?? key, value]);
  }

  keys() {
    return Array.from(this.#entries.values(), ([key]) => key);
  }

  values() {
    return Array.from(this.#entries.values(), ([, value]) => value);
  }

  /** @returns {[Value, Value][]} */
  entries() {
    return [...this.#entries.values()];
  }
}

/**
 * A key for a Map: equal for values that are equal in Python.
 * @param {Value} key
 * @returns {unknown}
 */
export function hash(key) {
  if (isStr(key)) return plain(key);
  if (typeof key === 'boolean') return Number(key);
  if (key instanceof Float) return key.value;
  if (key instanceof Tuple) {
    const deep = key.items.find((one) => one instanceof Tuple);
    if (deep) throw new TemplateError('a tuple of tuples cannot be a key here');
    return `\0(${key.items.map((one) => `${typeof one}:${String(hash(one))}`).join('\0')})`;
  }
  if (Array.isArray(key) || key instanceof Dict)
    throw new TemplateError(`unhashable type: '${typeName(key)}'`);
  return key;
}

/** Name of a value's type in Python. @param {Value} value @returns {string} */
export function typeName(value) {
  if (value === null) return 'NoneType';
  if (isStr(value)) return 'str';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return 'int';
  if (value instanceof Float) return 'float';
  if (Array.isArray(value)) return 'list';
  if (value instanceof Tuple) return 'tuple';
  if (value instanceof Dict) return 'dict';
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof Range) return 'range';
  if (value instanceof View) return `dict_${value.kind}`;
  if (value instanceof Stream || value instanceof Facade) return value.type;
  return value instanceof Namespace ? 'Namespace' : 'function';
}

/** Tells whether a value is a number; booleans are. @param {Value} value */
export const isNumber = (value) =>
  typeof value === 'number' || typeof value === 'boolean' || value instanceof Float;

/** @param {Value} value  a value that isNumber accepts @returns {number} */
export const numberOf = (value) => (value instanceof Float ? value.value : Number(value));

/** @param {Value} value @returns {boolean} */
export function truthy(value) {
  if (value === null || value instanceof Undefined) return false;
  if (isStr(value)) return plain(value) !== '';
  if (isNumber(value)) return numberOf(value) !== 0;
  if (Array.isArray(value) || value instanceof Range) return value.length > 0;
  if (value instanceof Tuple) return value.items.length > 0;
  if (value instanceof Dict) return value.size > 0;
  if (value instanceof View) return value.list.length > 0;
  return true;
}

/**
 * The items of an iterable value; undefined for any other value.
 * @param {Value} value
 * @param {Budget} budget
 * @returns {Value[] | undefined}
 */
export function itemsOf(value, budget) {
  if (Array.isArray(value)) return value;
  if (value instanceof Tuple) return value.items;
  if (value instanceof View) return value.list;
  if (value instanceof Undefined) return [];
  if (value instanceof Dict) {
    budget.spend(value.size);
    return value.keys();
  }
  if (isStr(value)) {
    budget.spend(plain(value).length);
    return chars(value);
  }
  if (value instanceof Stream) {
    const rest = value.take();
    budget.spend(rest.length);
    return rest;
  }
  if (value instanceof Range) {
    budget.spend(value.length);
    return Array.from({ length: value.length }, (_, i) => value.at(i));
  }
  return undefined;
}

/**
 * The items of an iterable value; throws for any other value.
 * @param {Value} value
 * @param {Budget} budget
 * @returns {Value[]}
 */
export function iterate(value, budget) {
  const items = itemsOf(value, budget);
  if (!items) throw new TemplateError(`'${typeName(value)}' object is not iterable`);
  return items;
}

/** @param {Value} value @returns {number | undefined} */
export function lengthOf(value) {
  if (Array.isArray(value) || value instanceof Range) return value.length;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof View) return value.list.length;
  return value instanceof Undefined ? 0 : undefined;
}

/**
 * Python's ==.
 * @param {Value} a
 * @param {Value} b
 * @param {Budget} budget
 * @param {number} [depth]
 * @returns {boolean}
 */
export function equal(a, b, budget, depth = 0) {
  budget.spend(1);
  budget.nests(depth);
  if (isStr(a) || isStr(b)) {
    if (!isStr(a) || !isStr(b) || plain(a).length !== plain(b).length) return false;
    budget.reads(plain(a).length);
    return plain(a) === plain(b);
  }
  if (isNumber(a) || isNumber(b)) return isNumber(a) && isNumber(b) && numberOf(a) === numberOf(b);
  if (a instanceof Undefined) return b instanceof Undefined;
  const lists = (Array.isArray(a) && Array.isArray(b)) || (a instanceof Tuple && b instanceof Tuple);
  if (lists) {
    const [left, right] = [iterate(a, budget), iterate(b, budget)];
    return left.length === right.length && left.every((item, i) => equal(item, right[i], budget, depth + 1));
  }
  if (a instanceof Dict && b instanceof Dict) {
    if (a.size !== b.size) return false;
    return a.entries().every(([key, value]) => b.has(key) && equal(value, b.get(key), budget, depth + 1));
  }
  if (a instanceof Range && b instanceof Range)
    return a.length === b.length && (a.length === 0 || (a.start === b.start && a.step === b.step));
  return a === b;
}

/**
 * Python's order of two values: below 0, 0 or above 0.
 * @param {Value} a
 * @param {Value} b
 * @param {Budget} budget
 * @param {string} [operator]  operator for the message
 * @param {number} [depth]
 * @returns {number}
 */
export function compare(a, b, budget, operator = '<', depth = 0) {
  budget.spend(1);
  budget.nests(depth);
  if (isNumber(a) && isNumber(b)) return numberOf(a) - numberOf(b);
  if (isStr(a) && isStr(b)) {
    budget.reads(plain(a).length);
    return compareText(plain(a), plain(b));
  }
  const lists = (Array.isArray(a) && Array.isArray(b)) || (a instanceof Tuple && b instanceof Tuple);
  if (lists) {
    const [left, right] = [iterate(a, budget), iterate(b, budget)];
    for (let i = 0; i < Math.min(left.length, right.length); i++)
      if (!equal(left[i], right[i], budget, depth + 1))
        return compare(left[i], right[i], budget, operator, depth + 1);
    return left.length - right.length;
  }
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  throw new TemplateError(
    `'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`,
  );
}

/** Compares two strings by their code points. @param {string} a @param {string} b */
function compareText(a, b) {
  let at = 0;
  while (at < a.length && at < b.length && a[at] === b[at]) at += 1;
  if (at >= a.length || at >= b.length) return a.length - b.length;
  // If the strings differ in the second half of a surrogate pair, the whole pair must be compared.
  const low = (/** @type {string} */ text) => /[\udc00-\udfff]/.test(text[at]);
  if (at > 0 && low(a) && low(b)) at -= 1;
  return Number(a.codePointAt(at)) - Number(b.codePointAt(at));
}

/**
 * Joins strings, within the budget.
 * @param {import('./text.js').Str[]} parts
 * @param {Budget} budget
 */
export function assemble(parts, budget) {
  let length = 0;
  for (const part of parts) length += plain(part).length;
  budget.makes(length);
  return concat(parts);
}
