/* Cuts the source of a template into tokens, as Jinja2 does with trim_blocks and lstrip_blocks. */

import { LIMITS, LimitError } from './limits.js';

/** An error in the source of a template, or one that occurs while it runs. */
export class TemplateError extends Error {
  /** Name of the class. */
  name = 'TemplateError';
}

/**
 * @typedef {object} Token
 * @property {'data' | 'variable' | 'variableEnd' | 'block' | 'blockEnd' | 'name' | 'string'
 *   | 'integer' | 'float' | 'operator' | 'end'} type
 * @property {string} text  The data, the name, the value of a string, or the operator.
 * @property {number} line
 */

const OPERATORS = /\/\/|\*\*|==|!=|>=|<=|[+\-/*%~[\](){}><=.:|,;]/y;
const NAME = /[\p{L}\p{Nl}_][\p{L}\p{N}\p{M}\p{Pc}]*/uy;
const FLOAT = /\d+(?:_\d+)*(?:\.\d+(?:_\d+)*)?e[+-]?\d+(?:_\d+)*|\d+(?:_\d+)*\.\d+(?:_\d+)*/iy;
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const SPACES = /\s+/y;
const BLOCK_END = /\+%\}|-%\}\s*|%\}\n?/y;
const VARIABLE_END = /-\}\}\s*|\}\}/y;
const RAW = /\{%[-+]?\s*raw\s*(?:-%\}\s*|%\})/y;
const END_RAW = /\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\}\n?)/g;
const CLOSES = { '(': ')', '[': ']', '{': '}' };

