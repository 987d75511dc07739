/* Checks the names, types and ranges of options. */

import { checkNames } from '../checks.js';
import { ArgumentError, show } from '../errors.js';

/**
 * Options of a call that computes.
 * @typedef {object} CallOptions
 * @property {AbortSignal | undefined} [signal]  Aborts the call: it rejects with the signal's reason.
 * @property {boolean | undefined} [queue]  Wait in a line while another call uses the context, instead of
 *   failing with a BusyError. Default false.
 */

/**
 * How much of a prompt is computed.
 * @typedef {object} PromptProgress
 * @property {'prompt'} phase  What is being done.
 * @property {number} done  Tokens of the prompt that are in the context, those included that were
 *   there before.
 * @property {number} total  Tokens of the prompt.
 */

/**
 * The form of a text that is JSON of a schema.
 * @typedef {object} JsonSchemaFormat
 * @property {'json_schema'} type  Says that there is a schema.
 * @property {object | boolean} schema  A JSON schema; the text has a value that it allows.
 */

/**
 * The form of a text that is a JSON object.
 * @typedef {object} JsonObjectFormat
 * @property {'json_object'} type  Says that any JSON object will do.
 */

/**
 * The form of a text: JSON of a schema, or any JSON object.
 * @typedef {JsonSchemaFormat | JsonObjectFormat} ResponseFormat
 */

/**
 * @typedef {object} GenerateOptions
 * @property {number} [maxTokens]  The most tokens to generate. The text also ends when the context
 *   is full. Default 256.
 * @property {number} [temperature]  How freely tokens are chosen; 0 always takes the most likely
 *   one. Default 0.8.
 * @property {number} [topK]  Keep the K most likely tokens; 0 keeps all. Default 40.
 * @property {number} [topP]  Keep the smallest set of tokens whose probabilities add up to this,
 *   from 0 to 1. Default 0.95.
 * @property {number} [minP]  Drop tokens below minP times the top probability, from 0 to 1. Default
 *   0.05.
 * @property {number} [seed]  Seed of the random numbers, an integer from 0 to 2^53 - 1; the same
 *   seed gives the same text. Default: a new one each time.
 * @property {number} [repeatPenalty]  Values over 1 make tokens that came before less likely.
 *   Default 1.
 * @property {number} [frequencyPenalty]  Subtracted from the logit of a token for each time that it came
 *   before, from -2 to 2. Default 0.
 * @property {number} [presencePenalty]  Subtracted from the logits of tokens that came before, from -2
 *   to 2. Default 0.
 * @property {number} [repeatWindow]  How many tokens back the three penalties look. Default 64.
 * @property {string | readonly string[]} [stop]  Texts that end the generation; they are not part
 *   of the result. They also match the spelling of control tokens, e.g. '<|im_end|>'.
 * @property {boolean} [ignoreEnd]  Write on where the model would end, as measurements need it.
 *   Default false.
 * @property {import('./hooked-sampler.js').LogitsHook | undefined} [logits]  A function that is called
 *   for every token before it is chosen, with the row of logits, which it may change, and the tokens so
 *   far. On a GPU each token then waits for the one before. Not for a model in a worker.
 * @property {number | undefined} [logprobs]  Report the log probability of each token in `logprobs` of
 *   the generation, with so many of the most likely tokens beside it: 0 to 1000. Default: none is reported.
 * @property {ResponseFormat | undefined} [responseFormat]  The form that the text must have: JSON of a
 *   schema with `{ type: 'json_schema', schema }`, or a JSON object with `{ type: 'json_object' }`. The
 *   text ends with the JSON value. Where the `finishReason` is not 'end', it may be incomplete.
 * @property {string | undefined} [grammar]  A grammar that the text must follow, in EBNF as llama.cpp's
 *   GBNF writes it, whose first rule is called `root`. The text ends where the grammar ends. Not together
 *   with `responseFormat`.
 * @property {readonly string[] | undefined} [showTokens]  Spellings of control tokens that become part
 *   of the text, e.g. '[TOOL_CALLS]'. Default: none, control tokens are left out.
 * @property {((progress: PromptProgress) => void) | undefined} [onProgress]  A function that is called
 *   while a prompt is computed: after each batch of tokens but the last, and once more when the first
 *   token is chosen. An error that it throws ends the generation.
 * @property {'lookup' | undefined} [speculate]  Computes tokens that probably come next together with the
 *   one that is due, where that pays: 'lookup' takes those that followed the same tokens before. The text
 *   is the same, and comes sooner where it repeats its prompt or itself. Default: none.
 * @property {boolean} [queue]  Wait in a line while another call uses the context, instead of
 *   failing with a BusyError. Default false.
 * @property {AbortSignal} [signal]  Aborts the generation: reading rejects with its reason. To end
 *   it without an error, call its `stop()`.
 */

