/** Conversations that outgrow the context. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dropOldest, findTurns, promptRoom } from '../../js/llama/chat/overflow.js';
import { ArgumentError, ContextError, Llama } from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';

/** @typedef {import('../../js/llama/chat/messages.js').Message} Message */

const ROLES = { s: 'system', u: 'user', a: 'assistant', t: 'tool' };
/** Messages from the first letters of their roles. @param {string} letters @returns {Message[]} */
const talk = (letters) =>
  Array.from(letters, (letter, i) => ({
    role: ROLES[/** @type {'s'} */ (letter)],
    content: `${letter}${i}`,
  }));

/**
 * The messages that are kept with room for some, each one token long.
 * @param {string} letters @param {number} room
 */
async function kept(letters, room) {
  let renderings = 0;
  let sent = '';
  const result = await dropOldest(
    talk(letters),
    async (messages) => {
      renderings += 1;
      sent = messages.map(({ content }) => content).join(' ');
      return messages.map((_, i) => i);
    },
    room,
  );
  return { ...result, renderings, sent };
}

test('overflow: whole turns go, the oldest first, and as few as needed', async () => {
  for (const [letters, room, dropped] of /** @type {[string, number, number][]} */ ([
    ['uauau', 5, 0],
    ['uauau', 4, 2],
    ['uauau', 3, 2],
    ['uauau', 2, 4],
    ['uauau', 1, 4],
    ['suauau', 6, 0],
    ['suauau', 5, 2],
    ['suauau', 2, 4],
    ['uatatauatatau', 12, 6],
    ['uatatauatatau', 6, 12],
    ['uatatauatat', 6, 6],
    ['uuauuau', 6, 3],
    ['auau', 3, 3],
    ['ssuauau', 5, 2],
    ['usau', 3, 3],
    ['aaa', 1, 0],
    ['u', 0, 0],
    ['su', 0, 0],
  ])) {
    const { tokens, dropped: got } = await kept(letters, room);
    assert.equal(got, dropped, `${letters} in ${room}`);
    assert.equal(tokens.length, letters.length - dropped);
  }
});

test('overflow: turns begin with a user, after the system', () => {
  assert.deepEqual(findTurns(talk('suatauua')), { fixed: 1, starts: [1, 5] });
  assert.deepEqual(findTurns(talk('auau')), { fixed: 0, starts: [0, 3] });
  assert.deepEqual(findTurns(talk('s')), { fixed: 1, starts: [] });
  assert.deepEqual(findTurns([{ role: 'developer', content: 'd' }, ...talk('u')]), { fixed: 1, starts: [1] });
});

test('overflow: few renderings are enough for many turns, and the least is dropped', async () => {
  for (const room of [1, 2, 3, 10, 999, 1000, 1998]) {
    const { tokens, dropped, renderings } = await kept('ua'.repeat(1000), room);
    assert.ok(renderings <= 14, `${renderings} renderings`);
    const needed = Math.min(1998, 2 * Math.ceil((2000 - room) / 2));
    assert.deepEqual([dropped, tokens.length], [needed, 2000 - needed]);
  }
});

test('overflow: room for the answer is at most half of the context', () => {
  assert.equal(promptRoom(256, 40), 216);
  assert.equal(promptRoom(256, 256), 128);
  assert.equal(promptRoom(256, Number.POSITIVE_INFINITY), 128);
  assert.equal(promptRoom(1, 5), 1);
});

test('llama: a conversation that outgrows the context goes on without its oldest turns', async (t) => {
  const model = await Llama.load(TINY_TALES, { contextLength: 96 });
  t.after(() => model.dispose());
  const template =
    "{% for m in messages %}{% if m.role == 'assistant' and loop.first %}{{ raise_exception('an answer comes first') }}{% endif %}{{ m.content ~ '\n' }}{% endfor %}";
  const options = /** @type {const} */ ({ template, temperature: 0, maxTokens: 20, overflow: 'drop-oldest' });
  /** @type {Message[]} */
  let messages = [{ role: 'system', content: 'Tell stories.' }];
  let dropped = 0;
  for (let turn = 0; turn < 8; turn++) {
    messages.push({ role: 'user', content: `A story about a fox, number ${turn}.` });
    const run = await model.chat(messages, options);
    const before = messages.length;
    messages = [messages[0], ...messages.slice(1 + run.droppedMessages)];
    assert.equal(before - messages.length, run.droppedMessages);
    assert.equal(run.droppedMessages % 2, 0, 'a question goes with its answer');
    const text = await run.text();
    assert.ok(run.stats.finishReason !== 'context', 'there is room for the answer');
    messages.push({ role: 'assistant', content: text });
    dropped += run.droppedMessages;
  }
  assert.ok(dropped > 4);
  const many = Array.from({ length: 21 }, (_, i) => ({
    role: i % 2 ? 'assistant' : 'user',
    content: 'the fox and the bear',
  }));
  await assert.rejects(model.chat(many, { template }), ContextError);
  await assert.rejects(model.chat(many, { template, overflow: 'error' }), ContextError);
  const long = { role: 'user', content: 'fox '.repeat(300) };
  await assert.rejects(
    model.chat([...many, long], options),
    ContextError,
    'the last message is never left out',
  );
  await assert.rejects(
    model.chat(many, /** @type {any} */ ({ template, overflow: 'drop' })),
    (error) =>
      error instanceof ArgumentError &&
      /overflow must be one of error, drop-oldest, got "drop"/.test(error.message),
  );
});
