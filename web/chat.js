/** The conversation on the paper: opened, kept after each answer, deleted. */
import { Conversations, titleOf } from './conversations.js';
import { byId, el } from './dom.js';
import { count } from './format.js';
import { announce } from './jobs.js';
import { parseLink } from './links.js';
import { ConversationsView } from './views/conversations-view.js';

/** @typedef {import('./conversations.js').Conversation} Conversation */

/**
 * @typedef {object} Parts
 * @property {import('./views/writer.js').WriterView} writer
 * @property {import('./views/options.js').OptionsView} options
 * @property {(link: { url: string, file: string }) => void} link  runs the model of a link
 * @property {() => boolean} isChat  whether the model goes on with the conversation on the paper
 * @property {() => void} toChat  turns to the mode "Chat", where the model has it
 * @property {(question: string) => void} ask  offers a question without an answer for asking again; '' for none
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
      onOpen: (id) => this.open(id),
    });
  }

  /** Reads what this browser keeps; the last used conversation is the current one. */
  async load() {
    await this.#conversations.load();
    const { all, current } = this.#conversations;
    if (current || this.#parts.writer.messages.length > 0) return;
    this.#conversations.current = all[0];
    if (all[0]) this.#parts.options.system = all[0].system;
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

  /** The messages for the model: the system prompt, then those on the paper. */
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
    this.#keepSystem();
    this.#conversations.current = undefined;
    this.#empty();
  }

  /** The paper, the system prompt and the prompt of a new conversation. */
  #empty() {
    const { writer, options, ask, changed } = this.#parts;
    writer.clear();
    options.system = '';
    ask('');
    changed();
    byId('prompt').focus();
  }

  /** The system prompt may have been changed since the last answer. */
  #keepSystem() {
    if (this.isOpen) this.#conversations.saveSystem(this.#parts.options.system);
  }

  /** Puts the current conversation on the paper again. */
  resume() {
    this.#parts.writer.clear();
    if (this.#conversations.current) this.#put(this.#conversations.current);
  }

  /** @param {string} id */
  open(id) {
    this.#keepSystem();
    const conversation = this.#conversations.all.find((one) => one.id === id);
    if (!conversation) return;
    this.#parts.toChat();
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
    const question = isChat() && last?.role === 'user' ? last.content : '';
    writer.show(question ? messages.slice(0, -1) : messages);
    ask(question);
    this.#isShown = true;
    const length = `${count(messages.length)} messages with ${model.name}.`;
    if (isChat()) {
      writer.line(length);
      return;
    }
    const { name, url } = model;
    const run = el('button', { type: 'button', class: 'button quiet small' }, `Run ${name}`);
    run.addEventListener('click', () => url && link(parseLink(url, document.baseURI)));
    writer.line(`${length} Only a chat model can go on with the conversation. `, ...(url ? [run] : []));
  }

  /** Keeps what is on the paper. @param {import('./conversations.js').ModelFile} model  that writes */
  async save(model) {
    const { writer, options } = this.#parts;
    this.#isShown = true;
    await this.#conversations.save({ messages: writer.messages, system: options.system, model });
  }

  /** Deletes the current conversation. */
  async delete() {
    const removing = this.#conversations.remove();
    this.leave();
    this.#empty();
    const words = (await removing) ? 'Deleted.' : 'It could not be deleted: try again.';
    this.#parts.changed();
    this.#parts.writer.line(words);
    announce(words);
  }
}
