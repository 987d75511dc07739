/**
 * `npm run bench -- --structured`: what structured output costs at a vocabulary of 150,000 tokens, beside
 * the time of a token of a synthetic model. The schema is followed with tokens that are drawn from those
 * that it allows.
 */
import { openGguf } from '../../js/gguf/index.js';
import { Llama } from '../../js/llama/index.js';
import { separated } from '../../js/llama/structured/ebnf.js';
import { startMask } from '../../js/llama/structured/engine.js';
import { schemaGrammar } from '../../js/llama/structured/schema.js';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { Prng } from '../helpers/prng.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';
import { median } from './lab.js';
import { largeLlama } from './large-llama.js';

/** @type {Record<string, object>} */
const SCHEMAS = {
  'a person': {
    type: 'object',
    properties: { name: { type: 'string' }, age: { type: 'integer', minimum: 0, maximum: 120 } },
    required: ['name', 'age'],
  },
  'any object': { type: 'object' },
  'a list of choices': { type: 'array', items: { enum: ['red', 'green', 'blue'] }, minItems: 10 },
  'a date': { type: 'string', format: 'date-time' },
  '20 characters': { type: 'string', maxLength: 20 },
};

/** JSON as grammars of users write it, with the strings, objects and escapes of llama.cpp's example. */
const JSON_GRAMMAR = String.raw`
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") space
object ::= "{" space (string ":" space value ("," space string ":" space value)*)? "}" space
array ::= "[" space (value ("," space value)*)? "]" space
string ::= "\"" char* "\"" space
char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4})
number ::= "-"? ([0-9] | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,3})? space
space ::= "" | " " | "\n"
`;

/** @returns {Promise<string>} a report */
export async function structured() {
  const vocabulary = 'vocab/ggml-vocab-qwen2.gguf';
  const missing = skipWithout(vocabulary);
  if (missing) return missing;
  const gguf = await openGguf(dataPath(vocabulary));
  const tokenizer = new Tokenizer(gguf.metadata);
  gguf.close();
  const model = await Llama.load(largeLlama('Q4_K_M'), { contextLength: 128 });
  const run = model.generate('A', { maxTokens: 24, temperature: 0, ignoreEnd: true });
  await run.text();
  const tokenMs = run.stats.decodeMs / (run.stats.tokens - 1);
  model.dispose();
  const prng = new Prng(1);
  const lines = [`a token of the model: ${tokenMs.toFixed(1)} ms; ${tokenizer.size} tokens`];
  const grammars = [
    ...Object.entries(SCHEMAS).map(([name, schema]) => ({ ...schemaGrammar(schema, name), name })),
    { grammar: JSON_GRAMMAR, copies: 0, name: 'a grammar of JSON', rewrite: separated },
  ];
  for (const prepared of grammars) {
    const { name } = prepared;
    const begun = performance.now();
    const mask = await startMask(tokenizer, prepared);
    const readyMs = performance.now() - begun;
    /** @type {number[]} */
    const times = [];
    /** @type {number[]} */
    const tokens = [];
    const row = new Float32Array(tokenizer.size);
    while (times.length < 200) {
      row.fill(0);
      const since = performance.now();
      mask.apply(row, tokens);
      times.push(performance.now() - since);
      const allowed = [];
      for (let id = 0; id < row.length; id++) if (row[id] === 0) allowed.push(id);
      const token = allowed[prng.int(0, allowed.length - 1)];
      if (tokenizer.ends.has(token)) break;
      tokens.push(token);
    }
    mask.free();
    const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
    const half = median(times.slice().sort((a, b) => a - b));
    lines.push(
      `${name}: ready after ${readyMs.toFixed(0)} ms; a mask takes ${half.toFixed(2)} ms (median), ${mean.toFixed(2)} (mean), ${Math.max(...times).toFixed(1)} (most): ${((100 * mean) / tokenMs).toFixed(1)} % of a token, ${times.length} masks`,
    );
  }
  return lines.join('\n');
}
