/* Grammars of users. The engine reads some of them and gets them wrong: classes with characters beyond
 * ASCII, which are refused, and texts that stand side by side in one rule, which are separated. Parts
 * of other notations are refused too. */

import { ArgumentError } from '../../errors.js';

/** Comments, texts, classes, numbers of times, and what else there is. */
const TOKENS =
  /#[^\n]*|"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[^}]*\}|[A-Za-z_][\w.-]*(?:\s*::=)?|\(=|[()|*+?]/gsu;
/** A character beyond ASCII, or its number. */
const BEYOND_ASCII = /[^\0-\x7f]|\\x[89a-fA-F]|\\u(?!00[0-7])|\\U(?!000000[0-7])/u;

/**
 * A part of a sequence: a text, a class, the name of a rule, or alternatives in parentheses; `times` is
 * empty, or how often it comes.
 * @typedef {{ text: string, group?: Part[][], times: string }} Part
 */

/**
 * The same grammar in a form that the engine reads well. Each of several alternatives has a rule of its
 * own, and at the start of that a rule that is empty or has a character that no token has, so that the engine
 * keeps them apart. Where alternatives are repeated, single characters among them stay in the loop, as the
 * engine looks at each token of the vocabulary again where a loop has rules only:
 *
 *   ([a-z] | x)*  is  [a-z]* (x [a-z]*)*
 * @param {string} grammar  without mistakes
 * @returns {string}
 */
export function separated(grammar) {
  const rules = parse(grammar);
  let prefix = 'part';
  while (grammar.includes(prefix)) prefix += '_';
  /** @type {string[]} */
  const added = [];
  /** @param {Part[][]} all @returns {string} */
  const alternatives = (all) => {
    if (all.length === 1) return sequence(all[0]);
    return `(${all.map((parts) => rule(sequence(parts))).join(' | ')})`;
  };
  /** The name of a new rule. @param {string} body */
  const rule = (body) => {
    const name = `${prefix}${added.length}`;
    added.push(`${name} ::= ${prefix} ${body}`);
    return name;
  };
  /**
   * The parts of a loop over alternatives: its characters, and the rule of the others, empty if there are
   * none. Each is made once, and has its name before its body, which may hold the loop itself.
   * @type {Map<Part[][], { characters: string, other: string }>}
   */
  const loops = new Map();
  /** @param {Part[][]} choices */
  const loopOf = (choices) => {
    const known = loops.get(choices);
    if (known) return known;
    const { characters, others } = split(choices);
    const made = { characters, other: '' };
    loops.set(choices, made);
    if (characters && others.length > 0) {
      made.other = `${prefix}${added.length}`;
      const at = added.push('') - 1;
      added[at] = `${made.other} ::= ${prefix} ${alternatives(others)}`;
    }
    return made;
  };
  /** @param {Part[]} parts */
  const sequence = (parts) => parts.map(one).join(' ');
  /** @param {Part} part @returns {string} */
  const one = ({ text, group, times }) => {
    const choices = group ?? rules.get(text);
    if (choices && (times === '*' || times === '+')) {
      const { characters, other } = loopOf(choices);
      if (characters && !other) return `${characters}${times}`;
      if (characters) {
        const first = times === '+' ? `(${rule(characters)} | ${other}) ` : '';
        return `${first}${characters}* (${other} ${characters}*)*`;
      }
    }
    return `${group ? `(${alternatives(group)})` : text}${times}`;
  };
  const lines = [...rules].map(([name, all]) => `${name} ::= ${alternatives(all)}`);
  return [...lines, ...added, `${prefix} ::= "" | "\\x01"`].join('\n');
}

/**
 * The rules of a grammar, by their names.
 * @param {string} grammar
 */
function parse(grammar) {
  const tokens = [...grammar.matchAll(TOKENS)]
    .map(([token]) => token)
    .filter((token) => !token.startsWith('#'));
  let at = 0;
  /** @returns {Part[][]} */
  const alternatives = () => {
    const all = [sequence()];
    while (tokens[at] === '|') {
      at += 1;
      all.push(sequence());
    }
    return all;
  };
  const sequence = () => {
    /** @type {Part[]} */
    const parts = [];
    while (at < tokens.length && !tokens[at].endsWith('::=') && !'|)'.includes(tokens[at])) {
      const text = tokens[at++];
      const group = text === '(' ? alternatives() : undefined;
      if (group) at += 1;
      const times = /^[*+?{]/.test(tokens[at] ?? '') ? tokens[at++] : '';
      parts.push({ text, times, ...(group && { group }) });
    }
    return parts;
  };
  /** @type {Map<string, Part[][]>} */
  const rules = new Map();
  while (at < tokens.length) {
    const name = tokens[at++].replace(/\s*::=$/, '');
    rules.set(name, alternatives());
  }
  return rules;
}

/**
 * Tells alternatives that are a single character from others.
 * @param {Part[][]} choices
 * @returns {{ characters: string, others: Part[][] }}  characters: a class of them, empty if there are none
 */
function split(choices) {
  const classes = choices.map((parts) => (parts.length === 1 ? classOf(parts[0]) : ''));
  const excluding = classes.find((one) => one.startsWith('[^'));
  const taken = classes.map((one) => (excluding ? one === excluding : one !== ''));
  const members = classes.filter((_, i) => taken[i]).map((one) => one.slice(1, -1));
  const characters = excluding ?? (members.length > 0 ? `[${members.join('')}]` : '');
  return { characters, others: choices.filter((_, i) => !taken[i]) };
}

/**
 * The class of a part that is a single character, otherwise nothing. A class that could not stand beside
 * another one, with a hyphen at an edge, is left out too.
 * @param {Part} part
 */
function classOf({ text, times }) {
  if (times !== '') return '';
  if (text.startsWith('[')) return /^\[(\^|(?!-).*[^-]\]$)/s.test(text) ? text : '';
  return /^"[\w ,.:;]"$/.test(text) ? `[${text[1]}]` : '';
}

/**
 * @param {string} grammar
 * @throws {ArgumentError} a class of characters goes beyond ASCII, or there is a part of another notation
 */
export function checkClasses(grammar) {
  for (const { 0: text, index } of grammar.matchAll(TOKENS)) {
    const isWrong = text.startsWith('[') && BEYOND_ASCII.test(text);
    if (!isWrong && text !== '(=' && !text.startsWith('TagDispatch')) continue;
    const line = grammar.slice(0, index).split('\n').length;
    const why = isWrong
      ? 'as classes are limited to ASCII. [^...] allows all characters beyond ASCII, and single ones are written as "é" | "ü"'
      : text === '(='
        ? 'as a condition on what follows'
        : 'as a part of another notation';
    throw new ArgumentError(`grammar: line ${line}: ${text} is not supported, ${why}`);
  }
}
