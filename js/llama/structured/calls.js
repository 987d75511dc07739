/* The grammar of a call of a tool, which fused-matmul/openai asks for. */

import { literal } from './notation.js';
import { schemaGrammar } from './schema.js';

/**
 * The form of an answer that must be a call: its tools as OpenAI's API describes them, whether the
 * answer begins with the name already, and the texts around the arguments.
 * @typedef {object} CallFormat
 * @property {'call'} type
 * @property {readonly any[]} tools
 * @property {boolean} named
 * @property {import('../../openai/tool-calls.js').Around} around
 */

/**
 * @param {CallFormat} format
 * @returns {import('./schema.js').Prepared} the grammar of what follows the beginning of the answer
 * @throws {import('../../errors.js').ArgumentError} a schema cannot be followed
 */
export function callGrammar({ tools, named, around: { between, closing } }) {
  const rules = tools.map(({ function: { name, parameters, strict } }, i) => {
    const isFree = strict === false || Object.keys(parameters ?? {}).length === 0;
    const schema = isFree ? { type: 'object' } : parameters;
    const prepared = schemaGrammar(schema, `parameters of the tool ${name}`, `t${i}`);
    return { ...prepared, start: `${named ? '' : `${literal(`${name}${between}`)} `}t${i}root` };
  });
  // A rule for each tool, at whose start is one that keeps the engine from joining them.
  const starts = rules.map(({ start }, i) => `call${i} ::= t${i}z ${start}`);
  const names = rules.map((_, i) => `call${i}`).join(' | ');
  const root = `root ::= (${names}) ${literal(closing)}`;
  return {
    grammar: [root, ...starts, ...rules.map(({ grammar }) => grammar)].join('\n'),
    copies: rules.reduce((sum, { copies }) => sum + copies, 0),
  };
}
