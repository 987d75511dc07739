/* Structured output: which tokens may come next, by the options `responseFormat` and `grammar`. Fetched
 * with the first generation that has one of them. */

import { callGrammar } from './calls.js';
import { checkClasses, separated } from './ebnf.js';
import { startMask } from './engine.js';
import { objectGrammar, schemaGrammar } from './schema.js';

/**
 * @typedef {{ responseFormat?: import('../options.js').ResponseFormat | import('./calls.js').CallFormat | undefined,
 *   grammar?: string | undefined }} Constraints
 */

/**
 * Starts to follow the grammar of a generation.
 * @param {Constraints} options
 * @param {import('../tokenizer/tokenizer.js').Tokenizer} tokenizer
 * @param {import('../lease.js').Lease} lease  its end frees the memory
 * @returns {Promise<import('./engine.js').Mask>}
 */
export async function followGrammar(options, tokenizer, lease) {
  const mask = await startMask(tokenizer, grammarOf(options));
  lease.onEnd(() => mask.free());
  if (!lease.held) mask.free();
  return mask;
}

/** @param {Constraints} options */
function grammarOf({ responseFormat, grammar }) {
  if (grammar !== undefined) {
    checkClasses(grammar);
    return { grammar, copies: 0, name: 'grammar', rewrite: separated };
  }
  const name = 'responseFormat.schema';
  if (responseFormat?.type === 'call') return { ...callGrammar(responseFormat), name: 'tools' };
  if (responseFormat?.type === 'json_schema') return { ...schemaGrammar(responseFormat.schema, name), name };
  return { ...objectGrammar(), name: 'responseFormat' };
}
