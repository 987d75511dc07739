/* Parses statements: tokens to a tree. The grammar is Jinja2's, with loop controls and {%
 * generation %}. */

import { ExpressionParser } from './expressions.js';
import { TemplateError, tokenize } from './lexer.js';

/** @typedef {import('./expressions.js').Node} Node */
/** @typedef {import('./expressions.js').Arguments} Arguments */

/** @typedef {Extract<Node, { kind: 'call' }>} Call */

/** @typedef {{ name: string, by?: Node }} Parameter */
/**
 * A macro with its parameters, its body and the names used in it.
 * @typedef {{ parameters: Parameter[], body: Statement[], uses: ReadonlySet<string> }} MacroBody
 */

/**
 * @typedef {{ kind: 'data', text: string }
 *   | { kind: 'print', values: Node[] }
 *   | { kind: 'if', branches: { test: Node, body: Statement[] }[], otherwise: Statement[] }
 *   | For
 *   | { kind: 'set', target: Node, value: Node }
 *   | { kind: 'setBlock', target: Node, filters: Filter[], body: Statement[] }
 *   | { kind: 'with', pairs: { target: Node, value: Node }[], body: Statement[] }
 *   | { kind: 'filterBlock', filters: Filter[], body: Statement[] }
 *   | { kind: 'scope', body: Statement[] }
 *   | { kind: 'macro', name: string, macro: MacroBody }
 *   | { kind: 'callBlock', call: Call, macro: MacroBody }
 *   | { kind: 'break' } | { kind: 'continue' }} Statement
 */

/**
 * @typedef {{ kind: 'for', target: Node, items: Node, test?: Node, recursive: boolean,
 *   body: Statement[], otherwise: Statement[] }} For
 */
/** @typedef {{ name: string, args: Arguments }} Filter */

/**
 * @param {string} source
 * @returns {Statement[]}
 * @throws {TemplateError}
 */
export function parse(source) {
  return new Parser(tokenize(source)).template();
}

const UNSUPPORTED = ['include', 'import', 'from', 'extends', 'do', 'trans', 'debug', 'autoescape'];

class Parser extends ExpressionParser {
  #loops = 0;

  template() {
    const body = this.#statements([]);
    if (this.current.type !== 'end') this.fail(`an unexpected ${this.shown()}`);
    return body;
  }

  /**
   * Reads statements up to a block that begins with one of `ends`; the name of this block is read,
   * the rest of it is not.
   * @param {string[]} ends
   * @returns {Statement[]}
   */
  #statements(ends) {
    return this.nested(() => {
      /** @type {Statement[]} */
      const body = [];
      for (;;) {
        const { type, text } = this.current;
        if (type === 'data') {
          body.push({ kind: 'data', text });
          this.next();
        } else if (type === 'variable') {
          this.next();
          body.push({ kind: 'print', values: [this.tuple()] });
          this.expect('variableEnd');
        } else if (type === 'block') {
          this.next();
          const name = this.current.type === 'name' ? this.current.text : '';
          if (ends.includes(name)) {
            this.next();
            return body;
          }
          body.push(this.#statement(name));
          this.expect('blockEnd');
        } else {
          if (ends.length > 0) this.fail(`${this.shown()} instead of {% ${ends.join(' %} or {% ')} %}`);
          return body;
        }
      }
    });
  }

