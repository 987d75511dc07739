/* System texts for models whose templates know no system role. */

import { ModelError } from '../errors.js';

/** @typedef {import('./messages.js').Message} Message */

/**
 * Whether a template takes a system message: it neither refuses one nor leaves its text out.
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
    // A template that refuses a lone user's message too has another reason.
    await format([user]);
    return false;
  }
}

/**
 * Messages with the system's text in front of the first user's message.
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