const ESCAPES = new Map([
  ...Object.entries({ a: '\x07', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t', v: '\v' }),
  ...Object.entries({ '\\': '\\', "'": "'", '"': '"', '\n': '' }),
]);

/**
 * @param {string} source
 * @returns {Token[]}
 * @throws {TemplateError} the source is not a valid template
 */
export function tokenize(source) {
  if (source.length > LIMITS.source) throw new LimitError('source', source.length);
  return new Lexer(source.replace(/\r\n?/g, '\n').replace(/\n$/, '')).run();
}

class Lexer {
  #source;
  #at = 0;
  #line = 1;
  /** Index of the end of the current line. */
  #nextLine = -1;
  /** Whether the next text starts at the beginning of a line. */
  #lineStart = true;
  /** @type {Token[]} */
  #tokens = [];

  /** @param {string} source */
  constructor(source) {
    this.#source = source;
  }

  run() {
    const source = this.#source;
    while (this.#at < source.length) {
      const open = this.#nextTag();
      if (open < 0) {
        this.#data(source.slice(this.#at));
        break;
      }
      const kind = source[open + 1];
      const sign = source[open + 2];
      this.#data(this.#before(open, kind, sign));
      this.#at = open;
      if (kind === '#') this.#comment();
      else if (kind === '%' && this.#match(RAW)) this.#raw();
      else {
        this.#at = open + (sign === '-' || sign === '+' ? 3 : 2);
        this.#push(kind === '%' ? 'block' : 'variable', '');
        this.#code(kind === '%' ? BLOCK_END : VARIABLE_END, kind === '%' ? 'blockEnd' : 'variableEnd');
      }
      this.#lineStart = source[this.#at - 1] === '\n';
    }
    this.#at = source.length;
    this.#push('end', 'the end of the template');
    return this.#tokens;
  }

  #nextTag() {
    const source = this.#source;
    for (let at = source.indexOf('{', this.#at); at >= 0; at = source.indexOf('{', at + 1))
      if ('{%#'.includes(source[at + 1] || ' ')) return at;
    return -1;
  }

  /**
   * The text before a tag, without the white space that the tag removes.
   * @param {number} open
   * @param {string} kind
   * @param {string} sign
   */
  #before(open, kind, sign) {
    const text = this.#source.slice(this.#at, open);
    if (sign === '-') return text.trimEnd();
    if (sign === '+' || kind === '{') return text;
    const start = text.lastIndexOf('\n') + 1;
    const ownLine = (start > 0 || this.#lineStart) && text.slice(start).trim() === '';
    return ownLine ? text.slice(0, start) : text;
  }

  #comment() {
    const source = this.#source;
    const from = this.#at + ('-+'.includes(source[this.#at + 2] || ' ') ? 3 : 2);
    const end = source.indexOf('#}', from);
    if (end < 0) this.#fail('a comment does not end');
    const sign = end > from ? source[end - 1] : '';
    this.#at = end + 2;
    if (sign === '-') this.#match(SPACES);
    else if (sign !== '+' && source[this.#at] === '\n') this.#at += 1;
  }

  /** The text up to {% endraw %}, unchanged. */
  #raw() {
    END_RAW.lastIndex = this.#at;
    const end = END_RAW.exec(this.#source);
    if (!end) return this.#fail('a raw block does not end');
    this.#lineStart = this.#source[this.#at - 1] === '\n';
    this.#data(this.#before(end.index, '%', end[1]));
    this.#at = END_RAW.lastIndex;
  }

  /** Reads the tokens up to the end of a tag. @param {RegExp} end @param {Token['type']} type */
  #code(end, type) {
    const source = this.#source;
    /** @type {string[]} */
    const open = [];
    for (;;) {
      this.#match(SPACES);
      if (this.#at >= source.length) this.#fail('a tag does not end');
      // Inside an open brace, }} starts with the brace that closes it.
      if (open.length === 0) {
        const from = this.#at;
        if (this.#match(end)) {
          this.#push(type, source.slice(from, this.#at).trim());
          return;
        }
      }
      const char = source[this.#at];
      if (char === '"' || char === "'") this.#push('string', this.#string(char));
      else if (!this.#word()) {
        const operator = this.#match(OPERATORS);
        if (!operator) this.#fail(`an unexpected character ${JSON.stringify(char)}`);
        if (operator in CLOSES) open.push(CLOSES[/** @type {'('} */ (operator)]);
        else if (')]}'.includes(operator)) {
          const expected = open.pop();
          if (expected !== operator)
            this.#fail(`an unexpected "${operator}"${expected ? `, expected "${expected}"` : ''}`);
        }
        this.#push('operator', operator);
      }
    }
  }

  /** Reads a name or a number. @returns {boolean} */
  #word() {
    const afterDot = this.#source[this.#at - 1] === '.';
    const float = afterDot ? '' : this.#match(FLOAT);
    const number = float || this.#match(INTEGER);
    if (number) this.#push(float ? 'float' : 'integer', number.replaceAll('_', ''));
    const name = number ? '' : this.#match(NAME);
    if (name) this.#push('name', name);
    return Boolean(number || name);
  }

  /** Reads the value of a string. @param {string} quote */
  #string(quote) {
    const source = this.#source;
    /** @type {string[]} */
    const parts = [];
    let at = this.#at + 1;
    let from = at;
    for (; source[at] !== quote; at++) {
      if (at >= source.length) this.#fail('a string does not end');
      if (source[at] !== '\\') continue;
      parts.push(source.slice(from, at));
      const [value, length] = this.#escape(at + 1);
      parts.push(value);
      at += length;
      from = at + 1;
    }
    parts.push(source.slice(from, at));
    this.#at = at + 1;
    return parts.join('');
  }

  /**
   * The character of an escape sequence, and its length.
   * @param {number} at  index after the backslash
   * @returns {[string, number]}
   */
  #escape(at) {
    const source = this.#source;
    const char = source[at] ?? '';
    const known = ESCAPES.get(char);
    if (known !== undefined) return [known, 1];
    const octal = /^[0-7]{1,3}/.exec(source.slice(at, at + 3));
    if (octal) return [String.fromCharCode(Number.parseInt(octal[0], 8)), octal[0].length];
    const digits = { x: 2, u: 4, U: 8 }[char];
    if (!digits) return [`\\${char}`, 1];
    const hex = source.slice(at + 1, at + 1 + digits);
    const code = /^[\da-f]+$/i.test(hex) && hex.length === digits ? Number.parseInt(hex, 16) : -1;
    if (code < 0 || code > 0x10ffff) this.#fail(`a bad escape \\${char}${hex}`);
    return [String.fromCodePoint(code), 1 + digits];
  }

  /** @param {RegExp} expression  a sticky one @returns {string} */
  #match(expression) {
    expression.lastIndex = this.#at;
    const found = expression.exec(this.#source)?.[0] ?? '';
    this.#at += found.length;
    return found;
  }

  /** @param {string} text */
  #data(text) {
    if (text) this.#push('data', text);
  }

  /** @param {Token['type']} type @param {string} text */
  #push(type, text) {
    this.#tokens.push({ type, text, line: this.#countLines() });
  }

  #countLines() {
    while (this.#nextLine < this.#at) {
      if (this.#nextLine >= 0) this.#line += 1;
      const next = this.#source.indexOf('\n', this.#nextLine + 1);
      this.#nextLine = next < 0 ? Number.POSITIVE_INFINITY : next;
    }
    return this.#line;
  }

  /** @param {string} what @returns {never} */
  #fail(what) {
    throw new TemplateError(`line ${this.#countLines()}: ${what}`);
  }
}
