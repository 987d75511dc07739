/* Checks requests in the format of OpenAI's API, and turns them into options of Llama.chat. */

import { checkNames } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { checkRange, checkSwitch, LOGPROBS, NUMBERS } from '../llama/options.js';
import { MARKS } from './tool-calls.js';

/** @typedef {import('./types.js').ChatRequest} ChatRequest */
/** @typedef {import('./tool-calls.js').Tools} Tools */

/** Fields that are numbers, and the options that they are. */
const OPTIONS = Object.freeze({
  max_tokens: 'maxTokens',
  max_completion_tokens: 'maxTokens',
  seed: 'seed',
  temperature: 'temperature',
  top_p: 'topP',
  top_k: 'topK',
  min_p: 'minP',
  frequency_penalty: 'frequencyPenalty',
  presence_penalty: 'presencePenalty',
  repeat_penalty: 'repeatPenalty',
});

/**
 * Fields of OpenAI's API that the library does not support, and the value that asks for nothing.
 * @type {Record<string, (value: any) => boolean>}
 */
const UNSUPPORTED = {
  n: (value) => value === 1,
  logit_bias: (value) => Object.keys(value).length === 0,
  modalities: (value) => String(value) === 'text',
  audio: () => false,
  functions: () => false,
  function_call: () => false,
  prediction: () => false,
  web_search_options: () => false,
  verbosity: (value) => value === 'medium',
};

/** Fields that mean nothing to a model on this machine. */
const IGNORED = [
  ...['metadata', 'moderation', 'prompt_cache_key', 'prompt_cache_options', 'prompt_cache_retention'],
  ...['safety_identifier', 'service_tier', 'store', 'user'],
];

const FIELDS = [
  ...['messages', 'model', 'stream', 'stream_options', 'stop', 'logprobs', 'top_logprobs', 'tools'],
  ...['tool_choice', 'parallel_tool_calls', 'reasoning_effort', 'response_format', 'chat_template_kwargs'],
  ...Object.keys(OPTIONS),
];

/**
 * The fields of a request that are given: null leaves a field out, as in OpenAI's API.
 * @template {object} R
 * @param {R} request
 * @returns {any}
 */
export const withoutNulls = (request) =>
  Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined && value !== null));

/**
 * A request, checked.
 * @typedef {object} Plan
 * @property {import('../llama/chat/messages.js').Message[]} messages
 * @property {NonNullable<Parameters<import('../llama/model.js').Llama['chat']>[1]>} options
 * @property {Tools} tools  Tools that may be called.
 * @property {string | boolean} force  Whether a tool must be called, or the name of the one that must.
 * @property {boolean} single  Whether the answer may have only one call.
 * @property {boolean} logprobs
 * @property {boolean} usage  Whether a stream ends with a chunk about the usage.
 */

/**
 * @param {ChatRequest} request
 * @returns {Plan}
 * @throws {ArgumentError} a field is unknown, not supported, or out of range; the message names it
 */
export function readRequest(request) {
  if (typeof request !== 'object' || request === null)
    throw new ArgumentError(`the request must be an object with messages, got ${show(request)}`);
  /** @type {Record<string, any>} */
  const given = withoutNulls(request);
  const others = [...Object.keys(UNSUPPORTED), ...IGNORED];
  checkNames(
    Object.fromEntries(Object.entries(request).filter(([name]) => !others.includes(name))),
    FIELDS,
    'field',
  );
  for (const [name, isNeutral] of Object.entries(UNSUPPORTED)) {
    if (given[name] === undefined || isNeutral(given[name])) continue;
    throw new ArgumentError(`${name} is not supported, got ${show(given[name])}; leave it out`);
  }
  for (const name of ['stream', 'logprobs', 'parallel_tool_calls']) {
    if (given[name] !== undefined) checkSwitch(given[name], name);
  }
  /** @type {Record<string, unknown>} */
  const numbers = { maxTokens: Number.POSITIVE_INFINITY };
  for (const [name, option] of Object.entries(OPTIONS))
    if (given[name] !== undefined) numbers[option] = checkRange(given[name], name, NUMBERS[option]);
  if (given.top_logprobs !== undefined) {
    checkRange(given.top_logprobs, 'top_logprobs', LOGPROBS);
    if (given.logprobs !== true)
      throw new ArgumentError(`top_logprobs needs logprobs: true, got logprobs ${show(given.logprobs)}`);
  }
  const { tools, force } = chosenTools(given);
  const { chat_template_kwargs: more = {} } = given;
  if (typeof more !== 'object' || Array.isArray(more))
    throw new ArgumentError(`chat_template_kwargs must be an object, got ${show(more)}`);
  const variables = { ...effort(given.reasoning_effort), ...more };
  return {
    messages: checkedMessages(given.messages),
    options: {
      ...numbers,
      ...(given.stop !== undefined && { stop: given.stop }),
      ...(given.logprobs && { logprobs: given.top_logprobs ?? 0 }),
      ...(tools.length > 0 && { tools }),
      ...responseFormat(given.response_format, tools, force),
      ...(Object.keys(variables).length > 0 && { variables }),
      showTokens: MARKS,
      queue: true,
    },
    tools: new Map(
      tools.map(({ function: { name, parameters } }) => [name, Object.keys(parameters?.properties ?? {})]),
    ),
    force,
    single: typeof force === 'string' || given.parallel_tool_calls === false,
    logprobs: given.logprobs ?? false,
    usage: given.stream_options?.include_usage ?? false,
  };
}

