/* Conversations rendered as text by a chat template. */

import { checkNames, oneOf } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { toCallable, toValue } from './chat/jinja/convert.js';
import { Template, TemplateError } from './chat/jinja/index.js';
import { marksOf, plain } from './chat/jinja/text.js';
import { checkMessages, checkTools, messageValues } from './chat/messages.js';
import { namedTemplate, TEMPLATE_NAMES } from './chat/names.js';
import { dropOldest, OVERFLOWS, promptRoom } from './chat/overflow.js';
import { ModelError } from './errors.js';
import { checkGenerateOptions, checkSignal, checkSwitch, FORMAT_OPTIONS } from './options.js';
import { nextTask } from './pause.js';

/** @typedef {import('./chat/messages.js').Message} Message */
/** @typedef {import('./chat/messages.js').Forms} Forms */
/** @typedef {import('./chat/overflow.js').ChatLimits} ChatLimits */
/** @typedef {import('./chat/jinja/text.js').Str} Str */

/**
 * @typedef {object} ChatFormat
 * @property {string} [template]  A Jinja template to use instead of the file's, or the name of a
 *   common one: chatml, falcon3, gemma, granite, llama2, llama3, mistral-v1, mistral-v3,
 *   mistral-v3-tekken, mistral-v7, phi3, phi4, vicuna, zephyr.
 * @property {boolean} [addGenerationPrompt]  Whether to end the text with the beginning of an
 *   answer. Default true.
 * @property {string | undefined} [answerStart]  Text that the answer begins with, and that the model
 *   continues; it is no part of the text that is generated. Spellings of control tokens
 *   in it become control tokens. Default: none.
 * @property {readonly Record<string, unknown>[]} [tools]  Tools that the model may call, as the
 *   template expects them: mostly { type: 'function', function: { name, description,
 *   parameters } }.
 * @property {Record<string, unknown>} [variables]  Further variables of the template, e.g.
 *   { enable_thinking: false }. Strings are plain text, as messages are, unless the variable's name
 *   ends in `_token`.
 * @property {AbortSignal} [signal]  Aborts the rendering with its reason.
 */

/** Metadata of a GGUF file. @typedef {Record<string, unknown>} Metadata */

/** @typedef {import('./tokenizer/tokenizer.js').Tokenizer} Tokenizer */

/**
 * Makes the prompt of a conversation. Only text that the template wrote becomes control tokens.
 * @param {readonly Message[]} messages
 * @param {import('./options.js').GenerateOptions & ChatFormat & ChatLimits} options
 * @param {{ metadata: Metadata, tokenizer: Tokenizer, context: { length: number } }} model
 * @returns {Promise<{ tokens: number[], dropped: number,
 *   rest: import('./options.js').GenerateOptions }>} dropped: the number of messages left out;
 *   rest: the options of the generation
 */
export async function chatPrompt(messages, options, { metadata, tokenizer, context }) {
  const {
    template,
    addGenerationPrompt,
    answerStart,
    variables,
    tools,
    special = false,
    overflow = 'error',
    ...rest
  } = options;
  const { maxTokens, signal } = checkGenerateOptions(rest);
  checkSwitch(special, 'special');
  oneOf(OVERFLOWS, overflow, 'overflow');
  const format = { template, addGenerationPrompt, answerStart, variables, tools, signal };
  const tokensOf = async (/** @type {readonly Message[]} */ some) => {
    const { text, outside } = await renderChat(some, format, metadata, tokenizer);
    return tokenizer.encode(text, { eos: false, ...(special ? {} : { outside }) });
  };
  const room = overflow === 'error' ? Number.POSITIVE_INFINITY : promptRoom(context.length, maxTokens);
  return { ...(await dropOldest(messages, tokensOf, room)), rest };
}

/**
 * Renders a conversation with the template of a file.
 * @param {readonly Message[]} messages
 * @param {ChatFormat} format
 * @param {Metadata} metadata
 * @param {Tokenizer} tokenizer
 * @returns {Promise<{ text: string, outside: readonly number[] }>} outside: start and end of each
 *   range of the text that comes from messages, tools and variables
 * @throws {ModelError} there is no template, it refuses the messages, or it exceeds a limit
 */
