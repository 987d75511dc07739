/* Parses expressions: tokens to a tree, with Jinja2's precedences. */

import { TemplateError } from './lexer.js';
import { LIMITS, LimitError } from './limits.js';
import { Float } from './values.js';

/** @typedef {import('./lexer.js').Token} Token */

/**
 * @typedef {object} Arguments
 * @property {Node[]} args
 * @property {{ name: string, value: Node }[]} named
 * @property {Node} [spread]  The value of *args.
 * @property {Node} [namedSpread]  The value of **kwargs.
 */

/**
 * @typedef {{ kind: 'constant', value: any }
 *   | { kind: 'name', name: string }
 *   | { kind: 'namespace', name: string, key: string }
 *   | { kind: 'list' | 'tuple', items: Node[] }
 *   | { kind: 'dict', pairs: { key: Node, value: Node }[] }
 *   | { kind: 'attribute', of: Node, name: string }
 *   | { kind: 'item', of: Node, key: Node }
 *   | { kind: 'slice', parts: (Node | undefined)[] }
 *   | { kind: 'call', of: Node, args: Arguments }
 *   | { kind: 'filter' | 'test', of: Node, name: string, args: Arguments }
 *   | { kind: 'unary', operator: string, of: Node }
 *   | { kind: 'chain', first: Node, rest: { operator: string, value: Node }[] }
 *   | { kind: 'compare', first: Node, rest: { operator: string, value: Node }[] }
 *   | { kind: 'and' | 'or' | 'concat', items: Node[] }
 *   | { kind: 'conditional', test: Node, yes: Node, no?: Node }} Node
 */

const CONSTANTS = new Map([
  ['true', true],
  ['True', true],
  ['false', false],
  ['False', false],
  ['none', null],
  ['None', null],
]);
const COMPARISONS = ['==', '!=', '<', '<=', '>', '>='];

export class ExpressionParser {
  at = 0;
  /** Names used in the part that is being read. @type {Set<string>} */
  #names = new Set();
  #depth = 0;

  /** @param {Token[]} tokens */
  constructor(tokens) {
    this.tokens = tokens;
  }

  get current() {
    return this.tokens[this.at];
  }

  next() {
    const token = this.tokens[this.at];
    if (this.at < this.tokens.length - 1) this.at += 1;
    return token;
  }

  /** @param {string} what @returns {never} */
  fail(what) {
    throw new TemplateError(`line ${this.current.line}: ${what}`);
  }

