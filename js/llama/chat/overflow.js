/* Shortens conversations that are too long for the context: the oldest turns are left out. */

/** @typedef {import('./messages.js').Message} Message */

/**
 * @typedef {object} ChatLimits
 * @property {boolean} [special]  Whether control tokens such as `<|im_end|>` are also recognised in
 *   the texts of messages, tools and variables. Default false: only the template can write control
 *   tokens.
 * @property {'error' | 'drop-oldest'} [overflow]  What happens when the conversation leaves no room
 *   for an answer. 'error' throws a ContextError if the prompt alone does not fit. 'drop-oldest'
 *   leaves out the oldest turns, with their answers and tool messages, until `maxTokens` fit as
 *   well (at most half of the context). System messages at the beginning and the last turn always
 *   stay. Default 'error'.
 */

export const OVERFLOWS = Object.freeze(['error', 'drop-oldest']);

/**
 * Most tokens of a prompt, so that an answer fits after it.
 * @param {number} contextLength
 * @param {number} maxTokens  most tokens of the answer
 */
export const promptRoom = (contextLength, maxTokens) =>
  contextLength - Math.min(maxTokens, Math.floor(contextLength / 2));

/**
 * Finds where the turns of a conversation begin. A turn is a user's messages with all answers to
 * them. Messages before the first turn belong to it, except system messages.
 * @param {readonly Message[]} messages
 * @returns {{ fixed: number, starts: number[] }} fixed: the number of messages at the beginning
 *   that always stay
 */
export function findTurns(messages) {
  const isSystem = (/** @type {Message} */ { role }) => role === 'system' || role === 'developer';
  let fixed = 0;
  while (fixed < messages.length && isSystem(messages[fixed])) fixed += 1;
  /** @type {number[]} */
  const starts = [];
  for (let i = fixed; i < messages.length; i++)
    if (i === fixed || (messages[i].role === 'user' && messages[i - 1].role !== 'user')) starts.push(i);
  // Messages of the assistant before the first message of the user belong to the user's turn.
  if (starts.length > 1 && messages[starts[0]].role !== 'user') starts.splice(1, 1);
  return { fixed, starts };
}

/**
 * Leaves out as few of the oldest turns as needed.
 * @param {readonly Message[]} messages
 * @param {(messages: readonly Message[]) => Promise<number[]>} tokensOf
 * @param {number} room  most tokens of the prompt
 * @returns {Promise<{ tokens: number[], dropped: number }>} dropped: the number of messages left
 *   out; tokens: those of the last turn, if even that is too long
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