export async function renderChat(messages, format, metadata, tokenizer) {
  const { template, forTools } = ownTemplates(metadata);
  const own = format.tools?.length ? (forTools ?? template) : template;
  const text = await renderMessages(messages, own, format, tokenSpellings(metadata, tokenizer));
  return { text: plain(text) + (format.answerStart ?? ''), outside: marksOf(text) };
}

/**
 * The templates of a file: the usual one, and one for conversations with tools.
 * @param {Metadata} metadata
 */
function ownTemplates(metadata) {
  const of = (/** @type {string} */ key) => {
    const value = metadata[`tokenizer.chat_template${key}`];
    return typeof value === 'string' ? value : undefined;
  };
  return { template: of(''), forTools: of('.tool_use') };
}

/** Names of tokens in templates, with their names in the metadata. */
const TOKEN_NAMES = Object.freeze({
  bos: 'bos',
  eos: 'eos',
  unk: 'unknown',
  pad: 'padding',
  sep: 'seperator',
  cls: 'cls',
  mask: 'mask',
});

/** @param {Metadata} metadata @param {Tokenizer} tokenizer */
function tokenSpellings(metadata, tokenizer) {
  const { bos, eos, size } = tokenizer;
  /** @type {Record<string, string>} */
  const spellings = {};
  for (const [name, key] of Object.entries(TOKEN_NAMES)) {
    const id = { bos, eos }[name] ?? metadata[`tokenizer.ggml.${key}_token_id`];
    if (typeof id === 'number' && id >= 0 && id < size) spellings[name] = tokenizer.spelling(id);
  }
  return spellings;
}

/**
 * Renders a conversation as a string.
 * @param {readonly Message[]} messages
 * @param {string | undefined} ownTemplate  template of the file
 * @param {ChatFormat} format
 * @param {Record<string, string>} spellings  texts of tokens: bos, eos and so on
 * @returns {Promise<string>}
 */
export async function formatMessages(messages, ownTemplate, format, spellings) {
  return plain(await renderMessages(messages, ownTemplate, format, spellings));
}

/**
 * Renders a conversation as a Str, which records the characters that come from messages, tools and
 * variables.
 * @param {readonly Message[]} messages
 * @param {string | undefined} ownTemplate
 * @param {ChatFormat} format
 * @param {Record<string, string>} spellings
 * @returns {Promise<Str>}
 */
async function renderMessages(messages, ownTemplate, format, spellings) {
  const { addGenerationPrompt = true, variables = {}, signal } = checkFormat(format);
  const checked = checkMessages(messages);
  const tools = checkTools(format.tools);
  const source = templateSource(format.template, ownTemplate);
  signal?.throwIfAborted();
  const fixed = new Map([
    ['tools', toValue(tools, 'tools')],
    ['documents', null],
    ['add_generation_prompt', addGenerationPrompt],
    ['bos_token', ''],
    ['eos_token', ''],
    ...Object.entries(spellings).map(
      ([name, text]) => /** @type {[string, string]} */ ([`${name}_token`, text]),
    ),
  ]);
  const given = (/** @type {import('./chat/jinja/limits.js').Budget} */ budget) =>
    Object.entries(variables)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => {
        if (typeof value === 'function') return [name, toCallable(value, name, budget)];
        const token = typeof value === 'string' && name.endsWith('_token');
        return [name, token ? value : toValue(value, `variables.${name}`)];
      });
  try {
    const template = new Template(source);
    return await bestForms(checked, async ({ values, contents, objects }) => {
      const misfits = { none: 0, objects: 0, loops: 0 };
      const { run } = template.start(
        (budget) =>
          new Map([...fixed, ['messages', values], .../** @type {[string, any][]} */ (given(budget))]),
        {
          onLoop: (value) => {
            if (typeof value === 'object' && contents.has(value) && !Array.isArray(value)) misfits.loops += 1;
          },
          onPrint: (value) => {
            if (value === null) misfits.none += 1;
            else if (objects.has(value)) misfits.objects += 1;
          },
        },
      );
      try {
        for (;;) {
          const { done, value } = run.next();
          if (done) return { text: value, misfits };
          await nextTask();
          signal?.throwIfAborted();
        }
      } catch (error) {
        if (error instanceof TemplateError) return { error, misfits };
        throw error;
      }
    });
  } catch (cause) {
    if (cause instanceof TemplateError)
      throw new ModelError(`the chat template: ${cause.message}`, { cause });
    throw cause;
  }
}

