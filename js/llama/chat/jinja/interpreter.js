/* Runs the statements of a template. Every function that may take long is a generator. It yields
 * when other tasks should get a turn, so its caller can pause or abort it. */

import { Evaluator } from './evaluator.js';
import { runFilter } from './filters.js';
import { TemplateError } from './lexer.js';
import { str } from './print.js';
import { Scope } from './scope.js';
import { plain } from './text.js';
import { assemble, Callable, equal, Facade, iterate, Namespace, Tuple, Undefined } from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./text.js').Str} Str */
/** @typedef {import('./parser.js').Statement} Statement */
/** @typedef {import('./parser.js').For} For */
/** @typedef {import('./parser.js').MacroBody} MacroBody */
/** @typedef {import('./expressions.js').Node} Node */
/** @typedef {'break' | 'continue' | undefined} Control */

export class Interpreter extends Evaluator {
  /** The output so far; a macro and a block with a filter have their own. @type {Str[]} */
  #out = [];
  #length = 0;

  /**
   * Renders the whole template.
   * @param {Statement[]} body
   * @param {Scope} scope
   * @returns {Generator<undefined, Str, void>}
   */
  *template(body, scope) {
    return yield* this.#captured(body, scope);
  }

  /**
   * The output of some statements.
   * @param {Statement[]} body
   * @param {Scope} scope
   * @returns {Generator<undefined, Str, void>}
   */
  *#captured(body, scope) {
    const [out, length] = [this.#out, this.#length];
    this.#out = [];
    this.#length = 0;
    try {
      yield* this.#run(body, scope);
      return assemble(['', ...this.#out], this.budget);
    } finally {
      this.#out = out;
      this.#length = length;
    }
  }

  /** @param {Str} text */
  #write(text) {
    if (plain(text) === '') return;
    this.#length += plain(text).length;
    this.budget.fits(this.#length);
    this.#out.push(text);
  }

  /**
   * @param {Statement[]} body
   * @param {Scope} scope
   * @returns {Generator<undefined, Control, void>}
   */
  *#run(body, scope) {
    this.enter();
    for (const statement of body) {
      if (this.budget.step()) yield;
      const control = yield* this.#statement(statement, scope);
      if (control) {
        this.leave();
        return control;
      }
    }
    this.leave();
    return undefined;
  }

  /**
   * @param {Statement} statement
   * @param {Scope} scope
   * @returns {Generator<undefined, Control, void>}
   */
  *#statement(statement, scope) {
    switch (statement.kind) {
      case 'data':
        this.#write(statement.text);
        return undefined;
      case 'print':
        for (const node of statement.values) this.#write(this.printed(yield* this.value(node, scope)));
        return undefined;
      case 'if':
        for (const { test, body } of statement.branches)
          if (yield* this.holds(test, scope)) return yield* this.#run(body, scope);
        return yield* this.#run(statement.otherwise, scope);
      case 'for':
        return yield* this.#for(statement, scope, yield* this.value(statement.items, scope), 0);
      case 'set':
        this.#assign(statement.target, yield* this.value(statement.value, scope), scope);
        return undefined;
      case 'setBlock': {
        const text = yield* this.#captured(statement.body, new Scope(scope));
        this.#assign(statement.target, yield* this.#filtered(text, statement.filters, scope), scope);
        return undefined;
      }
      case 'filterBlock': {
        const text = yield* this.#captured(statement.body, new Scope(scope));
        this.#write(str(yield* this.#filtered(text, statement.filters, scope), this.budget));
        return undefined;
      }
      case 'with': {
        const inner = new Scope(scope);
        for (const { target, value } of statement.pairs)
          this.#assign(target, yield* this.value(value, scope), inner);
        return yield* this.#run(statement.body, inner);
      }
      case 'scope':
        return yield* this.#run(statement.body, new Scope(scope));
      case 'macro':
        scope.set(statement.name, this.#macro(statement.name, statement.macro, scope));
        return undefined;
      case 'callBlock': {
        const caller = this.#macro('caller', statement.macro, scope);
        this.#write(str(yield* this.call(statement.call, scope, caller), this.budget));
        return undefined;
      }
      default:
        return statement.kind;
    }
  }

  /**
   * @param {Value} value
   * @param {import('./parser.js').Filter[]} filters
   * @param {Scope} scope
   * @returns {Generator<undefined, Value, void>}
   */
  *#filtered(value, filters, scope) {
    let result = value;
    for (const { name, args } of filters) {
      const { list, named } = yield* this.arguments(args, scope);
      result = runFilter(name, result, list, named, this.tools);
    }
    return result;
  }

