/* Prints values: as Python's str() and repr() do, and as JSON. */

import { TemplateError } from './lexer.js';
import { isStr, mapRuns, plain } from './text.js';
import {
  assemble,
  Callable,
  Dict,
  Facade,
  Float,
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
/** @typedef {import('./text.js').Str} Str */

/** A float as printed by Python's repr(). @param {number} value @returns {string} */
export function floatText(value) {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const [, sign, first, rest = '', power] = /** @type {RegExpExecArray} */ (
    /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(value.toExponential())
  );
  const exponent = Number(power);
  if (value !== 0 && (exponent < -4 || exponent >= 16)) {
    const digits = String(Math.abs(exponent)).padStart(2, '0');
    return `${sign}${first}${rest && `.${rest}`}e${exponent < 0 ? '-' : '+'}${digits}`;
  }
  if (Object.is(value, -0)) return '-0.0';
  const text = exponent < 0 ? `0.${'0'.repeat(-exponent - 1)}${first}${rest}` : '';
  if (text) return sign + text;
  const all = first + rest.padEnd(exponent, '0');
  return `${sign}${all.slice(0, exponent + 1)}.${all.slice(exponent + 1) || '0'}`;
}

const NAMED = new Map([
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\t', '\\t'],
  ['\\', '\\\\'],
]);

/** Characters that repr() escapes. */
const UNPRINTABLE = /[\\\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** @param {Str} text @returns {Str} */
function reprText(text) {
  const value = plain(text);
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
  const escaped = (/** @type {string} */ char) => {
    const named = NAMED.get(char);
    if (named) return named;
    const hex = Number(char.codePointAt(0)).toString(16);
    const [letter, digits] = hex.length <= 2 ? ['x', 2] : hex.length <= 4 ? ['u', 4] : ['U', 8];
    return `\\${letter}${hex.padStart(Number(digits), '0')}`;
  };
  return mapRuns(text, (run) =>
    run.replace(UNPRINTABLE, escaped).replaceAll(quote, quote === "'" ? "\\'" : '"'),
  );
}

/**
 * Appends the pieces of a value's repr() to a list.
 * @param {Value} value
 * @param {Budget} budget
 * @param {Str[]} out
 * @param {number} depth
 */
function writeRepr(value, budget, out, depth) {
  budget.spend(1);
  budget.nests(depth);
  const list = (/** @type {string} */ open, /** @type {Value[]} */ items, /** @type {string} */ close) => {
    out.push(open);
    for (const [i, item] of items.entries()) {
      if (i > 0) out.push(', ');
      writeRepr(item, budget, out, depth + 1);
    }
    out.push(close);
  };
  if (isStr(value)) {
    budget.makes(plain(value).length);
    const quote = plain(value).includes("'") && !plain(value).includes('"') ? '"' : "'";
    out.push(quote, reprText(value), quote);
  } else if (Array.isArray(value)) list('[', value, ']');
  else if (value instanceof Tuple) list('(', value.items, value.items.length === 1 ? ',)' : ')');
  else if (value instanceof View) list(`dict_${value.kind}([`, value.list, '])');
  else if (value instanceof Dict || value instanceof Namespace) {
    const isDict = value instanceof Dict;
    out.push(isDict ? '{' : '<Namespace {');
    const entries = isDict ? value.entries() : [...value.values];
    for (const [i, [key, one]] of entries.entries()) {
      if (i > 0) out.push(', ');
      writeRepr(key, budget, out, depth + 1);
      out.push(': ');
      writeRepr(one, budget, out, depth + 1);
    }
    out.push(isDict ? '}' : '}>');
  } else out.push(simpleRepr(value));
}

/** @param {Value} value @returns {string} */
function simpleRepr(value) {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return String(value);
  if (value instanceof Float) return floatText(value.value);
  if (value instanceof Undefined) return 'Undefined';
  if (value instanceof Range) {
    const { start, stop, step } = value;
    return `range(${start}, ${stop}${step === 1 ? '' : `, ${step}`})`;
  }
  if (value instanceof Stream) return `<${value.type} object>`;
  if (value instanceof Callable) return `<function ${value.name}>`;
  return value instanceof Facade ? `<${value.type}>` : typeName(value);
}

/** Python's repr(). @param {Value} value @param {Budget} budget @returns {Str} */
export function repr(value, budget) {
  /** @type {Str[]} */
  const out = [];
  writeRepr(value, budget, out, 0);
  return assemble(out, budget);
}

/** Python's str(). @param {Value} value @param {Budget} budget @returns {Str} */
export function str(value, budget) {
  if (isStr(value)) return value;
  if (value instanceof Undefined) return '';
  if (typeof value === 'number') return String(value);
  return repr(value, budget);
}

/** @param {Str} text @returns {Str} */
function jsonText(text, ascii = false) {
  return mapRuns(text, (run) => {
    const quoted = run.replace(/["\\\p{Cc}]/gu, (char) =>
      char < '\x7f' ? JSON.stringify(char).slice(1, -1) : char,
    );
    if (!ascii) return quoted;
    return quoted.replace(/[\x7f-\uffff]/g, (unit) =>
      unit === '\x7f' ? unit : `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
    );
  });
}

/**
 * @typedef {object} JsonStyle
 * @property {string | undefined} indent  Indentation of one level; undefined: everything on one
 *   line.
 * @property {[Str, Str]} separators  Separators of items, and of keys and values.
 * @property {boolean} sortKeys
 * @property {boolean} ascii  Whether to escape all characters that are not ASCII.
 */

/**
 * Python's json.dumps().
 * @param {Value} value
 * @param {JsonStyle} style
 * @param {Budget} budget
 * @returns {Str}
 */
export function json(value, style, budget) {
  /** @type {Str[]} */
  const out = [];
  const { indent, separators, sortKeys, ascii } = style;
  const line = (/** @type {number} */ depth) => {
    if (indent === undefined) return '';
    budget.makes(1 + indent.length * depth);
    return `\n${indent.repeat(depth)}`;
  };
  /**
   * @param {Value[]} items
   * @param {string} brackets
   * @param {number} depth
   * @param {(item: Value) => void} writeItem
   */
  const block = (items, brackets, depth, writeItem) => {
    if (items.length === 0) {
      out.push(brackets);
      return;
    }
    out.push(brackets[0]);
    for (const [i, item] of items.entries()) {
      if (i > 0) out.push(separators[0]);
      out.push(line(depth + 1));
      writeItem(item);
    }
    out.push(line(depth), brackets[1]);
  };
  /** @param {Str} text */
  const string = (text) => {
    budget.makes(plain(text).length);
    out.push('"', jsonText(text, ascii), '"');
  };
  /** @param {Value} one @param {number} depth */
  const write = (one, depth) => {
    budget.spend(1);
    budget.nests(depth);
    if (isStr(one)) string(one);
    else if (Array.isArray(one) || one instanceof Tuple)
      block(Array.isArray(one) ? one : one.items, '[]', depth, (item) => write(item, depth + 1));
    else if (one instanceof Dict) {
      const entries = one.entries();
      if (sortKeys) entries.sort(([a], [b]) => (plain(jsonKey(a)) < plain(jsonKey(b)) ? -1 : 1));
      block(entries, '{}', depth, ([key, item]) => {
        string(jsonKey(key));
        out.push(separators[1]);
        write(item, depth + 1);
      });
    } else out.push(jsonConstant(one));
  };
  write(value, 0);
  return assemble(out, budget);
}

/** @param {Value} value @returns {string} */
function jsonConstant(value) {
  if (value === null) return 'null';
  if (typeof value === 'boolean' || typeof value === 'number') return String(value);
  if (value instanceof Float) {
    const number = numberOf(value);
    if (Number.isNaN(number)) return 'NaN';
    return Number.isFinite(number) ? floatText(number) : number > 0 ? 'Infinity' : '-Infinity';
  }
  throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
}

/** @param {Value} key @returns {Str} */
function jsonKey(key) {
  if (isStr(key)) return key;
  if (Array.isArray(key) || key instanceof Tuple)
    throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
  return jsonConstant(key);
}
