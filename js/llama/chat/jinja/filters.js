/* The filters of Jinja2: value | name(arguments). Filters of lists are in list-filters.js. */

import { attribute } from './access.js';
import { bind, integer, number, optionalText, text } from './calls.js';
import { fixed, percent } from './format.js';
import { TemplateError } from './lexer.js';
import { LIST_FILTERS } from './list-filters.js';
import { json, repr, str } from './print.js';
import { capitalize, replace, rsplit, STRING_METHODS, splitLines } from './strings.js';
import { concat, countChars, cut, isStr, mapRuns, mapWhole, plain, strip, unitAt } from './text.js';
import {
  assemble,
  Dict,
  Float,
  isNumber,
  itemsOf,
  iterate,
  lengthOf,
  numberOf,
  Tuple,
  truthy,
  typeName,
  Undefined,
} from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */
/** @typedef {import('./text.js').Str} Str */

/**
 * @typedef {object} Tools  Functions of the engine that filters use.
 * @property {Budget} budget
 * @property {(name: string, value: Value, args: Value[], named: Map<string, Value>) => Value}
 *   filter  Applies another filter.
 * @property {(name: string, value: Value, args: Value[]) => boolean} test  Applies a test.
 */

/**
 * A filter with the names of its parameters, undefined if it takes any; `needs` of them are
 * required.
 * @typedef {{ names?: readonly string[], needs?: number,
 *   run: (value: Value, args: (Value | undefined)[], tools: Tools, named: Map<string, Value>) =>
 *     Value }} Filter
 */

/** @param {Value} value @returns {number} */
function count(value) {
  const length = isStr(value) ? countChars(plain(value)) : lengthOf(value);
  if (length === undefined) throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
  return length;
}

/** @param {(value: string) => string} change @returns {Filter} */
const letters = (change) => ({
  names: [],
  run: (value, _, { budget }) => {
    const given = str(value, budget);
    budget.makes(plain(given).length);
    return mapWhole(given, change);
  },
});

