/* The formats in which models write calls of tools. */

import { pythonCalls } from './python.js';

/** @typedef {{ name: string, arguments: string }} Call */

/**
 * Names of the arguments of each tool, in the order of its schema.
 * @typedef {ReadonlyMap<string, readonly string[]>} Tools
 */

/**
 * A format of calls.
 * @typedef {object} Format
 * @property {string} begin  Text that begins it.
 * @property {string} [end]  Text that ends it; by default it ends with the answer.
 * @property {(text: string, tools: Tools) => (Call | undefined)[] | undefined} parse  Reads what is
 *   between them.
 */

/** @type {readonly Format[]} */
export const FORMATS = Object.freeze([
  // Hermes, Qwen, SmolLM, EXAONE, Granite 4.
  { begin: '<tool_call>', end: '</tool_call>', parse: jsonCalls },
  // Mistral: a list in JSON; in later models a name and its arguments.
  { begin: '[TOOL_CALLS]', parse: mistralCalls },
  // LFM2.
  { begin: '<|tool_call_start|>', end: '<|tool_call_end|>', parse: anyCalls },
  // Llama 3.1 and later.
  { begin: '<|python_tag|>', parse: anyCalls },
  { begin: '<function=', end: '</function>', parse: namedCall },
  // Phi 4, Granite 3.
  { begin: '<|tool_call|>', end: '<|/tool_call|>', parse: jsonCalls },
  // Gemma.
  { begin: '```tool_code', end: '```', parse: anyCalls },
  { begin: '```tool_call', end: '```', parse: anyCalls },
  { begin: '```json', end: '```', parse: jsonCalls },
]);

/** A call without a mark, which is the whole answer: of Llama 3 and Gemma. @type {Format} */
export const BARE = Object.freeze({ begin: '', parse: anyCalls });

