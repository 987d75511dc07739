/* The grammar of a call that the answer must be. Fetched with the first such request. */

import { literal } from '../llama/structured/notation.js';
import { schemaGrammar } from '../llama/structured/schema.js';

/**
 * @param {readonly any[]} tools  tools of which one must be called
 * @param {boolean} named  whether the answer begins with the name already
 * @param {import('./tool-calls.js').Around} around
 * @returns {string} the grammar of what follows the beginning of the answer
 * @throws {import('../errors.js').ArgumentError} a schema cannot be followed
 */
export function callGrammar(tools, named, { between, closing }) {
  const rules = tools.map(({ function: { name, parameters, strict } }, i) => {
    const isFree = strict === false || Object.keys(parameters ?? {}).length === 0;
    const schema = isFree ? { type: 'object' } : parameters;
    const { grammar } = schemaGrammar(schema, `parameters of the tool ${name}`, `t${i}`);
    return { grammar, start: `${named ? '' : `${literal(`${name}${between}`)} `}t${i}root` };
  });
  const starts = rules.map(({ start }) => start).join(' | ');
  return [`root ::= (${starts}) ${literal(closing)}`, ...rules.map(({ grammar }) => grammar)].join('\n');
}
