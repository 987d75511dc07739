/* Evaluates the expressions of a template. */

import { attribute, contains, item, slice } from './access.js';
import { binary, unary } from './arithmetic.js';
import { hasFilter, runFilter } from './filters.js';
import { TemplateError } from './lexer.js';
import { str } from './print.js';
import { runTest, TESTS } from './tests.js';
import { concat, isStr, plain } from './text.js';
import {
  assemble,
  Callable,
  compare,
  Dict,
  equal,
  Facade,
  iterate,
  Tuple,
  truthy,
  typeName,
  Undefined,
} from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./expressions.js').Node} Node */
/** @typedef {import('./expressions.js').Arguments} Arguments */
/** @typedef {import('./scope.js').Scope} Scope */
/** @typedef {import('./limits.js').Budget} Budget */

/**
 * Callbacks that observe a rendering.
 * @typedef {object} Watch
 * @property {(value: Value) => void} onLoop  Called when a loop goes through a value.
 * @property {(value: Value) => void} onPrint  Called when a value that is not a string is printed.
 */

/** Filters that convert their input to a string. */
const PRINTING = ['trim', 'string', 'replace', 'lower', 'upper', 'title', 'capitalize', 'safe'];

export class Evaluator {
  #depth = 0;

  /**
   * @param {Budget} budget
   * @param {Watch} watch
   */
  constructor(budget, { onLoop, onPrint }) {
    this.budget = budget;
    this.onLoop = onLoop;
    this.onPrint = onPrint;
    const testTools = {
      budget,
      hasFilter,
      hasTest: (/** @type {string} */ name) => Object.hasOwn(TESTS, name),
    };
    this.testTools = testTools;
    /** @type {import('./filters.js').Tools} */
    this.tools = {
      budget,
      filter: (name, value, args, named) => runFilter(name, value, args, named, this.tools),
      test: (name, value, args) => runTest(name, value, args, testTools),
    };
  }

  enter() {
    this.#depth += 1;
    this.budget.nests(this.#depth);
  }

  leave() {
    this.#depth -= 1;
  }

  /** @param {Node} node @param {Scope} scope @returns {Generator<undefined, boolean, void>} */
  *holds(node, scope) {
    return truthy(yield* this.value(node, scope));
  }

  /** @param {Node} node @param {Scope} scope @returns {Generator<undefined, Value, void>} */
  *value(node, scope) {
    if (this.budget.step()) yield;
    if (node.kind === 'constant') return node.value;
    if (node.kind === 'name') {
      const found = scope.get(node.name);
      return found === undefined ? new Undefined(`'${node.name}' is undefined`) : found;
    }
    this.enter();
    const result = yield* this.#compound(node, scope);
    this.leave();
    return result;
  }

  /** @param {Node} node @param {Scope} scope @returns {Generator<undefined, Value, void>} */
  *#compound(node, scope) {
    const { budget } = this;
    switch (node.kind) {
      case 'list':
        return yield* this.#values(node.items, scope);
      case 'tuple':
        return new Tuple(yield* this.#values(node.items, scope));
      case 'dict': {
        const dict = new Dict();
        for (const { key, value } of node.pairs)
          dict.set(yield* this.value(key, scope), yield* this.value(value, scope));
        return dict;
      }
      case 'attribute':
        return attribute(yield* this.value(node.of, scope), node.name, budget);
      case 'item': {
        const of = yield* this.value(node.of, scope);
        if (node.key.kind !== 'slice') return item(of, yield* this.value(node.key, scope), budget);
        const parts = [];
        for (const part of node.key.parts) parts.push(part && (yield* this.value(part, scope)));
        return slice(of, parts, budget);
      }
      case 'call':
        return yield* this.call(node, scope);
      case 'filter':
      case 'test': {
        const value = yield* this.value(node.of, scope);
        const { list, named } = yield* this.arguments(node.args, scope);
        if (node.kind === 'test')
          return runTest(node.name, value, [...list, ...named.values()], this.testTools);
        if (PRINTING.includes(node.name) && !isStr(value)) this.onPrint(value);
        return runFilter(node.name, value, list, named, this.tools);
      }
      case 'unary': {
        const value = yield* this.value(node.of, scope);
        return node.operator === 'not' ? !truthy(value) : unary(node.operator, value);
      }
      case 'chain': {
        let result = yield* this.value(node.first, scope);
        for (const { operator, value } of node.rest)
          result = binary(operator, result, yield* this.value(value, scope), budget);
        return result;
      }
      case 'compare':
        return yield* this.#comparison(node, scope);
      case 'and':
      case 'or': {
        let result;
        for (const one of node.items) {
          result = yield* this.value(one, scope);
          if (truthy(result) === (node.kind === 'or')) return result;
        }
        return result;
      }
      case 'concat': {
        const parts = [];
        for (const one of node.items) parts.push(this.printed(yield* this.value(one, scope)));
        if (parts.length > 4) return assemble(parts, budget);
        budget.joins(parts.reduce((sum, part) => sum + plain(part).length, 0));
        return parts.every((part) => typeof part === 'string')
          ? parts.reduce((a, b) => a + b)
          : concat(parts);
      }
      case 'conditional':
        if (yield* this.holds(node.test, scope)) return yield* this.value(node.yes, scope);
        if (node.no) return yield* this.value(node.no, scope);
        return new Undefined('the inline if-expression evaluated to false and no else section was defined.');
      default:
        throw new TemplateError(`a ${node.kind} is no value`);
    }
  }

  /** @param {Node[]} nodes @param {Scope} scope @returns {Generator<undefined, Value[], void>} */
  *#values(nodes, scope) {
    const values = [];
    for (const node of nodes) values.push(yield* this.value(node, scope));
    return values;
  }

