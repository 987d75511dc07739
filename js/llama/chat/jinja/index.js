/* A Jinja2 engine for chat templates. It uses the settings of transformers (trim_blocks,
 * lstrip_blocks, loop controls, a sandbox that changes nothing) and has limits, because a template
 * comes from a stranger. */

import { globals } from './globals.js';
import { Interpreter } from './interpreter.js';
import { TemplateError } from './lexer.js';
import { Budget, LimitError } from './limits.js';
import { parse } from './parser.js';
import { Scope } from './scope.js';

/** @typedef {import('./text.js').Str} Str */
/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./evaluator.js').Watch} Watch */

/**
 * A rendering in progress; each step of `run` is a few milliseconds of work.
 * @typedef {{ run: Generator<undefined, Str, void>, budget: Budget }} Rendering
 */

/** A parsed template. */
export class Template {
  #body;

  /**
   * @param {string} source
   * @throws {TemplateError} the source is not a valid template
   * @throws {LimitError} the source is too long or nested too deeply
   */
  constructor(source) {
    this.#body = guarded(() => parse(source));
  }

  /**
   * @param {(budget: Budget) => Map<string, Value>} variables
   * @param {Partial<Watch>} [watch]
   * @returns {Rendering}
   */
  start(variables, { onLoop = () => {}, onPrint = () => {} } = {}) {
    const budget = new Budget();
    const scope = new Scope();
    for (const [name, value] of globals(budget)) scope.set(name, value);
    for (const [name, value] of variables(budget)) scope.set(name, value);
    const steps = new Interpreter(budget, { onLoop, onPrint }).template(this.#body, new Scope(scope));
    return { budget, run: guardedSteps(steps, budget) };
  }
}

/**
 * @param {Generator<undefined, Str, void>} steps
 * @param {Budget} budget
 * @returns {Generator<undefined, Str, void>}
 */
function* guardedSteps(steps, budget) {
  for (;;) {
    budget.resume();
    const { done, value } = guarded(() => steps.next());
    budget.rest();
    if (done) return value;
    yield;
  }
}

/**
 * Converts a stack overflow to a LimitError: the JavaScript stack may end before the limit of
 * nesting.
 * @template T
 * @param {() => T} work
 * @returns {T}
 */
function guarded(work) {
  try {
    return work();
  } catch (error) {
    const { name, message } = /** @type {Error} */ (error);
    if ((name === 'RangeError' && /stack/i.test(message)) || name === 'InternalError')
      throw new LimitError('depth', Number.POSITIVE_INFINITY, { cause: error });
    throw error;
  }
}

export { LimitError, TemplateError };
