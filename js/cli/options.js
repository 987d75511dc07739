/* Options of the commands. Each command has one table, which parsing and help are made from. */

import { parseArgs } from 'node:util';

/** An error in how a command was called; exit code 2. */
export class UsageError extends Error {}

/**
 * @typedef {object} Option
 * @property {'number' | 'text' | 'switch'} kind
 * @property {string} [value]  Placeholder of its value in the help.
 * @property {string} help
 * @property {boolean} [many]  Whether the option may be given several times.
 * @property {string} [short]
 * @property {string} [also]  Another name of the option.
 * @property {string} [as]  Name of the option in the library, where it is not the same in camel case.
 */

/** @typedef {Record<string, Option>} Options */

/** @type {Options} */
export const COMMON = {
  json: { kind: 'switch', help: 'print one JSON object instead of text' },
  help: { kind: 'switch', short: 'h', help: 'this text' },
};

/** @type {Options} */
export const MODEL = {
  lora: {
    kind: 'text',
    value: 'FILE[=SCALE]',
    many: true,
    help: 'LoRA adapter of the model (scale 1); may be given several times',
    as: 'adapters',
  },
  context: {
    kind: 'number',
    value: 'N',
    help: "positions of the context (the model's own, at most 4096)",
    as: 'contextLength',
  },
  'kv-type': { kind: 'text', value: 'TYPE', help: 'of the KV cache: F32, F16 or Q8_0 (F16)' },
  activation: { kind: 'text', value: 'MODE', help: 'f32, int16 or int8: exact to fast (int8)' },
  threads: { kind: 'number', value: 'N', help: 'threads of the kernels (a share of the processors)' },
  memory64: { kind: 'switch', help: '64-bit addresses, for models over 4 GiB' },
  isa: {
    kind: 'text',
    value: 'SET',
    help: 'instruction set: scalar, simd128 or relaxed (the best that works)',
  },
};

/** @type {Options} */
export const SAMPLING = {
  'max-tokens': {
    kind: 'number',
    short: 'n',
    also: 'tokens',
    value: 'N',
    help: 'tokens to write at most (256)',
  },
  temperature: { kind: 'number', value: 'T', help: '0 takes the most likely token each time (0.8)' },
  'top-k': { kind: 'number', value: 'K', help: 'only the K most likely tokens, 0: all (40)' },
  'top-p': { kind: 'number', value: 'P', help: 'of them the smallest set with probability P (0.95)' },
  'min-p': { kind: 'number', value: 'P', help: 'of them those with P of the largest probability (0.05)' },
  'repeat-penalty': { kind: 'number', value: 'R', help: 'over 1 makes repetition less likely (1)' },
  'frequency-penalty': {
    kind: 'number',
    value: 'R',
    help: 'lowers a token for each time that it came before (0)',
  },
  'presence-penalty': { kind: 'number', value: 'R', help: 'lowers tokens that came before, once (0)' },
  seed: { kind: 'number', value: 'N', help: 'the same seed, the same text (random)' },
  'ignore-end': { kind: 'switch', help: 'write on where the model would end' },
  stop: { kind: 'text', value: 'TEXT', many: true, help: 'ends the text; may be given several times' },
  speculate: {
    kind: 'text',
    value: 'HOW',
    help: "'lookup': drafts tokens from repeated text; same text, sooner (off)",
  },
};

/** @type {Options} */
export const FORM = {
  schema: { kind: 'text', value: 'FILE', help: 'write JSON of the JSON schema in this file' },
  'json-object': { kind: 'switch', help: 'write a JSON object' },
  grammar: { kind: 'text', value: 'FILE', help: 'follow the grammar in this file (EBNF, like GBNF)' },
};

/** @typedef {Record<string, any>} Values */

/**
 * @typedef {object} Command
 * @property {string} name
 * @property {string} summary
 * @property {string} usage  The arguments after the command's name, for the help.
 * @property {Options} options
 * @property {string} [examples]
 * @property {number} nArguments
 * @property {boolean} [more]  Whether more arguments may follow.
 * @property {(values: Values, args: string[], io: import('./output.js').Io) => Promise<void>} run
 */

