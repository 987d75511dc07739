/** The conversation on the paper: opened, kept after each answer, deleted. */
import { Conversations, titleOf } from './conversations.js';
import { el } from './dom.js';
import { count } from './format.js';
import { announce } from './jobs.js';
import { parseLink } from './links.js';
import { ConversationsView } from './views/conversations-view.js';

/** @typedef {import('./conversations.js').Conversation} Conversation */

/**
 * @typedef {object} Parts
 * @property {import('./views/writer.js').WriterView} writer
 * @property {import('./views/options.js').OptionsView} options
 * @property {() => import('./conversations.js').ModelFile | undefined} file  of the model
 * @property {(link: { url: string, file: string }) => void} link  runs the model of a link
 * @property {() => boolean} isChat  whether the model that is loaded can go on with a conversation
 * @property {(question: string) => void} ask  offers a question that has no answer for asking again
 * @property {() => void} changed  another conversation is on the paper, or a new one
 */

export class Chat {
  #parts;
  #conversations = new Conversations();
  #view;
  #isShown = false;

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
    this.#view = new ConversationsView({
      onNew: () => this.begin(),
      onOpen: (conversation) => this.open(conversation),
    });
  }

  /** Reads what this browser keeps; the last used conversation is the current one. */
  async load() {
    await this.#conversations.load();
    const { all, current } = this.#conversations;
    if (current || this.#parts.writer.messages.length > 0) return;
    this.#conversations.current = all[0];
    if (all[0] && !this.#parts.options.system) this.#parts.options.system = all[0].system;
  }

  /** Whether the current conversation is on the paper. */
  get isOpen() {
    return this.#conversations.current !== undefined && this.#isShown;
  }

  /** @param {boolean} busy  the model writes */
  show(busy) {
    const { all, current, kept } = this.#conversations;
    const shown = this.isOpen ? current : undefined;
    this.#view.show({ all, kept, current: shown }, { isChat: this.#parts.isChat(), busy });
  }

  /** What the model answers: the messages on the paper, after the system prompt. */
  get messages() {
    const { system } = this.#parts.options;
    const { messages } = this.#parts.writer;
    return system ? [{ role: 'system', content: system }, ...messages] : messages;
  }

  /** Something else comes on the paper. */
  leave() {
    this.#isShown = false;
  }

  /** A new conversation. */
  begin() {
    this.#conversations.current = undefined;
    this.#parts.writer.clear();
    this.#parts.changed();
  }

  /** Puts the current conversation on the paper again. */
  resume() {
    this.#parts.writer.clear();
    if (this.#conversations.current) this.#put(this.#conversations.current);
  }

  /** @param {Conversation} conversation */
  open(conversation) {
    this.#conversations.current = conversation;
    this.#parts.options.system = conversation.system;
    this.#put(conversation);
    this.#parts.changed();
    this.#view.focus();
    announce(`${titleOf(conversation)}: ${count(conversation.messages.length)} messages.`);
  }

  /** @param {Conversation} conversation */
  #put({ messages, model }) {
    const { writer, isChat, link, ask } = this.#parts;
    const last = messages.at(-1);
    const isAnswered = last?.role !== 'user';
    writer.show(isAnswered ? messages : messages.slice(0, -1));
    if (last && !isAnswered) ask(last.content);
    this.#isShown = true;
    const length = `${count(messages.length)} messages with ${model.name}.`;
    if (isChat()) {
      writer.line(length);
      return;
    }
    const { name, url } = model;
    const run = el('button', { type: 'button', class: 'button quiet small' }, `Run ${name}`);
    run.addEventListener('click', () => url && link(parseLink(url, document.baseURI)));
    writer.line(`${length} A model with a chat template can go on with it. `, ...(url ? [run] : []));
  }

  /** Keeps what is on the paper. */
  async save() {
    const { writer, options, file } = this.#parts;
    const model = file() ?? { name: 'a model' };
    this.#isShown = true;
    await this.#conversations.save({ messages: writer.messages, system: options.system, model });
  }

  /** Deletes the current conversation. */
  delete() {
    this.#conversations.remove();
    this.leave();
    this.#parts.writer.clear();
    this.#parts.changed();
    this.#parts.writer.line('Deleted.');
    announce('Deleted.');
  }
}