/** Beginnings of such calls: an object with certain keys, or a list of these or of Python's calls. */
export const BARE_BEGIN =
  /^\s*(?:\[\s*[A-Za-z_][\w.-]*\(|(?:\[\s*)?\{\s*"(?:name|function|type|id|parameters|arguments)"\s*:)/;
/** Longest text that is held back because it may become such a beginning. */
export const BARE_LOOK = 80;

/** Control tokens of the formats and of thoughts, which must be part of the text. */
export const MARKS = Object.freeze([
  ...['<tool_call>', '</tool_call>', '[TOOL_CALLS]', '[CALL_ID]', '[ARGS]'],
  ...['<|tool_call_start|>', '<|tool_call_end|>', '<|python_tag|>', '<|tool_call|>', '<|/tool_call|>'],
  ...['<think>', '</think>', '[THINK]', '[/THINK]'],
]);

/**
 * Calls in the text of a format.
 * @param {Format} format
 * @param {string} text
 * @param {Tools} tools
 * @returns {Call[] | undefined}  undefined if the text is no list of calls of these tools
 */
export function callsIn({ parse }, text, tools) {
  const calls = parse(text, tools);
  const known = calls?.filter((call) => call !== undefined && tools.has(call.name));
  return calls?.length && known?.length === calls.length ? /** @type {Call[]} */ (known) : undefined;
}

/** @param {string} text */
function jsonCalls(text) {
  return jsonValues(text)?.flat(1).map(toCall);
}

/** @type {Format['parse']} */
function anyCalls(text, tools) {
  const calls = jsonCalls(text);
  if (calls) return calls;
  return pythonCalls(text)?.map(({ name, args, positional }) => {
    const names = tools.get(name) ?? [];
    if (positional.length > names.length) return undefined;
    const placed = Object.fromEntries(positional.map((value, i) => [names[i], value]));
    return { name, arguments: JSON.stringify({ ...placed, ...args }) };
  });
}

/** @param {string} text */
function mistralCalls(text) {
  if (/^\s*[[{]/.test(text)) return jsonCalls(text);
  return text.split('[TOOL_CALLS]').map((one) => {
    const [, name, json] =
      /^\s*([\w.-]+)\s*(?:\[CALL_ID\][^[]*)?(?:\[ARGS\])?\s*(\{[\s\S]*)$/.exec(one) ?? [];
    return name === undefined ? undefined : callOf(name, jsonValues(json)?.[0]);
  });
}

/** @param {string} text  NAME>{...} */
function namedCall(text) {
  const [, name, json] = /^\s*"?([\w.-]+)"?\s*>([\s\S]*)$/.exec(text) ?? [];
  return name === undefined ? undefined : [callOf(name, jsonValues(json)?.[0])];
}

/** @param {any} value  an object that describes a call */
function toCall(value) {
  const called = value?.function?.name === undefined ? value : value.function;
  const name = called?.name ?? called?.function;
  return typeof name === 'string'
    ? callOf(name.trim(), called.arguments ?? called.parameters ?? {})
    : undefined;
}

/** @param {string} name @param {unknown} args @returns {Call | undefined} */
function callOf(name, args) {
  const value = typeof args === 'string' ? jsonValues(args)?.[0] : args;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  return { name, arguments: JSON.stringify(value) };
}

/**
 * Reads JSON values that follow one another, with white space, commas or semicolons between them.
 * @param {string} text
 * @returns {any[] | undefined}  undefined if there is anything else
 */
function jsonValues(text) {
  const values = [];
  for (let rest = text.trim(); rest !== ''; rest = rest.replace(/^[\s,;]+/, '')) {
    const length = lengthOfJson(rest);
    if (length === 0) return undefined;
    try {
      values.push(JSON.parse(rest.slice(0, length)));
    } catch {
      return undefined;
    }
    rest = rest.slice(length);
  }
  return values;
}

/** Length of the object or list that a text begins with; 0 if it has no end. @param {string} text */
function lengthOfJson(text) {
  let depth = 0;
  for (const { 0: sign, index } of text.matchAll(/"(?:[^"\\]|\\[\s\S])*"|[[\]{}]/g)) {
    if (index === 0 && sign !== '[' && sign !== '{') return 0;
    if (index > 0 && depth === 0) return 0;
    if (sign === '[' || sign === '{') depth += 1;
    else if (sign === ']' || sign === '}') depth -= 1;
    if (depth === 0) return index + sign.length;
  }
  return 0;
}

/**
 * Ways in which an answer begins that calls a tool, by a text that a prompt with tools has where the
 * template is of this format. `name` ends the name of the tool.
 * @type {readonly { sign: string, begin: string, name: string }[]}
 */
const OPENINGS = Object.freeze([
  { sign: '<tool_call>', begin: '<tool_call>\n{"name": "', name: '", "arguments": ' },
  { sign: '[AVAILABLE_TOOLS]', begin: '[TOOL_CALLS][{"name": "', name: '", "arguments": ' },
  { sign: '<|tool_list_start|>', begin: '<|tool_call_start|>[', name: '(' },
  { sign: '<|tool|>', begin: '<|tool_call|>[{"name": "', name: '", "arguments": ' },
  { sign: '{"name": function name, "parameters"', begin: '{"name": "', name: '", "parameters": ' },
]);

/** A call that shows the format of a template. */
export const SAMPLE = Object.freeze({ name: 'sample_tool', argument: 'sample_argument' });

/**
 * The text with which an answer begins that calls a tool, by an answer that calls the sample.
 * @param {string} answer
 * @param {string | undefined} tool  the tool, if it must be a certain one
 * @returns {string | undefined}  undefined if there is no call
 */
export function openingLike(answer, tool) {
  const at = answer.indexOf(SAMPLE.name);
  if (at < 0) return undefined;
  const begin = answer.slice(0, at);
  if (tool === undefined) return begin;
  const rest = answer.slice(at + SAMPLE.name.length);
  const between = rest.slice(0, Math.max(0, rest.indexOf(`{"${SAMPLE.argument}"`)));
  return `${begin}${tool}${between}`;
}

/**
 * The text with which an answer begins that calls a tool, by a prompt that describes the format.
 * @param {string} prompt  a prompt with tools
 * @param {string | undefined} tool  the tool, if it must be a certain one
 * @returns {string | undefined}  undefined if the format is not known
 */
export function openingOf(prompt, tool) {
  const opening = OPENINGS.find(({ sign }) => prompt.includes(sign));
  return opening && `${opening.begin}${tool === undefined ? '' : `${tool}${opening.name}`}`;
}

/**
 * Texts around the arguments of a call: between its name and them, and behind them.
 * @typedef {{ between: string, closing: string }} Around
 */

/**
 * Reads the texts around the arguments from an answer that calls the sample.
 * @param {string} answer
 * @returns {Around | undefined}  undefined if the arguments are no JSON object
 */
export function aroundLike(answer) {
  const rest = answer.slice(answer.indexOf(SAMPLE.name) + SAMPLE.name.length);
  const at = rest.indexOf(`{"${SAMPLE.argument}"`);
  if (!answer.includes(SAMPLE.name) || at < 0) return undefined;
  const behind = rest.slice(at + lengthOfJson(rest.slice(at)));
  return { between: rest.slice(0, at), closing: /^(?:\s*[}\]])*/.exec(behind)?.[0] ?? '' };
}

/**
 * The same by a prompt that describes the format.
 * @param {string} prompt  a prompt with tools
 * @returns {Around | undefined}
 */
export function aroundOf(prompt) {
  const opening = OPENINGS.find(({ sign }) => prompt.includes(sign));
  if (!opening?.name.startsWith('"')) return undefined;
  return { between: opening.name, closing: opening.begin.includes('[{') ? '}]' : '}' };
}
