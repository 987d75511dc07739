/* Conversations that have become too long for the context: the oldest turns go. */

/** @typedef {import('./messages.js').Message} Message */

/**
 * @typedef {object} ChatLimits
 * @property {boolean} [special]  Whether control tokens such as `<|im_end|>` are also recognised in the texts of messages,
 *   tools and variables; default false: only what the template itself writes can be a control token.
 * @property {'error' | 'drop-oldest'} [overflow]  What happens when the conversation leaves no room for an answer: 'error'
 *   throws a ContextError once the prompt alone does not fit; 'drop-oldest' leaves out the oldest turns, each with its
 *   answer and its tool messages, until there is room for `maxTokens` (at most half of the context) as well. System messages
 *   at the beginning and the last turn always stay. Default 'error'.
 */

export const OVERFLOWS = Object.freeze(['error', 'drop-oldest']);

/**
 * The tokens that a prompt may have, so that an answer fits behind it.
 * @param {number} contextLength
 * @param {number} maxTokens  of the answer
 */
export const promptRoom = (contextLength, maxTokens) =>
  contextLength - Math.min(maxTokens, Math.floor(contextLength / 2));

/**
 * Where the turns of a conversation begin: each is a user's messages and all that answers them. Messages in front of the
 * first turn belong to it, except the system's.
 * @param {readonly Message[]} messages
 * @returns {{ fixed: number, starts: number[] }}  fixed: messages at the beginning that stay
 */
export function findTurns(messages) {
  const isSystem = (/** @type {Message} */ { role }) => role === 'system' || role === 'developer';
  let fixed = 0;
  while (fixed < messages.length && isSystem(messages[fixed])) fixed += 1;
  /** @type {number[]} */
  const starts = [];
  for (let i = fixed; i < messages.length; i++)
    if (i === fixed || (messages[i].role === 'user' && messages[i - 1].role !== 'user')) starts.push(i);
  // What an assistant says before the first user's message goes with that user's turn.
  if (starts.length > 1 && messages[starts[0]].role !== 'user') starts.splice(1, 1);
  return { fixed, starts };
}

/**
 * Leaves out as few of the oldest turns as needed.
 * @param {readonly Message[]} messages
 * @param {(messages: readonly Message[]) => Promise<number[]>} tokensOf
 * @param {number} room  tokens that the prompt may have
 * @returns {Promise<{ tokens: number[], dropped: number }>}  dropped: messages; where even the last turn is too long, its tokens
 */
export async function dropOldest(messages, tokensOf, room) {
  const all = { tokens: await tokensOf(messages), dropped: 0 };
  if (all.tokens.length <= room) return all;
  const { fixed, starts } = findTurns(messages);
  const without = async (/** @type {number} */ turns) => {
    const start = starts[turns];
    const tokens = await tokensOf([...messages.slice(0, fixed), ...messages.slice(start)]);
    return { tokens, dropped: start - fixed };
  };
  if (starts.length < 2) return all;
  let [low, high] = [1, starts.length - 1];
  let best = await without(high);
  if (best.tokens.length > room) return best;
  while (low < high) {
    const middle = (low + high) >> 1;
    const some = await without(middle);
    if (some.tokens.length <= room) [best, high] = [some, middle];
    else low = middle + 1;
  }
  return best;
}
