/** The paper a model writes on: a text it continues, or the turns of a chat. */
import { byId, el, frame } from '../dom.js';
import { count } from '../format.js';

/** @typedef {import('../../js/llama/generation.js').GenerationStats} Stats */
/** @typedef {{ role: string, content: string }} Message */

/** Closer to the end than this, the paper follows what is written. */
const nearEndPx = 48;

/** Characters that are laid out in one go. */
const partLength = 6000;

/** Where the part before `end` begins. @param {readonly Message[]} messages @param {number} end */
function partBefore(messages, end) {
  let length = 0;
  let start = end;
  while (start > 0 && length < partLength) length += messages[--start].content.length;
  return start;
}

/** @param {string} role @param {Text} content */
function turnOf(role, content) {
  const isUser = role === 'user';
  const by = el('span', { class: 'visually-hidden' }, isUser ? 'You: ' : 'The model: ');
  return el('div', { class: isUser ? 'turn user' : 'turn' }, by, content);
}

export class WriterView {
  #paper = byId('paper');
  #text = byId('text');
  #caret = el('span', { class: 'caret', 'aria-hidden': 'true' });
  /** Where pieces go. @type {Text | undefined} */
  #target;
  #follows = true;
  /** What was written so far, as the model continues it. */
  text = '';
  /** @type {Message[]} */
  messages = [];

  constructor() {
    // Not every browser lets the keyboard scroll what holds nothing to focus.
    this.#paper.tabIndex = 0;
    this.#paper.addEventListener('scroll', () => {
      const { scrollTop, scrollHeight, clientHeight } = this.#paper;
      this.#follows = scrollHeight - scrollTop - clientHeight < nearEndPx;
    });
  }

  /** @param {string} words  while there is nothing written */
  placeholder(words) {
    byId('paper-placeholder').textContent = words;
  }

  clear() {
    this.text = '';
    this.messages = [];
    this.#target = undefined;
    this.#text.replaceChildren();
    byId('paper-placeholder').hidden = false;
    this.line('');
  }

  /** A new text. @param {string} prompt */
  begin(prompt) {
    this.text = prompt;
    this.messages = [];
    const target = document.createTextNode('');
    this.#text.replaceChildren(
      el('p', { class: 'written' }, el('span', { class: 'given' }, prompt), target, this.#caret),
    );
    this.#open(target);
  }

  /** More of the same text. */
  resume() {
    if (!this.#target) this.begin(this.text);
    const target = /** @type {Text} */ (this.#target);
    target.after(this.#caret);
    this.#open(target);
  }

  /**
   * A conversation that was kept. Its last turns are there at once; the older ones come above them in parts, as a long text takes
   * long to lay out.
   * @param {readonly Message[]} messages  without the system prompt
   */
  async show(messages) {
    this.clear();
    const mine = [...messages];
    this.messages = mine;
    if (mine.at(-1)?.role === 'assistant') this.text = mine.at(-1)?.content ?? '';
    byId('paper-placeholder').hidden = mine.length > 0;
    this.#follows = true;
    let end = messages.length;
    while (end > 0 && this.messages === mine) {
      const start = partBefore(messages, end);
      const part = messages.slice(start, end);
      this.#text.prepend(...part.map(({ role, content }) => turnOf(role, document.createTextNode(content))));
      this.#scroll();
      end = start;
      await frame();
    }
  }

  /** A message of a conversation, and the place for its answer. @param {string} question */
  ask(question) {
    if (this.messages.length === 0) this.#text.replaceChildren();
    this.messages.push({ role: 'user', content: question });
    this.#text.append(turnOf('user', document.createTextNode(question)));
    this.#answer();
  }

  /** Takes the last answer away, and makes a place for another. */
  askAgain() {
    this.messages.pop();
    this.#text.lastElementChild?.remove();
    this.#answer();
  }

  #answer() {
    this.text = '';
    const target = document.createTextNode('');
    const turn = turnOf('assistant', target);
    turn.append(this.#caret);
    this.#text.append(turn);
    this.#open(target);
  }

  /** @param {Text} target */
  #open(target) {
    this.#target = target;
    this.#follows = true;
    byId('paper-placeholder').hidden = true;
    this.#paper.setAttribute('aria-busy', 'true');
    this.#scroll();
  }

  /** @param {string} piece */
  append(piece) {
    if (!piece) return;
    this.text += piece;
    this.#target?.appendData(piece);
    this.#scroll();
  }

  /** The end of what is being written. @param {boolean} isDone  an answer of which there is nothing counts */
  close(isDone) {
    if (this.messages.at(-1)?.role === 'user' && (isDone || this.text))
      this.messages.push({ role: 'assistant', content: this.text });
    this.#caret.remove();
    this.#paper.removeAttribute('aria-busy');
  }

  /** What can be copied: the text, or the conversation. */
  get copyable() {
    if (this.messages.length === 0) return this.text;
    return this.messages
      .map(({ role, content }) => `${role === 'user' ? 'You' : 'Model'}: ${content}`)
      .join('\n\n');
  }

  /** @param {string} words  below the paper @param {...Node} more */
  line(words, ...more) {
    byId('outcome-line').replaceChildren(words || '\u00a0', ...more);
  }

  #scroll() {
    if (this.#follows) this.#paper.scrollTop = this.#paper.scrollHeight;
  }

  /**
   * Why it ended, in words.
   * @param {Stats} stats @param {boolean} stopped @param {number} contextLength
   */
  static outcome({ finishReason, tokens, seed }, stopped, contextLength) {
    const wrote = `${count(tokens)} ${tokens === 1 ? 'token' : 'tokens'}`;
    if (stopped || finishReason === 'stopped') return `Stopped after ${wrote} · seed ${seed}`;
    const why = {
      end: 'The model came to an end',
      stop: 'The model came to an end',
      length: 'As long as asked for',
      context: `The model’s context of ${count(contextLength)} tokens is full`,
    }[finishReason ?? 'end'];
    return `${why} · ${wrote} · seed ${seed}`;
  }
}
