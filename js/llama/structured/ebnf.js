/* Checks grammars of users for what the engine reads but gets wrong: classes with characters beyond
 * ASCII. */

import { ArgumentError } from '../../errors.js';

/** Strings, comments and classes of characters. */
const PARTS = /"(?:[^"\\]|\\.)*"|#[^\n]*|\[((?:[^\]\\]|\\.)*)\]/gsu;
/** A character beyond ASCII, or its number. */
const BEYOND_ASCII = /[^\0-\x7f]|\\x[89a-f]|\\u(?!00[0-7])|\\U(?!000000[0-7])/iu;

/**
 * @param {string} grammar
 * @throws {ArgumentError} a class of characters goes beyond ASCII
 */
export function checkClasses(grammar) {
  for (const { 0: text, 1: inside = '', index } of grammar.matchAll(PARTS)) {
    if (!BEYOND_ASCII.test(inside)) continue;
    const line = grammar.slice(0, index).split('\n').length;
    throw new ArgumentError(
      `grammar: line ${line}: ${text} is not supported, as classes are limited to ASCII. [^...] allows all characters beyond ASCII, and single ones are written as "é" | "ü"`,
    );
  }
}
