/* Conversations as text, by the template that a file brings along. */

import { ArgumentError, show } from '../../errors.js';
import { ModelError } from '../errors.js';

/**
 * @typedef {object} Message
 * @property {string} role  'system', 'user', 'assistant'...
 * @property {string} content  what was said
 */

/**
 * @typedef {object} ChatFormat
 * @property {string} [template]  a Jinja template, instead of the file's
 * @property {boolean} [addGenerationPrompt]  ends with what an answer begins with; default true
 * @property {Record<string, unknown>} [variables]  for the template, e.g. { enable_thinking: false }
 */

/**
 * @param {readonly Message[]} messages
 * @param {string | undefined} ownTemplate
 * @param {ChatFormat} format
 * @param {{ bos: string, eos: string }} spellings
 * @returns {Promise<string>}
 * @throws {ModelError} there is no template, or it refuses the messages
 */
export async function formatMessages(messages, ownTemplate, format, { bos, eos }) {
  if (!Array.isArray(messages) || messages.length === 0)
    throw new ArgumentError(`messages must be a list of { role, content }, got ${show(messages)}`);
  for (const [i, message] of messages.entries()) {
    if (typeof message?.role === 'string' && typeof message.content === 'string') continue;
    throw new ArgumentError(
      `messages[${i}] must be { role, content }, both texts, got ${show(message)} with role ${show(message?.role)} and content ${show(message?.content)}`,
    );
  }
  const template = format.template ?? ownTemplate;
  if (typeof template !== 'string')
    throw new ModelError('the file has no chat template (tokenizer.chat_template): give one as `template`');
  const { Template } = await import('../../../dist/jinja.js');
  try {
    return new Template(template).render({
      messages: messages.map((message) => ({ ...message })),
      add_generation_prompt: format.addGenerationPrompt ?? true,
      bos_token: bos,
      eos_token: eos,
      ...format.variables,
    });
  } catch (cause) {
    throw new ModelError(`the chat template: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}