/**
 * The option for the form of the answer.
 * @param {any} format
 * @param {any[]} tools
 * @param {string | boolean} force
 */
function responseFormat(format, tools, force) {
  const { type, json_schema: named } = format ?? {};
  if (format === undefined || type === 'text') return {};
  const { schema } = named ?? {};
  const isSchema = type === 'json_schema' && schema !== null && typeof schema === 'object';
  if (type !== 'json_object' && !isSchema)
    throw new ArgumentError(
      `response_format must be { type: 'text' }, { type: 'json_object' } or { type: 'json_schema', json_schema: { name, schema } }, got type ${show(type)} with json_schema ${show(named)}`,
    );
  if (force !== false) return {};
  if (tools.length > 0)
    throw new ArgumentError(
      `response_format ${show(type)} leaves no room for a call of the ${tools.length} tools; use tool_choice 'none' or 'required', or leave one of them out`,
    );
  return { responseFormat: isSchema ? { type, schema } : { type } };
}

/** Variables of templates for an effort. @param {unknown} effort */
function effort(effort) {
  if (effort === undefined) return {};
  return effort === 'none' ? { enable_thinking: false } : { reasoning_effort: effort };
}

/**
 * Messages in the form that templates expect.
 * @param {unknown} messages
 * @returns {any[]}
 */
function checkedMessages(messages) {
  if (!Array.isArray(messages) || messages.length === 0)
    throw new ArgumentError(`messages must be a list of { role, content }, got ${show(messages)}`);
  return messages.map((message) => {
    const { role, reasoning, content, ...rest } = message ?? {};
    const parts = Array.isArray(content)
      ? content.map((part) => (part?.type === 'refusal' ? { type: 'text', text: part.refusal } : part))
      : content;
    return {
      ...rest,
      // Templates know the older name only.
      role: role === 'developer' ? 'system' : role,
      content: parts,
      ...(typeof reasoning === 'string' && { reasoning_content: reasoning }),
    };
  });
}

/**
 * The tools that the model is told of, and whether it must call one.
 * @param {Record<string, any>} given
 * @returns {{ tools: any[], force: string | boolean }}
 */
function chosenTools({ tools = [], tool_choice: choice = 'auto' }) {
  if (!Array.isArray(tools)) throw new ArgumentError(`tools must be a list, got ${show(tools)}`);
  for (const [i, tool] of tools.entries()) {
    if (tool?.type !== 'function' || typeof tool.function?.name !== 'string')
      throw new ArgumentError(
        `tools[${i}] must be { type: 'function', function: { name, description, parameters } }, got type ${show(tool?.type)} with function ${show(tool?.function)}`,
      );
  }
  const names = tools.map((tool) => tool.function.name);
  const called = choice?.type === 'function' ? choice.function?.name : undefined;
  if (choice === 'none') return { tools: [], force: false };
  if (choice === 'auto') return { tools, force: false };
  if (choice !== 'required' && typeof called !== 'string')
    throw new ArgumentError(
      `tool_choice must be 'none', 'auto', 'required' or { type: 'function', function: { name } }, got ${show(choice)}`,
    );
  if (tools.length === 0) throw new ArgumentError('tool_choice asks for a call, but there are no tools');
  if (choice === 'required') return { tools, force: true };
  const only = tools.filter((tool) => tool.function.name === called);
  if (only.length === 0)
    throw new ArgumentError(`tool_choice asks for ${show(called)}; the tools are ${names.join(', ')}`);
  return { tools: only, force: called };
}
