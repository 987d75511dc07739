/* Attributes, items, slices and membership of values. */

import { bind, integer } from './calls.js';
import { formatMethod } from './format.js';
import { TemplateError } from './lexer.js';
import { repr } from './print.js';
import { STRING_METHODS } from './strings.js';
import { concat, countChars, cut, isStr, plain, unitAt } from './text.js';
import {
  Callable,
  Dict,
  equal,
  Facade,
  Group,
  isNumber,
  iterate,
  Namespace,
  numberOf,
  Range,
  Stream,
  Tuple,
  typeName,
  Undefined,
  View,
} from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */

/** Methods that change their object, which templates may not do. */
const CHANGES = {
  list: ['append', 'reverse', 'insert', 'sort', 'extend', 'remove'],
  dict: ['clear', 'pop', 'popitem', 'setdefault', 'update'],
};

/**
 * @param {string} name
 * @param {readonly string[]} names
 * @param {(args: (Value | undefined)[]) => Value} run
 */
const method = (name, names, run) =>
  new Callable(name, (args, named) => run(bind(`${name}()`, names, args, named)));

/**
 * @param {Dict} dict
 * @param {string} name
 * @param {Budget} budget
 * @returns {Callable | undefined}
 */
function dictMethod(dict, name, budget) {
  const spending = (/** @type {() => Value} */ run) =>
    method(name, [], () => {
      budget.spend(dict.size);
      return run();
    });
  switch (name) {
    case 'items':
      return method(
        name,
        [],
        () =>
          new View(
            'items',
            dict.entries().map((pair) => new Tuple(pair)),
          ),
      );
    case 'keys':
      return spending(() => new View('keys', dict.keys()));
    case 'values':
      return spending(() => new View('values', dict.values()));
    case 'copy':
      return spending(() => new Dict(dict.entries()));
    case 'get':
      return method(name, ['key', 'default'], ([key, by = null]) => (dict.has(key) ? dict.get(key) : by));
    default:
      return undefined;
  }
}

/**
 * @param {Value[]} list
 * @param {Value} value
 * @param {string} name
 * @param {Budget} budget
 * @returns {Callable | undefined}
 */
function listMethod(list, value, name, budget) {
  if (name === 'count')
    return method(name, ['value'], ([one]) => list.filter((item) => equal(item, one, budget)).length);
  if (name === 'index')
    return method(name, ['value', 'start', 'stop'], ([one, from, to]) => {
      const at = (/** @type {number} */ place) => (place < 0 ? Math.max(0, place + list.length) : place);
      const start = at(integer(from, 0, name));
      const end = Math.min(list.length, at(integer(to, list.length, name)));
      for (let i = start; i < end; i++) if (equal(list[i], one, budget)) return i;
      throw new TemplateError('the value is not in the list');
    });
  if (!Array.isArray(value)) return undefined;
  if (name === 'copy')
    return method(name, [], () => {
      budget.spend(list.length);
      return list.slice();
    });
  if (name === 'clear')
    return method(name, [], () => {
      list.length = 0;
      return null;
    });
  if (name === 'pop')
    return method(name, ['index'], ([index]) => {
      const place = integer(index, -1, name);
      const [item] = list.splice(place < 0 ? place + list.length : place, 1);
      if (item === undefined) throw new TemplateError('pop from empty list, or index out of range');
      return item;
    });
  return undefined;
}

/**
 * An attribute that is not an item; undefined if there is none.
 * @param {Value} value
 * @param {string} name
 * @param {Budget} budget
 * @returns {Value | undefined}
 */
function ownAttribute(value, name, budget) {
  if (value instanceof Facade) return value.attribute(name);
  if (value instanceof Namespace) return value.values.get(name);
  if (isStr(value)) {
    if (name === 'format' || name === 'format_map')
      return new Callable(name, (args, named) => {
        const tools = {
          budget,
          attribute: (/** @type {Value} */ of, /** @type {string} */ key) => attribute(of, key, budget),
          item: (/** @type {Value} */ of, /** @type {Value} */ key) => item(of, key, budget),
        };
        if (name === 'format') return formatMethod(value, args, named, tools);
        const map = new Map(
          (args[0] instanceof Dict ? args[0].entries() : []).map(([key, one]) => [plain(key), one]),
        );
        return formatMethod(value, [], map, tools);
      });
    if (!Object.hasOwn(STRING_METHODS, name)) return undefined;
    const { names, run } = STRING_METHODS[name];
    return method(name, names, (args) => {
      for (const one of [value, ...args]) if (isStr(one)) budget.reads(plain(one).length);
      return run(value, args, budget);
    });
  }
  const type = typeName(value);
  if (CHANGES[/** @type {'list'} */ (type)]?.includes(name))
    throw new TemplateError(
      `access to attribute '${name}' of '${type}' object is unsafe: it changes the ${type}`,
    );
  if (value instanceof Dict) return dictMethod(value, name, budget);
  if (value instanceof Group && name === 'grouper') return value.items[0];
  if (value instanceof Group && name === 'list') return value.items[1];
  if (Array.isArray(value)) return listMethod(value, value, name, budget);
  if (value instanceof Tuple) return listMethod(value.items, value, name, budget);
  if (value instanceof Range && ['start', 'stop', 'step'].includes(name))
    return value[/** @type {'start'} */ (name)];
  if (value instanceof Callable && name === 'name') return value.name;
  return undefined;
}

