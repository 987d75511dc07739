/* Functions that every template sees: those of Jinja2, and two more that chat templates expect. */

import { bind, integer, text } from './calls.js';
import { TemplateError } from './lexer.js';
import { LIMITS, LimitError } from './limits.js';
import { str } from './print.js';
import { plain } from './text.js';
import { strftime } from './time.js';
import { Callable, Dict, Facade, iterate, Namespace, Range, Undefined } from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */

/** The error of raise_exception() in a template. */
export class RaisedError extends TemplateError {}

/** @param {Value[]} args @returns {Range} */
function range(args) {
  const numbers = args.map((one) => integer(one, 0, 'range()'));
  if (numbers.length < 1 || numbers.length > 3)
    throw new TemplateError(`range expected 1 to 3 arguments, got ${numbers.length}`);
  const [start, stop, step = 1] = numbers.length === 1 ? [0, numbers[0]] : numbers;
  if (step === 0) throw new TemplateError('range() arg 3 must not be zero');
  const result = new Range(start, stop, step);
  if (result.length > LIMITS.range) throw new LimitError('range', result.length);
  return result;
}

/**
 * The entries of a mapping or of pairs, followed by named ones.
 * @param {Value[]} args
 * @param {Map<string, Value>} named
 * @param {Budget} budget
 * @returns {[Value, Value][]}
 */
function entries(args, named, budget) {
  const [first] = args;
  if (first instanceof Dict) return [...first.entries(), ...named];
  const pairs = first === undefined ? [] : iterate(first, budget).map((pair) => iterate(pair, budget));
  for (const pair of pairs)
    if (pair.length !== 2) throw new TemplateError('a dict is made of pairs of a key and a value');
  return [.../** @type {[Value, Value][]} */ (pairs), ...named];
}

/** @param {Value[]} items @returns {Facade} */
function cycler(items) {
  if (items.length === 0) throw new TemplateError('at least one item has to be provided');
  let at = 0;
  const next = new Callable('next', () => {
    const one = items[at];
    at = (at + 1) % items.length;
    return one;
  });
  const reset = new Callable('reset', () => {
    at = 0;
    return null;
  });
  return new Facade('Cycler', (name) => ({ next, reset, current: items[at] })[name]);
}

/** @param {Value} separator @returns {Facade} */
function joiner(separator) {
  let used = false;
  const call = () => {
    const result = used ? separator : '';
    used = true;
    return result;
  };
  return new Facade('Joiner', () => undefined, call);
}

/**
 * @param {Budget} budget
 * @returns {Map<string, Value>}
 */
export function globals(budget) {
  /** @type {Record<string, Callable['call']>} */
  const functions = {
    range: (args) => range(args),
    dict: (args, named) => new Dict(entries(args, named, budget)),
    namespace: (args, named) => {
      const made = new Namespace();
      for (const [key, value] of entries(args, named, budget)) made.values.set(plain(key), value);
      return made;
    },
    cycler: (args) => cycler(args),
    joiner: (args, named) => joiner(bind('joiner', ['sep'], args, named)[0] ?? ', '),
    raise_exception: (args) => {
      const [message] = args;
      throw new RaisedError(message instanceof Undefined ? '' : plain(str(message ?? '', budget)));
    },
    strftime_now: (args) => {
      const format = plain(text(args[0], 'strftime_now'));
      budget.makes(format.length * 32);
      return strftime(format, new Date());
    },
  };
  return new Map(Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)]));
}