  /**
   * Reads the body of a block, from the end of its opening tag on. Returns the name of the closing
   * tag too.
   * @param {string[]} ends
   */
  #body(...ends) {
    this.skipOperator(':');
    this.expect('blockEnd');
    const body = this.#statements(ends);
    return { body, end: this.tokens[this.at - 1].text };
  }

  /** @param {string} name @returns {Statement} */
  #statement(name) {
    const read = {
      if: () => this.#if(),
      for: () => this.#for(),
      set: () => this.#set(),
      with: () => this.#with(),
      macro: () => this.#macro(),
      call: () => this.#callBlock(),
      filter: () => this.#filterBlock(),
      generation: () => this.#scope('endgeneration'),
      block: () => this.#block(),
      print: () => this.#print(),
      break: () => this.#control('break'),
      continue: () => this.#control('continue'),
    }[name];
    if (!read) {
      const why = UNSUPPORTED.includes(name) ? 'is not supported in chat templates' : 'is unknown';
      this.fail(`the tag ${JSON.stringify(name || this.shown())} ${why}`);
    }
    this.next();
    return read();
  }

  /** @returns {Statement} */
  #if() {
    /** @type {{ test: Node, body: Statement[] }[]} */
    const branches = [];
    for (;;) {
      const test = this.tuple({ conditional: false });
      const { body, end } = this.#body('elif', 'else', 'endif');
      branches.push({ test, body });
      if (end === 'elif') continue;
      const otherwise = end === 'else' ? this.#body('endif').body : [];
      return { kind: 'if', branches, otherwise };
    }
  }

  /** @returns {Statement} */
  #for() {
    const target = this.target({ end: 'in' });
    this.expectName('in');
    const items = this.tuple({ conditional: false, end: 'recursive' });
    const test = this.skipName('if') ? this.expression() : undefined;
    const recursive = this.skipName('recursive');
    this.#loops += 1;
    const { body, end } = this.#body('endfor', 'else');
    this.#loops -= 1;
    const otherwise = end === 'else' ? this.#body('endfor').body : [];
    return { kind: 'for', target, items, ...(test ? { test } : {}), recursive, body, otherwise };
  }

  /** @returns {Statement} */
  #set() {
    const target = this.target({ namespace: true });
    if (this.skipOperator('=')) return { kind: 'set', target, value: this.tuple() };
    const filters = this.#filters(false);
    return { kind: 'setBlock', target, filters, body: this.#body('endset').body };
  }

  /** @returns {Statement} */
  #with() {
    /** @type {{ target: Node, value: Node }[]} */
    const pairs = [];
    while (this.current.type !== 'blockEnd') {
      if (pairs.length > 0) this.expectOperator(',');
      const target = this.target({});
      this.expectOperator('=');
      pairs.push({ target, value: this.expression() });
    }
    return { kind: 'with', pairs, body: this.#body('endwith').body };
  }

  /** @returns {Statement} */
  #macro() {
    const name = this.expect('name').text;
    return { kind: 'macro', name, macro: this.#macroBody(this.#parameters(), 'endmacro') };
  }

  /** @returns {Statement} */
  #callBlock() {
    const parameters = this.isOperator('(') ? this.#parameters() : [];
    const call = this.expression();
    if (call.kind !== 'call') this.fail('{% call %} needs a call');
    return { kind: 'callBlock', call, macro: this.#macroBody(parameters, 'endcall') };
  }

  /** @param {Parameter[]} parameters @param {string} end @returns {MacroBody} */
  #macroBody(parameters, end) {
    const loops = this.#loops;
    this.#loops = 0;
    const { result, uses } = this.namesOf(() => this.#body(end));
    this.#loops = loops;
    const { body } = result;
    return { parameters, body, uses };
  }

  /** @returns {Parameter[]} */
  #parameters() {
    /** @type {Parameter[]} */
    const parameters = [];
    this.expectOperator('(');
    while (!this.isOperator(')')) {
      if (parameters.length > 0) this.expectOperator(',');
      const name = this.expect('name').text;
      if (this.skipOperator('=')) parameters.push({ name, by: this.expression() });
      else if (parameters.at(-1)?.by) this.fail('a parameter without a default follows one with a default');
      else parameters.push({ name });
    }
    this.expectOperator(')');
    return parameters;
  }

  /** @returns {Statement} */
  #filterBlock() {
    const filters = this.#filters(true);
    return { kind: 'filterBlock', filters, body: this.#body('endfilter').body };
  }

  /** @param {boolean} first  whether the first filter has no | in front @returns {Filter[]} */
  #filters(first) {
    /** @type {Filter[]} */
    const filters = [];
    while ((first && filters.length === 0) || this.skipOperator('|')) {
      const name = this.expect('name').text;
      filters.push({ name, args: this.isOperator('(') ? this.callArguments() : { args: [], named: [] } });
    }
    return filters;
  }

  /** @param {string} end @returns {Statement} */
  #scope(end) {
    return { kind: 'scope', body: this.#body(end).body };
  }

  /** Without inheritance, a block is just its content. @returns {Statement} */
  #block() {
    const name = this.expect('name').text;
    this.skipName('scoped');
    const statement = this.#scope('endblock');
    this.skipName(name);
    return statement;
  }

  /** @returns {Statement} */
  #print() {
    const values = [this.expression()];
    while (this.skipOperator(',')) values.push(this.expression());
    return { kind: 'print', values };
  }

  /** @param {'break' | 'continue'} kind @returns {Statement} */
  #control(kind) {
    if (this.#loops === 0) this.fail(`{% ${kind} %} outside of a loop`);
    return { kind };
  }
}

export { TemplateError };
