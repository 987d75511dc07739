/* Messages as OpenAI-style clients have them, checked and put into the forms that templates expect. */

import { ArgumentError, show } from '../../errors.js';
import { toValue } from './jinja/convert.js';
import { Float } from './jinja/values.js';

/** @typedef {import('./jinja/values.js').Value} Value */

/**
 * A part of a message's content. Only texts are supported.
 * @typedef {object} TextPart
 * @property {'text'} type  the kind of the part
 * @property {string} text  what it says
 */

/**
 * The function that a call names.
 * @typedef {object} ToolFunction
 * @property {string} name  the function's name
 * @property {string | Record<string, unknown>} arguments  its arguments: an object, or that object as JSON
 */

/**
 * A call of a tool that the model asked for.
 * @typedef {object} ToolCall
 * @property {string} [id]  which the message with the tool's result repeats as `tool_call_id`
 * @property {'function'} [type]  the kind of the tool
 * @property {ToolFunction} function  what is called
 */

/**
 * What is said in a conversation: by the system, the user, the assistant, or by a tool (role 'tool', with `tool_call_id`).
 * @typedef {object} SpokenMessage
 * @property {string} role  'system', 'user', 'assistant', 'tool'...
 * @property {string | readonly TextPart[]} content  what was said; the texts of parts are joined
 * @property {string} [name]  who said it, or the tool's name
 * @property {string} [tool_call_id]  the call that a tool's message answers
 * @property {readonly ToolCall[]} [tool_calls]  calls that an assistant's message asks for
 * @property {string} [reasoning_content]  thoughts of an assistant, for templates that take them apart from the content
 */

/**
 * A message of the assistant that calls tools and may say nothing.
 * @typedef {object} CallingMessage
 * @property {'assistant'} role  only the assistant calls tools
 * @property {string | readonly TextPart[] | null} [content]  what was said beside the calls
 * @property {readonly ToolCall[]} tool_calls  the calls
 * @property {string} [name]  who says it
 * @property {string} [reasoning_content]  the thoughts before it, for templates that keep them apart from the content
 */

/** @typedef {SpokenMessage | CallingMessage} Message */

/** @typedef {Record<string, unknown> & { role: string, content: string | null }} CheckedMessage */

/**
 * Messages with their content as one text (or null), and without fields that hold nothing.
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
    // Templates tell by the mere presence of the field that tools are called.
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
 * @returns {readonly unknown[] | null}  null where there are none, as templates expect it
 * @throws {ArgumentError} it is no list of objects
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

/** A role that is one word cannot spell a control token, so templates may build one around it: '<|' + role + '|>'. */
const WORD = /^[\w.-]+$/;

/**
 * What templates disagree about.
 * @typedef {object} Forms
 * @property {boolean} emptyContent  a content of null is ''
 * @property {boolean} jsonArguments  the arguments of calls are JSON, not objects
 * @property {boolean} partedContent  the content is a list of one part
 */

/**
 * The messages as a template gets them, and the values whose use tells that it expects other forms.
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

/** A call with its arguments in the form that is wanted. @param {any} call @param {boolean} asJson */
function withArguments(call, asJson) {
  const called = call.function ?? call;
  const given = called.arguments ?? {};
  let args = given;
  if (asJson && typeof given !== 'string') args = JSON.stringify(given);
  else if (!asJson && typeof given === 'string') args = parsed(given);
  return call.function ? { ...call, function: { ...called, arguments: args } } : { ...call, arguments: args };
}

/** An object from its JSON; what is no JSON of an object stays a text. @param {string} text @returns {unknown} */
function parsed(text) {
  if (text.trim() === '') return {};
  try {
    const value = JSON.parse(text, number);
    return typeof value === 'object' && value !== null ? value : text;
  } catch {
    return text;
  }
}

/** Numbers that were written with a point keep it, where the engine tells how they were written. @type {(this: any, key: string, value: any, context?: { source?: string }) => any} */
function number(_, value, context) {
  return typeof value === 'number' && /[.e]/i.test(context?.source ?? '') ? new Float(value) : value;
}