  /** @param {Node} target @param {Value} value @param {Scope} scope */
  #assign(target, value, scope) {
    if (target.kind === 'name') scope.set(target.name, value);
    else if (target.kind === 'namespace') {
      const namespace = scope.get(target.name);
      if (!(namespace instanceof Namespace))
        throw new TemplateError('cannot assign attribute on non-namespace object');
      namespace.values.set(target.key, value);
    } else if (target.kind === 'tuple' || target.kind === 'list') {
      if (value instanceof Undefined) value.fail();
      const items = iterate(value, this.budget);
      const [got, expected] = [items.length, target.items.length];
      if (got > expected) throw new TemplateError(`too many values to unpack (expected ${expected})`);
      if (got < expected)
        throw new TemplateError(`not enough values to unpack (expected ${expected}, got ${got})`);
      for (const [i, one] of target.items.entries()) this.#assign(one, items[i], scope);
    }
  }

  /**
   * @param {For} node
   * @param {Scope} scope
   * @param {Value} value
   * @param {number} depth  depth of a recursive loop
   * @returns {Generator<undefined, Control, void>}
   */
  *#for(node, scope, value, depth) {
    this.onLoop(value);
    let items = iterate(value, this.budget);
    if (node.test) {
      const kept = [];
      for (const one of items) {
        const inner = new Scope(scope);
        this.#assign(node.target, one, inner);
        if (yield* this.holds(node.test, inner)) kept.push(one);
      }
      items = kept;
    }
    const state = { index: 0, last: /** @type {Value} */ (undefined) };
    const loop = this.#loop(node, scope, items, state, depth);
    let completed = false;
    for (; state.index < items.length; state.index++) {
      if (this.budget.step()) yield;
      const inner = new Scope(scope);
      inner.set('loop', loop);
      this.#assign(node.target, items[state.index], inner);
      const control = yield* this.#run(node.body, inner);
      if (control === 'break') break;
      if (!control) completed = true;
    }
    // For `else`, Jinja2 counts only iterations that were run to their end.
    return completed ? undefined : yield* this.#run(node.otherwise, new Scope(scope));
  }

  /**
   * The variable `loop`.
   * @param {For} node
   * @param {Scope} scope
   * @param {Value[]} items
   * @param {{ index: number, last: Value }} state
   * @param {number} depth
   */
  #loop(node, scope, items, state, depth) {
    const { budget } = this;
    const cycle = new Callable('cycle', (args) => {
      if (args.length === 0) throw new TemplateError('no items for cycling given');
      return args[state.index % args.length];
    });
    const changed = new Callable('changed', (args) => {
      const now = new Tuple(args);
      const same = state.last !== undefined && equal(state.last, now, budget);
      state.last = now;
      return !same;
    });
    const attribute = (/** @type {string} */ name) => {
      const { index } = state;
      const { length } = items;
      switch (name) {
        case 'index':
          return index + 1;
        case 'index0':
          return index;
        case 'revindex':
          return length - index;
        case 'revindex0':
          return length - index - 1;
        case 'first':
          return index === 0;
        case 'last':
          return index === length - 1;
        case 'length':
          return length;
        case 'depth':
          return depth + 1;
        case 'depth0':
          return depth;
        case 'previtem':
          return index > 0 ? items[index - 1] : new Undefined('there is no previous item');
        case 'nextitem':
          return index + 1 < length ? items[index + 1] : new Undefined('there is no next item');
        case 'cycle':
          return cycle;
        case 'changed':
          return changed;
        default:
          return undefined;
      }
    };
    const self = this;
    const recurse = function* (/** @type {Value[]} */ [value]) {
      if (!node.recursive)
        throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.");
      return yield* self.#recursed(node, scope, value, depth + 1);
    };
    return new Facade('LoopContext', attribute, recurse);
  }

  /**
   * @param {For} node
   * @param {Scope} scope
   * @param {Value} value
   * @param {number} depth
   * @returns {Generator<undefined, Str, void>}
   */
  *#recursed(node, scope, value, depth) {
    const [out, length] = [this.#out, this.#length];
    this.#out = [];
    this.#length = 0;
    try {
      yield* this.#for(node, scope, value, depth);
      return assemble(['', ...this.#out], this.budget);
    } finally {
      this.#out = out;
      this.#length = length;
    }
  }

  /** @param {string} name @param {MacroBody} macro @param {Scope} outer @returns {Callable} */
  #macro(name, { parameters, body, uses }, outer) {
    const self = this;
    return new Callable(name, function* (args, given) {
      const scope = new Scope(outer);
      const named = new Map(given);
      const late = [];
      for (const [i, parameter] of parameters.entries()) {
        if (i < args.length) scope.set(parameter.name, args[i]);
        else if (named.has(parameter.name)) {
          scope.set(parameter.name, named.get(parameter.name));
          named.delete(parameter.name);
        } else late.push(parameter);
      }
      for (const parameter of late) {
        const value = parameter.by
          ? yield* self.value(parameter.by, scope)
          : new Undefined(`parameter '${parameter.name}' was not provided`);
        scope.set(parameter.name, value);
      }
      if (uses.has('caller') && !parameters.some((one) => one.name === 'caller')) {
        scope.set('caller', named.get('caller') ?? new Undefined('No caller defined'));
        named.delete('caller');
      }
      if (uses.has('kwargs')) scope.set('kwargs', self.dictOf(named));
      else if (named.size > 0) {
        const [first] = named.keys();
        throw new TemplateError(`macro '${name}' takes no keyword argument '${first}'`);
      }
      const rest = args.slice(parameters.length);
      if (uses.has('varargs')) scope.set('varargs', new Tuple(rest));
      else if (rest.length > 0)
        throw new TemplateError(`macro '${name}' takes not more than ${parameters.length} argument(s)`);
      return yield* self.#captured(body, scope);
    });
  }
}