/** Numbers of alternatives that `logprobs` may ask for. */
export const LOGPROBS = Object.freeze({ from: 0, to: 1000, integer: true });

const SEED_LIMIT = Number.MAX_SAFE_INTEGER;

/**
 * Default, smallest and largest value of each number, and whether it is an integer.
 * @type {Record<string, { by: number, from: number, to: number, integer?: boolean }>}
 */
export const NUMBERS = {
  maxTokens: { by: 256, from: 1, to: Number.POSITIVE_INFINITY, integer: true },
  temperature: { by: 0.8, from: 0, to: 100 },
  topK: { by: 40, from: 0, to: 2 ** 32, integer: true },
  topP: { by: 0.95, from: 0, to: 1 },
  minP: { by: 0.05, from: 0, to: 1 },
  repeatPenalty: { by: 1, from: 0.01, to: 100 },
  frequencyPenalty: { by: 0, from: -2, to: 2 },
  presencePenalty: { by: 0, from: -2, to: 2 },
  repeatWindow: { by: 64, from: 0, to: 2 ** 32, integer: true },
  seed: { by: 0, from: 0, to: SEED_LIMIT, integer: true },
};

/** Most positions of a context that was not asked for. */
export const DEFAULT_CONTEXT = 4096;

/**
 * Options of Llama.load: those that choose devices, those for its own CPU kernels, those for files,
 * and all of them.
 */
export const DEVICE_OPTIONS = /** @type {const} */ (['backend', 'gpu']);
export const KERNEL_OPTIONS = /** @type {const} */ (['threads', 'memory64', 'isa', 'dot', 'wasm']);
export const OPEN_OPTIONS = /** @type {const} */ ([
  'fetch',
  'headers',
  'retries',
  'retryDelay',
  'timeout',
  'cache',
]);
export const LOAD_OPTIONS = Object.freeze([
  ...['kernels', 'onProgress', 'signal', 'contextLength', 'kvType', 'activation', 'adapters'],
  ...DEVICE_OPTIONS,
  ...KERNEL_OPTIONS,
  ...OPEN_OPTIONS,
]);

/**
 * Whether a model may use another device than the CPU.
 * @param {{ backend?: unknown, gpu?: unknown }} options
 */
export const asksForDevices = ({ backend, gpu }) =>
  (backend !== undefined && backend !== 'cpu') || gpu !== undefined;

export const CALL_OPTIONS = Object.freeze(['signal', 'queue']);
const GENERATE_OPTIONS = [
  ...Object.keys(NUMBERS),
  ...['stop', 'ignoreEnd', 'logits', 'logprobs', 'responseFormat', 'grammar', 'showTokens', 'onProgress'],
  'speculate',
  ...CALL_OPTIONS,
];
export const FORMAT_OPTIONS = Object.freeze([
  'template',
  'addGenerationPrompt',
  'answerStart',
  'tools',
  'variables',
  'signal',
]);
export const CHAT_OPTIONS = Object.freeze([
  ...new Set([...GENERATE_OPTIONS, ...FORMAT_OPTIONS, 'special', 'overflow']),
]);

export const EMBED_OPTIONS = Object.freeze(['pooling', 'normalize', 'dimensions', ...CALL_OPTIONS]);

/**
 * @param {unknown} texts  a text, or a list of texts
 * @returns {string[]}
 * @throws {ArgumentError} they are not
 */
export function asList(texts) {
  if (!Array.isArray(texts) && typeof texts !== 'string')
    throw new ArgumentError(`texts must be a string or a list of strings, got ${show(texts)}`);
  const list = typeof texts === 'string' ? [texts] : texts;
  for (const [i, text] of list.entries())
    if (typeof text !== 'string') throw new ArgumentError(`texts[${i}] must be a string, got ${show(text)}`);
  return list;
}

/**
 * @param {GenerateOptions} options
 * @throws {ArgumentError} an unknown name, or a value out of range
 */