/** @param {string} value */
const titleWords = (value) =>
  value
    .split(/([-\s({[<]+)/)
    .map((word) => word.slice(0, unitAt(word, 1)).toUpperCase() + word.slice(unitAt(word, 1)).toLowerCase())
    .join('');

const HTML = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'],
  ["'", '&#39;'],
  ['"', '&#34;'],
]);

/** @type {Filter} */
const escapeHtml = {
  names: [],
  run: (value, _, { budget }) => {
    const given = str(value, budget);
    budget.makes(plain(given).length * 5);
    return mapRuns(given, (run) => run.replace(/[&<>'"]/g, (char) => String(HTML.get(char))));
  },
};

/** @type {Filter} */
const length = { names: [], run: (value) => count(value) };

/** @type {Filter} */
const byDefault = {
  names: ['default_value', 'boolean'],
  run: (value, [by = '', boolean = false]) =>
    value instanceof Undefined || (truthy(boolean) && !truthy(value)) ? by : value,
};

/** @param {string} value @param {number} base @returns {number | undefined} */
function parseInteger(value, base) {
  const given = plain(strip(value, undefined, { left: true, right: true })).toLowerCase();
  const prefix = { 2: '0b', 8: '0o', 16: '0x' }[base];
  const match = /^([+-]?)(.*)$/s.exec(given);
  let digits = match?.[2] ?? '';
  if (prefix && digits.startsWith(prefix)) digits = digits.slice(2);
  if (!/^[\da-z]+(_[\da-z]+)*$/.test(digits)) return undefined;
  digits = digits.replaceAll('_', '');
  for (const digit of digits) if (Number.isNaN(Number.parseInt(digit, base))) return undefined;
  const result = Number.parseInt(digits, base) * (match?.[1] === '-' ? -1 : 1);
  if (!Number.isSafeInteger(result)) throw new TemplateError('an integer becomes larger than 2^53');
  return result + 0;
}

/** @param {string} value @returns {number | undefined} */
function parseFloatText(value) {
  const given = plain(strip(value, undefined, { left: true, right: true }))
    .toLowerCase()
    .replace(/(\d)_(?=\d)/g, '$1');
  if (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/.test(given)) return Number(given);
  const named = /^([+-]?)(inf|infinity|nan)$/.exec(given);
  if (!named) return undefined;
  return named[2] === 'nan'
    ? Number.NaN
    : named[1] === '-'
      ? Number.NEGATIVE_INFINITY
      : Number.POSITIVE_INFINITY;
}

/** Python's round(), which rounds halves to even. @param {number} value @param {number} places */
function round(value, places) {
  if (!Number.isFinite(value) || places > 22) return value;
  if (places < -308) return 0;
  if (places >= 0) return Number(fixed(Math.abs(value), places)) * (value < 0 ? -1 : 1);
  const unit = 10 ** -places;
  const scaled = Math.abs(value) / unit;
  const down = Math.floor(scaled);
  const up = scaled - down > 0.5 || (scaled - down === 0.5 && down % 2 === 1);
  return (down + Number(up)) * unit * (value < 0 ? -1 : 1);
}

/**
 * Removes everything between two marks, and the marks.
 * @param {string} value
 * @param {string} open
 * @param {string} close
 */
function without(value, open, close) {
  /** @type {string[]} */
  const parts = [];
  let at = 0;
  for (let start = value.indexOf(open); start >= 0; start = value.indexOf(open, at)) {
    const end = value.indexOf(close, start);
    if (end < 0) break;
    parts.push(value.slice(at, start));
    at = end + close.length;
  }
  return parts.join('') + value.slice(at);
}

const CHARACTERS = new Map(Array.from(HTML, ([char, entity]) => [entity, char]));

/** @param {string} value */
const withoutTags = (value) =>
  without(without(value, '<!--', '-->'), '<', '>')
    .split(/\s+/)
    .filter(Boolean)
    .join(' ')
    .replaceAll('&quot;', '"')
    .replace(/&(?:lt|gt|amp|#39|#34);/g, (entity) => String(CHARACTERS.get(entity)));

const DICT_METHODS = ['items', 'keys', 'values', 'get', 'copy'];

/** @type {Record<string, Filter>} */
const TEXT_FILTERS = {
  abs: {
    names: [],
    run: (value) => {
      const size = Math.abs(number(value, 'abs()'));
      return value instanceof Float ? new Float(size) : size;
    },
  },
  attr: {
    names: ['name'],
    run: (value, [name], { budget }) => {
      const key = plain(text(name, 'attr'));
      // Unlike value.name, this filter finds no keys of a dict.
      if (value instanceof Dict && !DICT_METHODS.includes(key))
        return new Undefined(`'dict object' has no attribute '${key}'`);
      return attribute(value, key, budget);
    },
  },
  capitalize: letters(capitalize),
  center: {
    names: ['width'],
    run: (value, [width = 80], { budget }) => STRING_METHODS.center.run(str(value, budget), [width], budget),
  },
  count: length,
  d: byDefault,
  default: byDefault,
  e: escapeHtml,
  escape: escapeHtml,
  forceescape: escapeHtml,
  filesizeformat: {
    names: ['binary'],
    run: (value, [binary = false]) => {
      const bytes = isStr(value)
        ? (parseFloatText(plain(value)) ?? Number.NaN)
        : number(value, 'filesizeformat');
      const base = truthy(binary) ? 1024 : 1000;
      if (bytes === 1) return '1 Byte';
      if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
      const power = Math.min(8, Math.floor(Math.log(bytes) / Math.log(base) + 1e-12));
      const letter = truthy(binary) ? `${'KMGTPEZY'[power - 1]}i` : 'kMGTPEZY'[power - 1];
      return `${fixed(bytes / base ** power, 1)} ${letter}B`;
    },
  },
  float: {
    names: ['default'],
    run: (value, [by = new Float(0)]) => {
      if (value instanceof Undefined) value.fail();
      if (isNumber(value)) return new Float(numberOf(value));
      const parsed = isStr(value) ? parseFloatText(plain(value)) : undefined;
      return parsed === undefined ? by : new Float(parsed);
    },
  },
  format: {
    run: (value, args, { budget }, named) => {
      if (args.length > 0 && named.size > 0)
        throw new TemplateError("can't handle positional and keyword arguments at the same time");
      return percent(str(value, budget), named.size > 0 ? new Dict(named) : new Tuple(args), budget);
    },
  },
  indent: {
    names: ['width', 'first', 'blank'],
    run: (value, [width = 4, first = false, blank = false], { budget }) => {
      const given = text(value, 'indent');
      const by = isStr(width) ? width : STRING_METHODS.ljust.run('', [integer(width, 4, 'width')], budget);
      const lines = splitLines(concat([given, '\n']), false, budget);
      /** @type {Str[]} */
      const parts = truthy(first) ? [by] : [];
      let length = 0;
      for (const [i, line] of lines.entries()) {
        if (i > 0) parts.push('\n');
        if (i > 0 && (truthy(blank) || plain(line) !== '')) parts.push(by);
        parts.push(line);
        length += plain(line).length + plain(by).length;
        budget.fits(length);
      }
      return assemble(parts, budget);
    },
  },
  int: {
    names: ['default', 'base'],
    run: (value, [by = 0, base]) => {
      if (value instanceof Undefined) value.fail();
      if (isNumber(value)) {
        if (Number.isFinite(numberOf(value))) return Math.trunc(numberOf(value)) + 0;
        if (Number.isNaN(numberOf(value))) return by;
        throw new TemplateError('cannot convert float infinity to integer');
      }
      if (!isStr(value)) return by;
      const whole = parseInteger(plain(value), integer(base, 10, 'base'));
      const parsed = whole ?? parseFloatText(plain(value));
      return parsed === undefined || !Number.isFinite(parsed) ? by : Math.trunc(parsed) + 0;
    },
  },
  length,
  lower: letters((value) => value.toLowerCase()),
  pprint: { names: [], run: (value, _, { budget }) => repr(value, budget) },
  replace: {
    names: ['old', 'new', 'count'],
    needs: 2,
    run: (value, [old, by, most], { budget }) => {
      const limit = most === undefined || most === null ? -1 : integer(most, -1, 'count');
      return replace(str(value, budget), plain(str(old, budget)), str(by, budget), limit, budget);
    },
  },
  round: {
    names: ['precision', 'method'],
    run: (value, [precision, method = 'common']) => {
      const places = integer(precision, 0, 'precision');
      const given = number(value, 'round');
      const how = plain(text(method, 'method'));
      if (how === 'common') {
        const rounded = round(given, places);
        return value instanceof Float ? new Float(rounded) : rounded;
      }
      if (how !== 'ceil' && how !== 'floor') throw new TemplateError('method must be common, ceil or floor');
      return new Float(Math[how](given * 10 ** places) / 10 ** places);
    },
  },
  safe: { names: [], run: (value, _, { budget }) => str(value, budget) },
  string: { names: [], run: (value, _, { budget }) => str(value, budget) },
  striptags: {
    names: [],
    run: (value, _, { budget }) => {
      const given = str(value, budget);
      budget.makes(plain(given).length);
      return mapWhole(given, withoutTags);
    },
  },
  title: letters(titleWords),
  tojson: {
    names: ['ensure_ascii', 'indent', 'separators', 'sort_keys'],
    run: (value, [ascii = false, indent = null, separators = null, sortKeys = false], { budget }) => {
      /** @type {string | undefined} */
      let unit;
      if (isStr(indent)) unit = plain(indent);
      else if (indent !== null)
        unit = plain(STRING_METHODS.ljust.run('', [integer(indent, 0, 'indent')], budget));
      const list = separators instanceof Tuple ? separators.items : separators;
      if (list !== null && !(Array.isArray(list) && list.length === 2 && list.every(isStr)))
        throw new TemplateError('separators must be two texts');
      const pair = /** @type {[Str, Str]} */ (list ?? [unit === undefined ? ', ' : ',', ': ']);
      const style = { indent: unit, separators: pair, sortKeys: truthy(sortKeys), ascii: truthy(ascii) };
      return json(value, style, budget);
    },
  },
  trim: {
    names: ['chars'],
    run: (value, [set], { budget }) =>
      strip(str(value, budget), optionalText(set, 'trim'), { left: true, right: true }),
  },
  truncate: {
    names: ['length', 'killwords', 'end', 'leeway'],
    run: (value, [limit, kill = false, end = '...', leeway], { budget }) => {
      const given = text(value, 'truncate');
      const most = integer(limit, 255, 'length');
      const rest = most - countChars(plain(text(end, 'end')));
      if (rest < 0) throw new TemplateError(`expected length >= ${most - rest}, got ${most}`);
      if (countChars(plain(given)) <= most + integer(leeway, 5, 'leeway')) return given;
      const head = cut(given, 0, unitAt(plain(given), rest));
      return assemble([truthy(kill) ? head : rsplit(head, ' ', 1, budget)[0], end], budget);
    },
  },
  upper: letters((value) => value.toUpperCase()),
  urlencode: {
    names: [],
    run: (value, _, { budget }) => {
      const entries =
        value instanceof Dict ? value.entries() : isStr(value) ? undefined : itemsOf(value, budget);
      const inQuery = entries !== undefined && !(value instanceof Undefined);
      const quote = (/** @type {Value} */ one) => {
        const given = str(one, budget);
        budget.makes(plain(given).length * 9);
        return mapRuns(given, (run) =>
          encodeURIComponent(run.replace(/\p{Cs}/gu, '\ufffd'))
            .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
            .replaceAll(inQuery ? '%20' : '%2F', inQuery ? '+' : '/'),
        );
      };
      if (!inQuery) return quote(value);
      const pairs = entries.map((pair) => {
        const [key, one] = value instanceof Dict ? pair : iterate(pair, budget);
        return concat([quote(key), '=', quote(one)]);
      });
      return assemble(
        pairs.flatMap((pair, i) => (i > 0 ? ['&', pair] : [pair])),
        budget,
      );
    },
  },
  wordcount: {
    names: [],
    run: (value, _, { budget }) => plain(str(value, budget)).match(/[\p{L}\p{N}\p{M}_]+/gu)?.length ?? 0,
  },
};

/** @type {Record<string, Filter>} */
const FILTERS = { ...TEXT_FILTERS, ...LIST_FILTERS };

/** @param {string} name */
export const hasFilter = (name) => Object.hasOwn(FILTERS, name);

/**
 * @param {string} name
 * @param {Value} value
 * @param {Value[]} args
 * @param {Map<string, Value>} named
 * @param {Tools} tools
 * @returns {Value}
 */
export function runFilter(name, value, args, named, tools) {
  if (!hasFilter(name)) throw new TemplateError(`No filter named '${name}'`);
  const { names, needs = 0, run } = FILTERS[name];
  for (const one of [value, ...args]) if (isStr(one)) tools.budget.reads(plain(one).length);
  if (!names) return run(value, args, tools, named);
  const bound = bind(`the filter '${name}'`, names, args, named);
  const absent = names.find((_, i) => i < needs && bound[i] === undefined);
  if (absent) throw new TemplateError(`the filter '${name}' needs the argument '${absent}'`);
  return run(value, bound, tools, named);
}
