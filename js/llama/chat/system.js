/* System texts for templates without a system role. */

import { ModelError } from '../errors.js';

/** @typedef {import('./messages.js').Message} Message */

/**
 * Tells whether a template takes a system message: it must neither refuse the message nor leave its
 * text out.
 * @param {string} system
 * @param {(messages: Message[]) => Promise<string>} format
 * @returns {Promise<boolean>}
 */
export async function takesSystem(system, format) {
  const user = { role: 'user', content: 'Hello' };
  try {
    const text = await format([{ role: 'system', content: system }, user]);
    return text.includes(system.trim());
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    // If the user's message alone is refused too, the system message is not the reason.
    await format([user]);
    return false;
  }
}

/**
 * Puts the system's text in front of the first user's message.
 * @param {string} system
 * @param {readonly Message[]} messages
 * @returns {Message[]}
 */
export function withSystem(system, messages) {
  const first = messages.findIndex(({ role }) => role === 'user');
  return messages.map((message, i) =>
    i === first
      ? /** @type {Message} */ ({ ...message, content: `${system}\n\n${message.content}` })
      : message,
  );
}