/** @param {Value} value @param {string} what */
const missing = (value, what) =>
  new Undefined(value === null ? `None has no ${what}` : `'${typeName(value)} object' has no ${what}`);

/**
 * value.name, looked up as in Jinja2.
 * @param {Value} value
 * @param {string} name
 * @param {Budget} budget
 * @returns {Value}
 */
export function attribute(value, name, budget) {
  if (value instanceof Undefined) value.fail();
  const own = name.startsWith('_') ? undefined : ownAttribute(value, name, budget);
  if (own !== undefined) return own;
  if (value instanceof Dict && value.has(name)) return value.get(name);
  return missing(value, `attribute '${name}'`);
}

/**
 * value[key], looked up as in Jinja2.
 * @param {Value} value
 * @param {Value} key
 * @param {Budget} budget
 * @returns {Value}
 */
export function item(value, key, budget) {
  if (value instanceof Undefined) value.fail();
  if (isStr(value)) budget.reads(plain(value).length);
  if (value instanceof Dict) {
    if (value.has(key)) return value.get(key);
  } else if (typeof key === 'number' || typeof key === 'boolean') {
    const found = itemAt(value, Number(key));
    if (found !== undefined) return found;
  }
  if (isStr(key) && !plain(key).startsWith('_')) {
    const own = ownAttribute(value, plain(key), budget);
    if (own !== undefined) return own;
  }
  if (key instanceof Undefined && !(value instanceof Dict)) key.fail();
  return missing(value, `attribute ${plain(repr(key, budget))}`);
}

/** @param {Value} value @param {number} index @returns {Value | undefined} */
function itemAt(value, index) {
  if (isStr(value)) {
    const count = countChars(plain(value));
    const place = index < 0 ? index + count : index;
    if (place < 0 || place >= count) return undefined;
    const start = unitAt(plain(value), place);
    return cut(value, start, start + String.fromCodePoint(Number(plain(value).codePointAt(start))).length);
  }
  const list = value instanceof Tuple ? value.items : value;
  if (!Array.isArray(list) && !(list instanceof Range)) return undefined;
  const place = index < 0 ? index + list.length : index;
  if (place < 0 || place >= list.length) return undefined;
  return list instanceof Range ? list.at(place) : list[place];
}

/**
 * value[start:stop:step].
 * @param {Value} value
 * @param {(Value | undefined)[]} parts
 * @param {Budget} budget
 * @returns {Value}
 */
export function slice(value, parts, budget) {
  if (value instanceof Undefined) value.fail();
  // As elsewhere, a key of a wrong type finds nothing.
  const wrong = parts.some((part) => part !== undefined && part !== null && !Number.isInteger(Number(part)));
  if (wrong || parts.some(isStr)) return missing(value, 'such slices');
  const [start, stop, step] = parts.map((part) =>
    part === undefined || part === null ? undefined : Number(part),
  );
  const by = step ?? 1;
  if (by === 0) throw new TemplateError('slice step cannot be zero');
  const text = isStr(value);
  if (isStr(value)) budget.reads(plain(value).length);
  const list = text
    ? []
    : value instanceof Tuple
      ? value.items
      : value instanceof Range
        ? iterate(value, budget)
        : value;
  if (!Array.isArray(list)) return missing(value, 'slices');
  const length = text ? countChars(plain(value)) : list.length;
  const clamp = (/** @type {number | undefined} */ place, /** @type {number} */ otherwise) => {
    if (place === undefined) return otherwise;
    const low = by < 0 ? -1 : 0;
    return Math.min(length + (by < 0 ? -1 : 0), Math.max(low, place < 0 ? place + length : place));
  };
  const from = clamp(start, by < 0 ? length - 1 : 0);
  const to = clamp(stop, by < 0 ? -1 : length);
  if (text && by === 1)
    return from < to ? cut(value, unitAt(plain(value), from), unitAt(plain(value), to)) : '';
  const items = text ? iterate(value, budget) : list;
  /** @type {Value[]} */
  const out = [];
  for (let i = from; by > 0 ? i < to : i > to; i += by) out.push(items[i]);
  budget.spend(out.length);
  if (text) return concat(['', ...out]);
  return value instanceof Tuple ? new Tuple(out) : out;
}

/**
 * part in value.
 * @param {Value} part
 * @param {Value} value
 * @param {Budget} budget
 * @returns {boolean}
 */
export function contains(part, value, budget) {
  if (isStr(value)) {
    if (part instanceof Undefined) part.fail();
    if (!isStr(part))
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(part)}`);
    budget.spend(1 + Math.floor(plain(value).length / 1000));
    return plain(value).includes(plain(part));
  }
  if (value instanceof Dict) return value.has(part);
  if (value instanceof Range) {
    if (!isNumber(part)) return false;
    const place = (numberOf(part) - value.start) / value.step;
    return Number.isInteger(place) && place >= 0 && place < value.length;
  }
  if (value instanceof Stream) {
    for (let one = value.next(); one !== undefined; one = value.next())
      if (equal(one, part, budget)) return true;
    return false;
  }
  if (
    !Array.isArray(value) &&
    !(value instanceof Tuple || value instanceof View || value instanceof Undefined)
  )
    throw new TemplateError(`argument of type '${typeName(value)}' is not iterable`);
  return iterate(value, budget).some((one) => one === part || equal(one, part, budget));
}