/**
 * Signs that a template expects other forms of messages: how often it printed none, printed
 * arguments as an object, or looped over the characters of a content.
 * @typedef {{ none: number, objects: number, loops: number }} Misfits
 */
/** @typedef {{ text?: Str, error?: Error, misfits: Misfits }} Outcome */

/**
 * Renders with the usual forms of messages. If that fails, or prints something that no template
 * means to print, the other forms are tried, and the best result is returned.
 * @param {import('./chat/messages.js').CheckedMessage[]} messages
 * @param {(values: ReturnType<typeof messageValues>) => Promise<Outcome>} render
 * @returns {Promise<Str>}
 */
async function bestForms(messages, render) {
  /** @type {Forms} */
  const usual = { emptyContent: false, jsonArguments: false, partedContent: false };
  const attempt = async (/** @type {Forms} */ forms) => {
    const outcome = await render(messageValues(messages, forms));
    const { none, objects, loops } = outcome.misfits;
    return { ...outcome, score: outcome.error ? Number.POSITIVE_INFINITY : none + objects + loops };
  };
  const first = await attempt(usual);
  let best = first;
  const failed = first.error !== undefined;
  const empty = (failed || first.misfits.none > 0) && messages.some(({ content }) => content === null);
  const json =
    (failed || first.misfits.objects > 0) && messages.some(({ tool_calls }) => tool_calls !== undefined);
  const parted = first.misfits.loops > 0;
  for (let i = 1; i < 8 && best.score > 0; i++) {
    const forms = { emptyContent: (i & 1) > 0, jsonArguments: (i & 2) > 0, partedContent: (i & 4) > 0 };
    const apt =
      (empty || !forms.emptyContent) && (json || !forms.jsonArguments) && (parted || !forms.partedContent);
    const next = apt ? await attempt(forms) : best;
    if (next.score < best.score) best = next;
  }
  if (best.text === undefined) throw first.error;
  return best.text;
}

/** Text without white space or braces: probably meant as a name. */
const LIKE_A_NAME = /^[\w.:/-]*$/;

/**
 * @param {string | undefined} given
 * @param {string | undefined} own
 * @returns {string}
 */
function templateSource(given, own) {
  if (given === undefined) {
    if (!own)
      throw new ModelError('the file has no chat template (tokenizer.chat_template): give one as `template`');
    return namedTemplate(own) ?? own;
  }
  const named = namedTemplate(given);
  if (named !== undefined) return named;
  if (LIKE_A_NAME.test(given)) {
    throw new ArgumentError(
      `template must be a Jinja template or one of ${TEMPLATE_NAMES.join(', ')}, got ${show(given)}`,
    );
  }
  return given;
}

/**
 * @param {ChatFormat} format
 * @returns {ChatFormat}
 * @throws {ArgumentError} an option is unknown or of the wrong kind
 */
export function checkFormat(format) {
  checkNames(format, FORMAT_OPTIONS);
  const { template, addGenerationPrompt, answerStart, variables, signal } = format;
  if (answerStart !== undefined && typeof answerStart !== 'string')
    throw new ArgumentError(`answerStart must be a text, got ${show(answerStart)}`);
  if (template !== undefined && typeof template !== 'string')
    throw new ArgumentError(`template must be a text, got ${show(template)}`);
  if (addGenerationPrompt !== undefined) checkSwitch(addGenerationPrompt, 'addGenerationPrompt');
  if (
    variables !== undefined &&
    (typeof variables !== 'object' || variables === null || Array.isArray(variables))
  )
    throw new ArgumentError(`variables must be an object, got ${show(variables)}`);
  checkSignal(signal);
  return format;
}