  /** The current token, for messages. */
  shown() {
    const { type, text } = this.current;
    return type === 'data' ? 'text' : JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text);
  }

  /** @template T @param {() => T} read @returns {T} */
  nested(read) {
    this.#depth += 1;
    if (this.#depth > LIMITS.nesting) throw new LimitError('nesting', this.#depth);
    const result = read();
    this.#depth -= 1;
    return result;
  }

  /**
   * Reads a part, and collects the names in it.
   * @template T
   * @param {() => T} read
   * @returns {{ result: T, uses: Set<string> }}
   */
  namesOf(read) {
    const outer = this.#names;
    const uses = new Set();
    this.#names = uses;
    const result = read();
    this.#names = outer;
    for (const name of uses) outer.add(name);
    return { result, uses };
  }

  /** @param {Token['type']} type */
  expect(type) {
    if (this.current.type !== type)
      this.fail(
        `an unexpected ${this.shown()}, expected ${type === 'blockEnd' ? '%}' : type === 'variableEnd' ? '}}' : `a ${type}`}`,
      );
    return this.next();
  }

  /** @param {string} text */
  isOperator(text) {
    return this.current.type === 'operator' && this.current.text === text;
  }

  /** @param {string} text */
  skipOperator(text) {
    const is = this.isOperator(text);
    if (is) this.next();
    return is;
  }

  /** @param {string} text */
  expectOperator(text) {
    if (!this.skipOperator(text)) this.fail(`an unexpected ${this.shown()}, expected "${text}"`);
  }

  /** @param {string} name */
  isName(name) {
    return this.current.type === 'name' && this.current.text === name;
  }

  /** @param {string} name */
  skipName(name) {
    const is = this.isName(name);
    if (is) this.next();
    return is;
  }

  /** @param {string} name */
  expectName(name) {
    if (!this.skipName(name)) this.fail(`an unexpected ${this.shown()}, expected "${name}"`);
  }

  /**
   * The target of an assignment or a loop.
   * @param {{ end?: string, namespace?: boolean }} options
   * @returns {Node}
   */
  target({ end, namespace = false }) {
    const following = this.tokens[this.at + 1];
    if (namespace && following?.type === 'operator' && following.text === '.') {
      const name = this.expect('name').text;
      this.next();
      return { kind: 'namespace', name, key: this.expect('name').text };
    }
    const target = this.tuple({ simple: true, ...(end ? { end } : {}) });
    const check = (/** @type {Node} */ node) => {
      if (node.kind === 'tuple' || node.kind === 'list') for (const item of node.items) check(item);
      else if (node.kind !== 'name') this.fail('a value is assigned to what is no name');
    };
    check(target);
    return target;
  }

  /**
   * One expression, or several separated by commas.
   * @param {{ simple?: boolean, conditional?: boolean, end?: string, parentheses?: boolean }}
   *   [options]
   * @returns {Node}
   */
  tuple({ simple = false, conditional = true, end = '', parentheses = false } = {}) {
    /** @type {Node[]} */
    const items = [];
    let several = false;
    for (;;) {
      if (items.length > 0) this.expectOperator(',');
      const { type } = this.current;
      if (type === 'variableEnd' || type === 'blockEnd' || this.isOperator(')') || (end && this.isName(end)))
        break;
      items.push(simple ? this.#primary() : conditional ? this.expression() : this.nested(() => this.#or()));
      if (!this.isOperator(',')) break;
      several = true;
    }
    if (several || (items.length === 0 && parentheses)) return { kind: 'tuple', items };
    if (items.length === 0) this.fail(`an expression is missing in front of ${this.shown()}`);
    return items[0];
  }

  /** @returns {Node} */
  expression() {
    return this.nested(() => {
      let yes = this.#or();
      while (this.skipName('if')) {
        const test = this.#or();
        if (this.skipName('else')) yes = { kind: 'conditional', test, yes, no: this.expression() };
        else yes = { kind: 'conditional', test, yes };
      }
      return yes;
    });
  }

  /** @returns {Node} */
  #or() {
    const items = [this.#and()];
    while (this.skipName('or')) items.push(this.#and());
    return items.length > 1 ? { kind: 'or', items } : items[0];
  }

  /** @returns {Node} */
  #and() {
    const items = [this.#not()];
    while (this.skipName('and')) items.push(this.#not());
    return items.length > 1 ? { kind: 'and', items } : items[0];
  }

  /** @returns {Node} */
  #not() {
    if (!this.skipName('not')) return this.#compare();
    return { kind: 'unary', operator: 'not', of: this.nested(() => this.#not()) };
  }

  /** @returns {Node} */
  #compare() {
    const first = this.#sum();
    /** @type {{ operator: string, value: Node }[]} */
    const rest = [];
    for (;;) {
      const { type, text } = this.current;
      const following = this.tokens[this.at + 1];
      if (type === 'operator' && COMPARISONS.includes(text)) {
        this.next();
        rest.push({ operator: text, value: this.#sum() });
      } else if (this.skipName('in')) rest.push({ operator: 'in', value: this.#sum() });
      else if (this.isName('not') && following?.type === 'name' && following.text === 'in') {
        this.at += 2;
        rest.push({ operator: 'not in', value: this.#sum() });
      } else break;
    }
    return rest.length > 0 ? { kind: 'compare', first, rest } : first;
  }

  /**
   * Operators of one precedence, from left to right.
   * @param {string[]} operators
   * @param {() => Node} operand
   * @returns {Node}
   */
  #chain(operators, operand) {
    const first = operand();
    /** @type {{ operator: string, value: Node }[]} */
    const rest = [];
    while (this.current.type === 'operator' && operators.includes(this.current.text)) {
      const operator = this.next().text;
      rest.push({ operator, value: operand() });
    }
    return rest.length > 0 ? { kind: 'chain', first, rest } : first;
  }

  #sum() {
    return this.#chain(['+', '-'], () => this.#concat());
  }

  /** @returns {Node} */
  #concat() {
    const items = [this.#product()];
    while (this.skipOperator('~')) items.push(this.#product());
    return items.length > 1 ? { kind: 'concat', items } : items[0];
  }

  #product() {
    return this.#chain(['*', '/', '//', '%'], () => this.#power());
  }

  /** Powers; Jinja2 reads them from left to right too. */
  #power() {
    return this.#chain(['**'], () => this.#unary(true));
  }

  /** @param {boolean} filters  whether filters and tests may follow @returns {Node} */
  #unary(filters) {
    let node;
    if (this.isOperator('-') || this.isOperator('+')) {
      const operator = this.next().text;
      /** @type {Node} */
      const of = this.nested(() => this.#unary(false));
      node = /** @type {Node} */ ({ kind: 'unary', operator, of });
    } else node = this.#primary();
    node = this.#postfix(node);
    return filters ? this.#filtersAndTests(node) : node;
  }

  /** @returns {Node} */
  #primary() {
    const { type, text } = this.current;
    if (type === 'name') {
      this.next();
      const constant = CONSTANTS.get(text);
      if (constant !== undefined) return { kind: 'constant', value: constant };
      this.#names.add(text);
      return { kind: 'name', name: text };
    }
    if (type === 'string') {
      const parts = [];
      while (this.current.type === 'string') parts.push(this.next().text);
      return { kind: 'constant', value: parts.join('') };
    }
    if (type === 'integer' || type === 'float') {
      this.next();
      const value = Number(text);
      if (type === 'float') return { kind: 'constant', value: new Float(value) };
      if (!Number.isSafeInteger(value)) this.fail(`the integer ${text.slice(0, 24)} is larger than 2^53`);
      return { kind: 'constant', value };
    }
    if (this.skipOperator('(')) {
      const inner = this.tuple({ parentheses: true });
      this.expectOperator(')');
      return inner;
    }
    if (this.skipOperator('[')) {
      const items = this.#list(']', () => this.expression());
      return { kind: 'list', items };
    }
    if (this.skipOperator('{')) {
      const pairs = this.#list('}', () => {
        const key = this.expression();
        this.expectOperator(':');
        return { key, value: this.expression() };
      });
      return { kind: 'dict', pairs };
    }
    return this.fail(`an unexpected ${this.shown()}`);
  }

  /** @template T @param {string} end @param {() => T} read @returns {T[]} */
  #list(end, read) {
    /** @type {T[]} */
    const items = [];
    while (!this.skipOperator(end)) {
      if (items.length > 0) {
        this.expectOperator(',');
        if (this.skipOperator(end)) break;
      }
      items.push(read());
    }
    return items;
  }

  /** Attributes, items and calls after an operand. @param {Node} node @returns {Node} */
  #postfix(node) {
    let result = node;
    for (;;) {
      if (this.skipOperator('.')) {
        const { type, text } = this.next();
        if (type === 'name') result = { kind: 'attribute', of: result, name: text };
        else if (type === 'integer')
          result = { kind: 'item', of: result, key: { kind: 'constant', value: Number(text) } };
        else this.fail('a name or a number must follow a dot');
      } else if (this.skipOperator('[')) {
        const keys = this.#list(']', () => this.#subscript());
        if (keys.length === 0) this.fail('a subscript is missing between [ and ]');
        const key = keys.length === 1 ? keys[0] : /** @type {Node} */ ({ kind: 'tuple', items: keys });
        result = { kind: 'item', of: result, key };
      } else if (this.isOperator('(')) result = { kind: 'call', of: result, args: this.callArguments() };
      else return result;
    }
  }

  /** @returns {Node} */
  #subscript() {
    const atEnd = () => this.isOperator(':') || this.isOperator(']') || this.isOperator(',');
    const start = atEnd() ? undefined : this.expression();
    if (!this.isOperator(':') && start) return start;
    /** @type {(Node | undefined)[]} */
    const parts = [start];
    while (parts.length < 3 && this.skipOperator(':')) parts.push(atEnd() ? undefined : this.expression());
    return { kind: 'slice', parts };
  }

  /** @param {Node} node @returns {Node} */
  #filtersAndTests(node) {
    let result = node;
    for (;;) {
      if (this.skipOperator('|')) {
        const name = this.#dotted();
        const args = this.isOperator('(') ? this.callArguments() : { args: [], named: [] };
        result = { kind: 'filter', of: result, name, args };
      } else if (this.skipName('is')) result = this.#test(result);
      else if (this.isOperator('(')) result = { kind: 'call', of: result, args: this.callArguments() };
      else return result;
    }
  }

  #dotted() {
    let name = this.expect('name').text;
    while (this.skipOperator('.')) name += `.${this.expect('name').text}`;
    return name;
  }

  /** @param {Node} of @returns {Node} */
  #test(of) {
    const negated = this.skipName('not');
    const name = this.#dotted();
    const { type, text } = this.current;
    /** @type {Arguments} */
    let args = { args: [], named: [] };
    const argument =
      ['string', 'integer', 'float'].includes(type) ||
      (type === 'name' && !['else', 'or', 'and'].includes(text)) ||
      (type === 'operator' && '[{'.includes(text));
    if (this.isOperator('(')) args = this.callArguments();
    else if (argument) {
      if (this.isName('is')) this.fail('tests cannot be chained with "is"');
      args.args.push(this.#postfix(this.#primary()));
    }
    /** @type {Node} */
    const test = { kind: 'test', of, name, args };
    return negated ? { kind: 'unary', operator: 'not', of: test } : test;
  }

  /** The arguments of a call, with the parentheses. @returns {Arguments} */
  callArguments() {
    this.expectOperator('(');
    /** @type {Arguments} */
    const result = { args: [], named: [] };
    const ensure = (/** @type {boolean} */ ok) => {
      if (!ok) this.fail('the arguments of a call are in the wrong order');
    };
    this.#list(')', () => {
      const following = this.tokens[this.at + 1];
      if (this.skipOperator('**')) {
        ensure(!result.namedSpread);
        result.namedSpread = this.expression();
      } else if (this.skipOperator('*')) {
        ensure(!result.spread && !result.namedSpread);
        result.spread = this.expression();
      } else if (this.current.type === 'name' && following?.type === 'operator' && following.text === '=') {
        ensure(!result.namedSpread);
        const name = this.next().text;
        this.next();
        result.named.push({ name, value: this.expression() });
      } else {
        ensure(!result.spread && !result.namedSpread && result.named.length === 0);
        result.args.push(this.expression());
      }
    });
    return result;
  }
}
