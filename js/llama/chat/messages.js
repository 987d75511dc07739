/* Checks messages in the format of OpenAI's API, and converts them into the forms that templates
 * expect. */

import { ArgumentError, show } from '../../errors.js';
import { toValue } from './jinja/convert.js';
import { Float } from './jinja/values.js';

/** @typedef {import('./jinja/values.js').Value} Value */

/**
 * A part of a message's content. Only texts are supported.
 * @typedef {object} TextPart
 * @property {'text'} type  Kind of the part.
 * @property {string} text  The text.
 */

/**
 * The function of a call.
 * @typedef {object} ToolFunction
 * @property {string} name  Name of the function.
 * @property {string | Record<string, unknown>} arguments  Arguments: an object, or its JSON.
 */

/**
 * A call of a tool, as the model asks for it.
 * @typedef {object} ToolCall
 * @property {string} [id]  Identifier that the message with the tool's result repeats as
 *   `tool_call_id`.
 * @property {'function'} [type]  Kind of the tool.
 * @property {ToolFunction} function  The function to call.
 */

/**
 * A message of the system, the user, the assistant, or a tool (role 'tool', with `tool_call_id`).
 * @typedef {object} SpokenMessage
 * @property {string} role  'system', 'user', 'assistant', 'tool' and so on.
 * @property {string | readonly TextPart[]} content  The text of the message; the texts of parts are
 *   joined.
 * @property {string} [name]  Name of the speaker, or of the tool.
 * @property {string} [tool_call_id]  Identifier of the call that a tool's message answers.
 * @property {readonly ToolCall[]} [tool_calls]  Calls that a message of the assistant asks for.
 * @property {string} [reasoning_content]  Thoughts of the assistant, for templates that separate
 *   them from the content.
 */

/**
 * A message of the assistant that calls tools; it may have no content.
 * @typedef {object} CallingMessage
 * @property {'assistant'} role  Only the assistant calls tools.
 * @property {string | readonly TextPart[] | null} [content]  Text beside the calls.
 * @property {readonly ToolCall[]} tool_calls  The calls.
 * @property {string} [name]  Name of the speaker.
 * @property {string} [reasoning_content]  Thoughts before the calls, for templates that separate
 *   them from the content.
 */

/** @typedef {SpokenMessage | CallingMessage} Message */

/** @typedef {Record<string, unknown> & { role: string, content: string | null }} CheckedMessage */

/**
 * Checks messages. In the result, the content is one string or null, and fields without a value are
 * left out.
 * @param {readonly Message[]} messages
 * @returns {CheckedMessage[]}
 * @throws {ArgumentError} a message has another form
 */
export function checkMessages(messages) {
  if (!Array.isArray(messages) || messages.length === 0)
    throw new ArgumentError(`messages must be a list of { role, content }, got ${show(messages)}`);
  return messages.map((message, i) => checkMessage(message, `messages[${i}]`));
}

/** @param {any} message @param {string} what @returns {CheckedMessage} */
function checkMessage(message, what) {
  /** @type {Record<string, unknown>} */
  const given = {};
  if (typeof message === 'object' && message !== null)
    for (const [key, value] of Object.entries(message))
      if (value !== undefined && value !== null) given[key] = value;
  const calls = given.tool_calls;
  if (calls !== undefined) {
    if (!Array.isArray(calls))
      throw new ArgumentError(`${what}.tool_calls must be a list, got ${show(calls)}`);
    for (const [i, call] of calls.entries()) checkCall(call, `${what}.tool_calls[${i}]`);
    // Templates take the mere presence of the field for calls.
    if (calls.length === 0) delete given.tool_calls;
  }
  const content = given.content ?? (given.tool_calls ? null : undefined);
  if (typeof given.role !== 'string' || content === undefined || !(content === null || isContent(content)))
    throw new ArgumentError(
      `${what} must be { role, content }, the role a text, the content a text, a list of text parts, or nothing beside tool_calls; got ${show(message)} with role ${show(message?.role)} and content ${show(message?.content)}`,
    );
  const text = Array.isArray(content) ? joinParts(content, `${what}.content`) : content;
  return { ...given, role: given.role, content: /** @type {string | null} */ (text) };
}

/** @param {unknown} content */
const isContent = (content) => typeof content === 'string' || Array.isArray(content);

