/* Python's two ways to format a string: "%s" % x and "{}".format(x). */

import { TemplateError } from './lexer.js';
import { floatText, repr, str } from './print.js';
import { concat, countChars, cut, isStr, plain, unitAt } from './text.js';
import { assemble, Dict, Float, isNumber, numberOf, Tuple, typeName, Undefined } from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */
/** @typedef {import('./text.js').Str} Str */

/**
 * The digits of a number, without its sign.
 * @param {number} value
 * @param {string} type  one of d, b, o, x, X, e, E, f, F, g, G, %, or empty for the default of
 *   floats
 * @param {number | undefined} precision
 * @param {boolean} alternate  add a prefix such as 0x
 * @returns {string}
 */
function digits(value, type, precision, alternate) {
  const size = Math.abs(value);
  if (precision !== undefined && precision > 100)
    throw new TemplateError(`a precision of ${precision} is above 100`);
  const base = { b: 2, o: 8, x: 16, X: 16 }[type];
  if (base) {
    const text = size.toString(base);
    const prefix = alternate ? `0${type}` : '';
    return prefix + (type === 'X' ? text.toUpperCase() : text);
  }
  if (type === 'd' || type === 'i' || type === 'u' || type === 'n') return String(size);
  if (!Number.isFinite(size)) return Number.isNaN(size) ? 'nan' : 'inf';
  const lower = type.toLowerCase();
  let text = '';
  if (lower === 'f') text = fixed(size, precision ?? 6);
  else if (lower === '%') text = `${fixed(size * 100, precision ?? 6)}%`;
  else if (lower === 'e') text = exponential(size, precision ?? 6);
  else if (lower === 'g' || precision !== undefined) {
    const p = Math.max(precision ?? 6, 1);
    const exponent = size === 0 ? 0 : Number(/e(.+)$/.exec(size.toExponential(p - 1))?.[1]);
    const plainForm = exponent >= -4 && exponent < p + (lower === 'g' ? 0 : -1);
    text = plainForm ? fixed(size, Math.max(0, p - 1 - exponent)) : exponential(size, p - 1);
    if (!alternate && text.includes('.')) text = text.replace(/\.?0+($|e)/, '$1');
    if (lower !== 'g' && plainForm && !text.includes('.')) text += '.0';
  } else text = floatText(size);
  return type !== lower && type !== '' ? text.toUpperCase() : text;
}

/**
 * Does the same as toFixed, but rounds halves to even as Python does, and never writes an exponent.
 * @param {number} value  0 or more
 * @param {number} places
 */
export function fixed(value, places) {
  if (value >= 1e21) return BigInt(value).toString() + (places > 0 ? `.${'0'.repeat(places)}` : '');
  const text = value.toFixed(places);
  // toFixed rounds an exact half up.
  if (places < 90 && /^50*$/.test(value.toFixed(100).split('.')[1].slice(places))) {
    const down = value.toFixed(100).slice(0, places > 0 ? places - 100 : -101);
    if (Number(down.at(-1)) % 2 === 0) return down;
  }
  return text;
}

/** @param {number} value @param {number} places */
const exponential = (value, places) => value.toExponential(places).replace(/e([+-])(\d)$/, 'e$10$2');

/**
 * The integer for %d and similar types.
 * @param {Value} value
 * @param {string} type
 * @returns {number}
 */
function integer(value, type) {
  if (isNumber(value) && (type === 'd' || type === 'i' || type === 'u' || !(value instanceof Float)))
    return Math.trunc(numberOf(value));
  throw new TemplateError(`%${type} format: an integer is required, not ${typeName(value)}`);
}