/**
 * @param {Command} command
 * @param {string[]} args
 * @returns {{ values: Values, args: string[] }}
 */
export function readArguments({ name, options, nArguments, more = false, usage }, args) {
  /** @type {import('node:util').ParseArgsConfig['options']} */
  const config = {};
  /** @type {Record<string, string>} */
  const names = {};
  /** @type {string[]} */
  const numeric = [];
  for (const [option, { kind, many: multiple = false, short, also }] of Object.entries(options)) {
    const type = /** @type {'string' | 'boolean'} */ (kind === 'switch' ? 'boolean' : 'string');
    config[option] = { type, multiple, ...(short && { short }) };
    names[option] = option;
    if (kind === 'number') numeric.push(`--${option}`, `--${also}`, `-${short}`);
    if (!also) continue;
    config[also] = { type, multiple };
    names[also] = option;
  }
  let parsed;
  try {
    parsed = parseArgs({ args: joinNegative(args, numeric), options: config, allowPositionals: true });
  } catch (error) {
    const [first] = /** @type {Error} */ (error).message.split(/\.? To specify|\.\s/);
    throw new UsageError(`${first}; see fused-matmul ${name} --help`);
  }
  /** @type {Values} */
  const values = {};
  for (const [typed, text] of Object.entries(parsed.values)) {
    const option = names[typed];
    values[option] = options[option].kind === 'number' ? readNumber(String(text), typed) : text;
  }
  const { positionals } = parsed;
  const { length } = positionals;
  if (!values.help && (length < nArguments || (length > nArguments && !more))) {
    throw new UsageError(
      `${length} argument(s) given, expected ${nArguments}${more ? ' or more' : ''}: fused-matmul ${name} ${usage}`,
    );
  }
  return { values, args: positionals };
}

/**
 * Joins an option that takes a number and the negative one behind it, which would be taken for another
 * option.
 * @param {readonly string[]} args
 * @param {readonly string[]} numeric  the options, as they are typed
 */
function joinNegative(args, numeric) {
  /** @type {string[]} */
  const joined = [];
  for (const [i, arg] of args.entries()) {
    if (arg === '--') return [...joined, ...args.slice(i)];
    const before = joined.at(-1);
    if (before !== undefined && numeric.includes(before) && /^-[\d.]/.test(arg))
      joined[joined.length - 1] = `${before}${before.startsWith('--') ? '=' : ''}${arg}`;
    else joined.push(arg);
  }
  return joined;
}

/** @param {string} text @param {string} option */
function readNumber(text, option) {
  const number = Number(text);
  if (text.trim() === '' || Number.isNaN(number))
    throw new UsageError(`--${option} must be a number, got "${text}"`);
  return number;
}

/** @param {Command} command */
export function helpText({ name, summary, usage, options, examples }) {
  const rows = Object.entries(options).map(([option, { value, short, also, help }]) => [
    `${short ? `-${short}, ` : ''}${also ? `--${also}, ` : ''}--${option}${value ? ` ${value}` : ''}`,
    help,
  ]);
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  const list = rows.map(([left, help]) => `  ${left.padEnd(width)}${help}`).join('\n');
  return `usage: fused-matmul ${name} ${usage}\n\n${summary}\n\n${list}\n${examples ? `\n${examples}\n` : ''}`;
}

/** Turns --top-k into topK. @param {string} option */
const camel = (option) => option.replace(/-(.)/g, (_, letter) => letter.toUpperCase());

/**
 * The given options of a table, by the names that the library uses.
 * @param {Values} values
 * @param {Options} table
 */
export function given(values, table) {
  const names = Object.keys(table).filter((option) => values[option] !== undefined);
  return Object.fromEntries(names.map((option) => [nameOf(option, table), values[option]]));
}

/** The name of an option in the library. @param {string} option @param {Options} table */
const nameOf = (option, table) => table[option].as ?? camel(option);

/**
 * The message of the library about an option, with the name that the command has for it.
 * @param {string} message  it begins with the name of the option in the library
 * @param {Options} table
 */
export function asTyped(message, table) {
  const option = Object.keys(table).find((one) => message.startsWith(`${nameOf(one, table)} must be `));
  return option ? `--${option}${message.slice(nameOf(option, table).length)}` : message;
}
