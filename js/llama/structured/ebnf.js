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
 * The same grammar, in which each of several alternatives has a rule of its own. At its end is a rule
 * that is empty or has a character that no token has, so that the engine keeps them apart.
 * @param {string} grammar  without mistakes
 * @returns {string}
 */
export function separated(grammar) {
  let prefix = 'part';
  while (grammar.includes(prefix)) prefix += '_';
  const tokens = [...grammar.matchAll(TOKENS)]
    .map(([token]) => token)
    .filter((token) => !token.startsWith('#'));
  /** @type {string[]} */
  const rules = [];
  let at = 0;
  const isName = () => tokens[at]?.endsWith('::=');
  /** @returns {string} */
  const alternatives = () => {
    const all = [sequence()];
    while (tokens[at] === '|') {
      at += 1;
      all.push(sequence());
    }
    if (all.length === 1) return all[0];
    const names = all.map((body) => {
      const name = `${prefix}${rules.length}`;
      rules.push(`${name} ::= ${body} ${prefix}`);
      return name;
    });
    return `(${names.join(' | ')})`;
  };
  const sequence = () => {
    const parts = [];
    while (at < tokens.length && !isName() && tokens[at] !== '|' && tokens[at] !== ')') {
      const token = tokens[at++];
      if (token === '(') {
        parts.push(`(${alternatives()})`);
        at += 1;
      } else parts.push(token);
    }
    return parts.join(' ').replace(/ (?=[*+?{])/g, '');
  };
  const lines = [];
  while (at < tokens.length) {
    const name = tokens[at++];
    lines.push(`${name} ${alternatives()}`);
  }
  return [...lines, ...rules, `${prefix} ::= "" | "\\x01"`].join('\n');
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
