/* The filters of Jinja2 that process lists. */

import { item } from './access.js';
import { binary } from './arithmetic.js';
import { bind, integer, text } from './calls.js';
import { TemplateError } from './lexer.js';
import { str } from './print.js';
import { join } from './strings.js';
import { chars, concat, isStr, mapWhole, plain } from './text.js';
import {
  compare,
  Dict,
  equal,
  Group,
  hash,
  iterate,
  lengthOf,
  Range,
  Stream,
  Tuple,
  truthy,
  typeName,
  Undefined,
} from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */
/** @typedef {import('./filters.js').Filter} Filter */
/** @typedef {import('./filters.js').Tools} Tools */

/** Strings in lower case, to compare them without regard to case. @param {Value} value */
const fold = (value) => (isStr(value) ? mapWhole(value, (one) => one.toLowerCase()) : value);

/**
 * Makes a function that finds an attribute such as 'a.b.0' of an item.
 * @param {Value | undefined} path  null or undefined: the item itself
 * @param {Budget} budget
 * @param {Value} [by]  value of a missing attribute
 * @returns {(value: Value) => Value}
 */
function getter(path, budget, by = null) {
  if (path === undefined || path === null) return (value) => value;
  const keys = isStr(path)
    ? plain(path)
        .split('.')
        .map((key) => (/^\d+$/.test(key) ? Number(key) : key))
    : [path];
  return (value) => {
    let found = value;
    for (const key of keys) {
      budget.spend(1);
      found = item(found, key, budget);
      if (found instanceof Undefined && by !== null) found = by;
    }
    return found;
  };
}

/** @param {Value[]} items @param {(a: Value, b: Value) => number} order @param {boolean} reverse */
const sorted = (items, order, reverse) => items.slice().sort(reverse ? (a, b) => order(b, a) : order);

/** @param {(value: boolean) => boolean} keep @param {boolean} ofAttribute @returns {Filter} */
const selection = (keep, ofAttribute) => ({
  run: (value, args, { budget, test }) => {
    if (!truthy(value)) return new Stream([]);
    const rest = args.slice();
    if (ofAttribute && rest.length === 0) throw new TemplateError('Missing parameter for attribute name');
    const get = ofAttribute ? getter(rest.shift(), budget) : (/** @type {Value} */ one) => one;
    const name = rest.shift();
    const passes = (/** @type {Value} */ one) =>
      name === undefined ? truthy(one) : test(plain(text(name, 'the name of a test')), one, rest);
    const items = iterate(value, budget).filter((one) => {
      budget.spend(1);
      return keep(passes(get(one)));
    });
    return new Stream(items);
  },
});

/** @param {number} sign @returns {Filter} */
const extreme = (sign) => ({
  names: ['case_sensitive', 'attribute'],
  run: (value, [exact = false, path], { budget }) => {
    const items = iterate(value, budget);
    if (items.length === 0) return new Undefined('No aggregated item, sequence was empty.');
    const get = getter(path, budget);
    const key = (/** @type {Value} */ one) => (truthy(exact) ? get(one) : fold(get(one)));
    let best = items[0];
    let bestKey = key(best);
    for (const one of items.slice(1)) {
      const oneKey = key(one);
      if (sign * compare(oneKey, bestKey, budget, sign > 0 ? '>' : '<') > 0) [best, bestKey] = [one, oneKey];
    }
    return best;
  },
});

/**
 * @param {Value[]} items
 * @param {(a: Value) => Value} key
 * @param {Budget} budget
 * @returns {(a: Value, b: Value) => number}
 */
const byKey = (items, key, budget) => {
  const keys = new Map(items.map((one) => [one, key(one)]));
  return (a, b) => compare(keys.get(a), keys.get(b), budget);
};