/** @param {any[]} parts @param {string} what */
function joinParts(parts, what) {
  const texts = parts.map((part, i) => {
    if (typeof part === 'string') return part;
    const type = part?.type ?? (typeof part?.text === 'string' ? 'text' : undefined);
    if (type !== 'text')
      throw new ArgumentError(
        `${what}[${i}] is of type ${show(type)}: only parts of type "text" are supported`,
      );
    if (typeof part.text !== 'string')
      throw new ArgumentError(`${what}[${i}].text must be a text, got ${show(part.text)}`);
    return part.text;
  });
  return texts.join('');
}

/** @param {any} call @param {string} what */
function checkCall(call, what) {
  const called = call?.function ?? call;
  const { name, arguments: args } = called ?? {};
  if (typeof name !== 'string')
    throw new ArgumentError(
      `${what}.function must be { name, arguments }, got ${show(called)} with name ${show(name)}`,
    );
  const known = args === undefined || args === null || typeof args === 'string' || typeof args === 'object';
  if (!known)
    throw new ArgumentError(`${what}.function.arguments must be an object or its JSON, got ${show(args)}`);
}

/**
 * @param {unknown} tools
 * @returns {readonly unknown[] | null}  null if there are none, as templates expect
 * @throws {ArgumentError} `tools` is not a list of objects
 */
export function checkTools(tools) {
  if (tools === undefined || tools === null) return null;
  if (!Array.isArray(tools)) throw new ArgumentError(`tools must be a list of objects, got ${show(tools)}`);
  for (const [i, tool] of tools.entries())
    if (typeof tool !== 'object' || tool === null)
      throw new ArgumentError(
        `tools[${i}] must be an object such as { type: 'function', function }, got ${show(tool)}`,
      );
  return tools.length > 0 ? tools : null;
}

/**
 * A role of one word cannot spell a control token, so a template may build one from it: '<|' + role
 * + '|>'.
 */
const WORD = /^[\w.-]+$/;

/**
 * Forms of messages that templates disagree about.
 * @typedef {object} Forms
 * @property {boolean} emptyContent  A content of null is ''.
 * @property {boolean} jsonArguments  The arguments of calls are JSON, not objects.
 * @property {boolean} partedContent  The content is a list of one part.
 */

/**
 * The messages as values of a template, and the values whose use reveals that the template expects
 * other forms.
 * @param {readonly CheckedMessage[]} messages
 * @param {Forms} forms
 */
export function messageValues(messages, forms) {
  /** @type {Set<Value>} */
  const contents = new Set();
  /** @type {Set<Value>} */
  const objects = new Set();
  const values = messages.map((message, i) => {
    const what = `messages[${i}]`;
    const { content } = message;
    const text = content ?? (forms.emptyContent ? '' : null);
    const parted = forms.partedContent && text !== null;
    const given = parted ? [{ type: 'text', text }] : text;
    const calls = /** @type {any[] | undefined} */ (message.tool_calls);
    const tool_calls = calls?.map((call) => withArguments(call, forms.jsonArguments));
    const dict = toValue({ ...message, content: given, ...(tool_calls ? { tool_calls } : {}) }, what);
    if (WORD.test(message.role)) dict.set('role', message.role);
    contents.add(dict.get('content'));
    for (const call of tool_calls ? dict.get('tool_calls') : [])
      objects.add((call.get('function') ?? call).get('arguments'));
    return dict;
  });
  return { values, contents, objects };
}

/** A call with its arguments as JSON or as an object. @param {any} call @param {boolean} asJson */
function withArguments(call, asJson) {
  const called = call.function ?? call;
  const given = called.arguments ?? {};
  let args = given;
  if (asJson && typeof given !== 'string') args = JSON.stringify(given);
  else if (!asJson && typeof given === 'string') args = parsed(given);
  return call.function ? { ...call, function: { ...called, arguments: args } } : { ...call, arguments: args };
}

/**
 * Parses an object from JSON; any other text is returned unchanged.
 * @param {string} text
 * @returns {unknown}
 */
function parsed(text) {
  if (text.trim() === '') return {};
  try {
    const value = JSON.parse(text, number);
    return typeof value === 'object' && value !== null ? value : text;
  } catch {
    return text;
  }
}

/**
 * Keeps numbers written with a point as floats, if the engine reveals how they were written.
 * @type {(this: any, key: string, value: any, context?: { source?: string }) => any}
 */
function number(_, value, context) {
  return typeof value === 'number' && /[.e]/i.test(context?.source ?? '') ? new Float(value) : value;
}