const SPEC = /%(?:\(([^)]{0,200})\))?([#0 +-]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?(.)?/gs;

/**
 * Python's % operator with a string on the left.
 * @param {Str} format
 * @param {Value} values  a tuple, a dict or one value
 * @param {Budget} budget
 * @returns {Str}
 */
export function percent(format, values, budget) {
  const source = plain(format);
  /** @type {Str[]} */
  const out = [];
  const list = values instanceof Tuple ? values.items : [values];
  let used = 0;
  let named = false;
  const next = () => {
    if (used >= list.length) throw new TemplateError('not enough arguments for format string');
    return list[used++];
  };
  let at = 0;
  for (const match of source.matchAll(SPEC)) {
    const [whole, key, flags, widthText, precisionText, type = ''] = match;
    out.push(cut(format, at, match.index));
    at = match.index + whole.length;
    if (type === '%' && whole === '%%') {
      out.push('%');
      continue;
    }
    const width = widthText === '*' ? Number(next()) : Number(widthText ?? 0);
    const precision = precisionText === '*' ? Number(next()) : precisionText && Number(precisionText);
    let value;
    if (key === undefined) value = next();
    else {
      if (!(values instanceof Dict)) throw new TemplateError('format requires a mapping');
      named = true;
      if (!values.has(key)) throw new TemplateError(`the key '${key}' of the format is missing`);
      value = values.get(key);
    }
    const limit = precision === '' || precision === undefined ? undefined : Number(precision);
    out.push(pad(...converted(value, type, flags, limit, budget), { flags, width }, budget));
  }
  out.push(cut(format, at));
  if (!named && used < list.length && !(values instanceof Dict))
    throw new TemplateError('not all arguments converted during string formatting');
  return assemble(out, budget);
}

/**
 * @param {Value} value
 * @param {string} type
 * @param {string} flags
 * @param {number | undefined} precision
 * @param {Budget} budget
 * @returns {[string, Str]}  the sign, and the rest
 */
function converted(value, type, flags, precision, budget) {
  if (type === 's' || type === 'r' || type === 'a') {
    const text = type === 's' ? str(value, budget) : repr(value, budget);
    return ['', precision === undefined ? text : cut(text, 0, unitAt(plain(text), precision))];
  }
  if (type === 'c') return ['', isStr(value) ? value : String.fromCodePoint(integer(value, 'c'))];
  if (!/^[diuoxXeEfFgG]$/.test(type)) throw new TemplateError(`unsupported format character '${type}'`);
  if (value instanceof Undefined) value.fail();
  if ('diuoxX'.includes(type)) {
    const number = integer(value, type);
    budget.makes(precision ?? 0);
    return [
      signOf(number, flags),
      digits(number, type, undefined, flags.includes('#')).padStart(precision ?? 0, '0'),
    ];
  }
  if (!isNumber(value)) throw new TemplateError(`must be real number, not ${typeName(value)}`);
  const number = numberOf(value);
  return [signOf(number, flags), digits(number, type, precision, flags.includes('#'))];
}

/** @param {number} number @param {string} flags */
const signOf = (number, flags) =>
  number < 0 || Object.is(number, -0) ? '-' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';

/**
 * @param {string} sign
 * @param {Str} text
 * @param {{ flags: string, width: number }} style
 * @param {Budget} budget
 * @returns {Str}
 */
function pad(sign, text, { flags, width }, budget) {
  const missing = width - sign.length - countChars(plain(text));
  if (missing <= 0) return concat([sign, text]);
  budget.makes(width);
  if (flags.includes('-')) return concat([sign, text, ' '.repeat(missing)]);
  const zeros = flags.includes('0') && typeof text === 'string' && /^[\da-f]/i.test(text);
  return zeros ? concat([sign, '0'.repeat(missing), text]) : concat([' '.repeat(missing), sign, text]);
}

const FIELD = /\{\{|\}\}|\{([^{}!:]*)(?:!([rsa]))?(?::((?:[^{}]|\{[^{}]*\})*))?\}|[{}]/g;

/**
 * Python's str.format.
 * @param {Str} format
 * @param {Value[]} args
 * @param {Map<string, Value>} named
 * @param {{ budget: Budget, attribute: (value: Value, name: string) => Value, item: (value: Value,
 *   key: Value) => Value }} tools
 * @returns {Str}
 */
export function formatMethod(format, args, named, tools) {
  const { budget } = tools;
  const source = plain(format);
  let automatic = 0;
  const lookup = (/** @type {string} */ field) => {
    const [, name, path] = /** @type {RegExpExecArray} */ (/^([^.[]*)(.*)$/s.exec(field));
    let value;
    if (name === '' || /^\d+$/.test(name)) {
      const index = name === '' ? automatic++ : Number(name);
      if (index >= args.length) throw new TemplateError(`the format has no argument ${index}`);
      value = args[index];
    } else {
      if (!named.has(name)) throw new TemplateError(`the format has no argument '${name}'`);
      value = named.get(name);
    }
    for (const [, attribute, key] of path.matchAll(/\.([^.[]+)|\[([^\]]+)\]/g))
      value =
        attribute !== undefined
          ? tools.attribute(value, attribute)
          : tools.item(value, /^\d+$/.test(key) ? Number(key) : key);
    return value;
  };
  /** @type {Str[]} */
  const out = [];
  let at = 0;
  for (const match of source.matchAll(FIELD)) {
    const [whole, field, conversion, spec = ''] = match;
    out.push(cut(format, at, match.index));
    at = match.index + whole.length;
    if (whole === '{{' || whole === '}}') out.push(whole[0]);
    else if (field === undefined) throw new TemplateError(`Single '${whole}' encountered in format string`);
    else {
      const value = lookup(field);
      const text = conversion ? (conversion === 's' ? str(value, budget) : repr(value, budget)) : value;
      const full = spec.replace(/\{([^{}]*)\}/g, (_, inner) => plain(str(lookup(inner), budget)));
      out.push(formatSpec(text, full, budget));
    }
  }
  out.push(cut(format, at));
  return assemble(out, budget);
}

const FORMAT_SPEC = /^(?:(.)?([<>=^]))?([+\- ])?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/su;

/**
 * @param {Value} value
 * @param {string} spec
 * @param {Budget} budget
 * @returns {Str}
 */
function formatSpec(value, spec, budget) {
  if (spec === '') return str(value, budget);
  const match = FORMAT_SPEC.exec(spec);
  if (!match) throw new TemplateError(`Invalid format specifier '${spec.slice(0, 40)}'`);
  const [, fillChar, alignChar, sign = '', alternate, zero, widthText, group, precisionText, type = ''] =
    match;
  const precision = precisionText === undefined ? undefined : Number(precisionText);
  const width = Number(widthText ?? 0);
  const numeric = isNumber(value) && !(typeof value === 'boolean' && (type === '' || type === 's'));
  const fill = fillChar ?? (zero ? '0' : ' ');
  const align = alignChar ?? (zero && numeric ? '=' : numeric ? '>' : '<');
  let signText = '';
  /** @type {Str} */
  let body;
  if (numeric) {
    const number = numberOf(value);
    signText = signOf(number, sign);
    const kind = type || (value instanceof Float ? '' : precision === undefined ? 'd' : 'g');
    if (value instanceof Float && 'dboxXc'.includes(kind) && kind)
      throw new TemplateError(`Unknown format code '${kind}' for object of type 'float'`);
    if (!'dboxXneEfFgG%'.includes(kind)) throw new TemplateError(`Unknown format code '${kind}'`);
    body = digits(number, kind, precision, Boolean(alternate));
    if (group) body = body.replace(/^\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, group));
  } else {
    if (type !== '' && type !== 's')
      throw new TemplateError(`Unknown format code '${type}' for object of type '${typeName(value)}'`);
    body = str(value, budget);
    if (precision !== undefined) body = cut(body, 0, unitAt(plain(body), precision));
  }
  const missing = width - signText.length - countChars(plain(body));
  if (missing <= 0) return concat([signText, body]);
  budget.makes(width);
  if (align === '=') return concat([signText, fill.repeat(missing), body]);
  const left = align === '<' ? 0 : align === '>' ? missing : missing >> 1;
  return concat([fill.repeat(left), signText, body, fill.repeat(missing - left)]);
}