/** @type {Record<string, Filter>} */
export const LIST_FILTERS = {
  batch: {
    names: ['linecount', 'fill_with'],
    needs: 1,
    run: (value, [count, fill = null], { budget }) => {
      const size = integer(count, 0, 'linecount');
      const items = iterate(value, budget);
      /** @type {Value[][]} */
      const lines = [];
      let line = /** @type {Value[]} */ ([]);
      for (const one of items) {
        budget.spend(1);
        if (line.length === size) {
          lines.push(line);
          line = [];
        }
        line.push(one);
      }
      if (line.length > 0) {
        if (fill !== null && line.length < size) {
          budget.spend(size - line.length);
          while (line.length < size) line.push(fill);
        }
        lines.push(line);
      }
      return new Stream(lines);
    },
  },
  dictsort: {
    names: ['case_sensitive', 'by', 'reverse'],
    run: (value, [exact = false, by = 'key', reverse = false], { budget }) => {
      if (value instanceof Undefined) value.fail();
      if (!(value instanceof Dict))
        throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`);
      const at = ['key', 'value'].indexOf(plain(text(by, 'by')));
      if (at < 0) throw new TemplateError('You can only sort by either "key" or "value"');
      const pairs = value.entries().map((pair) => new Tuple(pair));
      const key = (/** @type {Tuple} */ pair) => (truthy(exact) ? pair.items[at] : fold(pair.items[at]));
      return sorted(pairs, byKey(pairs, key, budget), truthy(reverse));
    },
  },
  first: {
    names: [],
    run: (value, _, { budget }) => {
      const first =
        value instanceof Stream ? value.next() : isStr(value) ? chars(value)[0] : iterate(value, budget)[0];
      return first === undefined ? new Undefined('No first item, sequence was empty.') : first;
    },
  },
  groupby: {
    names: ['attribute', 'default', 'case_sensitive'],
    needs: 1,
    run: (value, [path, by = null, exact = false], { budget }) => {
      const get = getter(path, budget, by);
      const items = iterate(value, budget);
      const key = (/** @type {Value} */ one) => (truthy(exact) ? get(one) : fold(get(one)));
      /** @type {{ key: Value, items: Value[] }[]} */
      const groups = [];
      for (const one of sorted(items, byKey(items, key, budget), false)) {
        const last = groups.at(-1);
        if (last && equal(last.key, key(one), budget)) last.items.push(one);
        else groups.push({ key: key(one), items: [one] });
      }
      return groups.map((group) => new Group([get(group.items[0]), group.items]));
    },
  },
  items: {
    names: [],
    run: (value) => {
      if (value instanceof Undefined) return new Stream([]);
      if (!(value instanceof Dict)) throw new TemplateError('Can only get item pairs from a mapping.');
      return new Stream(value.entries().map((pair) => new Tuple(pair)));
    },
  },
  join: {
    names: ['d', 'attribute'],
    run: (value, [by = '', path], { budget }) => {
      const get = getter(path, budget);
      const parts = iterate(value, budget).map((one) => str(get(one), budget));
      return join(str(by, budget), parts, budget);
    },
  },
  last: {
    names: [],
    run: (value, _, { budget }) => {
      if (!isStr(value) && !(value instanceof Range) && lengthOf(value) === undefined)
        throw new TemplateError(`'${typeName(value)}' object is not reversible`);
      const items = isStr(value) ? chars(value) : iterate(value, budget);
      return items.length > 0 ? items[items.length - 1] : new Undefined('No last item, sequence was empty.');
    },
  },
  list: {
    names: [],
    run: (value, _, { budget }) => {
      const items = iterate(value, budget);
      budget.spend(items.length);
      return items.slice();
    },
  },
  map: {
    run: (value, args, { budget, filter }, named) => {
      if (!truthy(value)) return new Stream([]);
      if (args.length === 0 && named.has('attribute')) {
        const [path, by = null] = bind('map', ['attribute', 'default'], [], named);
        return new Stream(iterate(value, budget).map(getter(path, budget, by)));
      }
      if (args.length === 0) throw new TemplateError('map requires a filter argument');
      const name = plain(text(args[0], 'the name of a filter'));
      const rest = args.slice(1);
      return new Stream(
        iterate(value, budget).map((one) => {
          budget.spend(1);
          return filter(name, one, rest, named);
        }),
      );
    },
  },
  max: extreme(1),
  min: extreme(-1),
  reject: selection((passes) => !passes, false),
  rejectattr: selection((passes) => !passes, true),
  reverse: {
    names: [],
    run: (value, _, { budget }) => {
      if (isStr(value)) return concat(['', ...iterate(value, budget).reverse()]);
      const items = iterate(value, budget).slice().reverse();
      budget.spend(items.length);
      return value instanceof Stream ? items : new Stream(items, `${typeName(value)}_reverseiterator`);
    },
  },
  select: selection((passes) => passes, false),
  selectattr: selection((passes) => passes, true),
  slice: {
    names: ['slices', 'fill_with'],
    needs: 1,
    run: (value, [slices, fill = null], { budget }) => {
      const count = integer(slices, 0, 'slices');
      const items = iterate(value, budget).slice();
      if (count === 0) throw new TemplateError('integer division or modulo by zero');
      budget.spend(Math.max(0, count));
      const [size, longer] = [Math.floor(items.length / count), items.length % count];
      /** @type {Value[][]} */
      const parts = [];
      let at = 0;
      for (let i = 0; i < count; i++) {
        const end = at + size + (i < longer ? 1 : 0);
        const part = items.slice(at, end);
        if (fill !== null && i >= longer) part.push(fill);
        parts.push(part);
        at = end;
      }
      return new Stream(parts);
    },
  },
  sort: {
    names: ['reverse', 'case_sensitive', 'attribute'],
    run: (value, [reverse = false, exact = false, path], { budget }) => {
      const items = iterate(value, budget);
      const paths = isStr(path) ? plain(path).split(',') : [path];
      const getters = paths.map((one) => getter(one, budget));
      const keys = items.map((one, i) => ({
        i,
        key: getters.map((get) => (truthy(exact) ? get(one) : fold(get(one)))),
      }));
      const order = (/** @type {{ key: Value[] }} */ a, /** @type {{ key: Value[] }} */ b) =>
        compare(a.key, b.key, budget);
      return sorted(keys, order, truthy(reverse)).map(({ i }) => items[i]);
    },
  },
  sum: {
    names: ['attribute', 'start'],
    run: (value, [path, start = 0], { budget }) => {
      const get = getter(path, budget);
      let total = start;
      for (const one of iterate(value, budget)) {
        budget.spend(1);
        if (isStr(total)) throw new TemplateError("sum() can't sum strings [use ''.join(seq) instead]");
        total = binary('+', total, get(one), budget);
      }
      return total;
    },
  },
  unique: {
    names: ['case_sensitive', 'attribute'],
    run: (value, [exact = false, path], { budget }) => {
      const get = getter(path, budget);
      const seen = new Set();
      const items = iterate(value, budget).filter((one) => {
        budget.spend(1);
        const key = hash(truthy(exact) ? get(one) : fold(get(one)));
        return !seen.has(key) && Boolean(seen.add(key));
      });
      return new Stream(items);
    },
  },
  xmlattr: {
    names: ['autospace'],
    run: (value, [space = true], { budget, filter }) => {
      if (!(value instanceof Dict))
        throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`);
      const pairs = value
        .entries()
        .filter(([, one]) => one !== null && !(one instanceof Undefined))
        .map(([key, one]) => {
          if (/[\s/>=]/.test(plain(key))) throw new TemplateError('Invalid character in attribute name');
          return concat([
            filter('escape', key, [], new Map()),
            '="',
            filter('escape', one, [], new Map()),
            '"',
          ]);
        });
      const joined = join(' ', pairs, budget);
      return truthy(space) && plain(joined) ? concat([' ', joined]) : joined;
    },
  },
};