  /**
   * @param {Extract<Node, { kind: 'compare' }>} node
   * @param {Scope} scope
   * @returns {Generator<undefined, boolean, void>}
   */
  *#comparison(node, scope) {
    let left = yield* this.value(node.first, scope);
    for (const { operator, value } of node.rest) {
      const right = yield* this.value(value, scope);
      if (!this.#compared(operator, left, right)) return false;
      left = right;
    }
    return true;
  }

  /** @param {string} operator @param {Value} a @param {Value} b @returns {boolean} */
  #compared(operator, a, b) {
    const { budget } = this;
    if (operator === '==') return equal(a, b, budget);
    if (operator === '!=') return !equal(a, b, budget);
    if (operator === 'in') return contains(a, b, budget);
    if (operator === 'not in') return !contains(a, b, budget);
    const order = compare(a, b, budget, operator);
    // A comparison with NaN gives NaN, so none of these is true.
    if (operator === '<') return order < 0;
    if (operator === '<=') return order <= 0;
    return operator === '>' ? order > 0 : order >= 0;
  }

  /**
   * @param {Arguments} args
   * @param {Scope} scope
   * @returns {Generator<undefined, { list: Value[], named: Map<string, Value> }, void>}
   */
  *arguments({ args, named, spread, namedSpread }, scope) {
    const list = yield* this.#values(args, scope);
    /** @type {Map<string, Value>} */
    const byName = new Map();
    for (const { name, value } of named) byName.set(name, yield* this.value(value, scope));
    if (spread) {
      const more = iterate(yield* this.value(spread, scope), this.budget);
      this.budget.spend(more.length);
      for (const one of more) list.push(one);
    }
    if (namedSpread) {
      const dict = yield* this.value(namedSpread, scope);
      if (!(dict instanceof Dict)) throw new TemplateError('argument after ** must be a mapping');
      for (const [key, value] of dict.entries()) byName.set(plain(key), value);
    }
    return { list, named: byName };
  }

  /**
   * @param {Extract<Node, { kind: 'call' }>} node
   * @param {Scope} scope
   * @param {Callable} [caller]  the body of a {% call %} block
   * @returns {Generator<undefined, Value, void>}
   */
  *call(node, scope, caller) {
    const called = yield* this.value(node.of, scope);
    const { list, named } = yield* this.arguments(node.args, scope);
    if (caller) named.set('caller', caller);
    if (called instanceof Undefined) called.fail();
    if (!(called instanceof Callable || called instanceof Facade) || !called.call)
      throw new TemplateError(`'${typeName(called)}' object is not callable`);
    const result = called.call(list, named);
    return isRunning(result) ? yield* result : result;
  }

  /** @param {Map<string, Value>} named */
  dictOf(named) {
    return new Dict(named);
  }

  /** The text that a value prints as. @param {Value} value @returns {import('./text.js').Str} */
  printed(value) {
    if (!isStr(value)) this.onPrint(value);
    return str(value, this.budget);
  }
}

/** @param {Value} result @returns {result is Generator<undefined, Value, void>} */
const isRunning = (result) => typeof result?.next === 'function' && typeof result?.return === 'function';