export function checkGenerateOptions(options) {
  checkNames(options, GENERATE_OPTIONS);
  const { stop = [], ignoreEnd = false, queue = false, showTokens = [], signal, ...others } = options;
  const { logits, logprobs, responseFormat, grammar, onProgress, speculate, ...numbers } = others;
  /** @type {Record<string, number>} */
  const values = {};
  for (const [name, { by, from, to, integer }] of Object.entries(NUMBERS)) {
    const value = /** @type {Record<string, unknown>} */ (numbers)[name];
    values[name] = value === undefined ? by : checkRange(value, name, { from, to, integer });
  }
  if (numbers.seed === undefined) values.seed = Math.floor(Math.random() * 2 ** 32);
  const stops = typeof stop === 'string' ? [stop] : stop;
  if (!areTexts(stops))
    throw new ArgumentError(`stop must be a text or a list of texts, none of them empty, got ${show(stop)}`);
  if (!areTexts(showTokens))
    throw new ArgumentError(
      `showTokens must be a list of texts, none of them empty, got ${show(showTokens)}`,
    );
  if (logits !== undefined && typeof logits !== 'function')
    throw new ArgumentError(`logits must be a function (row, tokens) => void, got ${show(logits)}`);
  checkProgress(onProgress);
  if (logprobs !== undefined) checkRange(logprobs, 'logprobs', LOGPROBS);
  if (speculate !== undefined && speculate !== 'lookup')
    throw new ArgumentError(`speculate must be 'lookup', got ${show(speculate)}`);
  checkSwitch(ignoreEnd, 'ignoreEnd');
  checkForm(responseFormat, grammar, ignoreEnd);
  checkSwitch(queue, 'queue');
  checkSignal(signal);
  const checked = /** @type {import('./sampler.js').SamplerOptions & { maxTokens: number }} */ (values);
  return {
    ...checked,
    ...{ stops, ignoreEnd, queue, logits, logprobs, responseFormat, grammar, showTokens, onProgress, signal },
    speculate,
  };
}

/** @param {any} format @param {unknown} grammar @param {boolean} ignoreEnd */
function checkForm(format, grammar, ignoreEnd) {
  const { type, schema } = format ?? {};
  const isSchema =
    type === 'json_schema' && (typeof schema === 'boolean' || (schema && typeof schema === 'object'));
  // The form of a call is asked for by fused-matmul/openai.
  if (format !== undefined && type !== 'json_object' && type !== 'call' && !isSchema)
    throw new ArgumentError(
      `responseFormat must be { type: 'json_schema', schema } or { type: 'json_object' }, got type ${show(type)} with schema ${show(schema)}`,
    );
  if (type !== 'call' && format !== undefined)
    checkNames(format, type === 'json_schema' ? ['type', 'schema'] : ['type'], 'responseFormat field');
  if (grammar !== undefined && typeof grammar !== 'string')
    throw new ArgumentError(`grammar must be a text, got ${show(grammar)}`);
  const name = format === undefined ? 'grammar' : 'responseFormat';
  if (format !== undefined && grammar !== undefined)
    throw new ArgumentError('responseFormat and grammar cannot be combined');
  if (ignoreEnd && (format !== undefined || grammar !== undefined))
    throw new ArgumentError(
      `${name} and ignoreEnd cannot be combined, as the ${name} decides where the text ends`,
    );
}

/** @param {unknown} texts @returns {texts is string[]} */
const areTexts = (texts) =>
  Array.isArray(texts) && texts.every((one) => typeof one === 'string' && one !== '');

/** @param {unknown} onProgress */
export function checkProgress(onProgress) {
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw new ArgumentError(`onProgress must be a function (progress) => void, got ${show(onProgress)}`);
}

/** @param {any} signal */
export function checkSignal(signal) {
  if (signal !== undefined && typeof signal?.throwIfAborted !== 'function')
    throw new ArgumentError(`signal must be an AbortSignal, got ${show(signal)}`);
}

/** @param {unknown} value @param {string} name */
export function checkSwitch(value, name) {
  if (typeof value !== 'boolean')
    throw new ArgumentError(`${name} must be true or false, got ${show(value)}`);
}

/**
 * @param {unknown} value
 * @param {string} name
 * @param {{ from: number, to: number, integer?: boolean }} range
 * @returns {number}
 */
export function checkRange(value, name, { from, to, integer = false }) {
  const number = typeof value === 'number' && (!integer || Number.isInteger(value) || value === to);
  if (number && value >= from && value <= to) return value;
  const upTo = to === Number.POSITIVE_INFINITY ? `${from} or more` : `from ${from} to ${to}`;
  throw new ArgumentError(
    `${name} must be ${integer ? 'an integer' : 'a number'} ${upTo}, got ${show(value)}`,
  );
}
