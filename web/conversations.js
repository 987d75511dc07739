/** The conversations that this browser keeps in IndexedDB: texts, and which model wrote last. */
import { Records } from './records.js';

/** @typedef {{ role: string, content: string }} Message */
/** The model's file, and its address where it came from a link. @typedef {{ name: string, url?: string }} ModelFile */
/**
 * @typedef {object} Conversation
 * @property {string} id
 * @property {number} used  when something was last written in it, in milliseconds since 1970
 * @property {string} system  its system prompt; '' for none
 * @property {ModelFile} model  that wrote last
 * @property {Message[]} messages  without the system prompt
 */

/** Characters of a title. */
const longestTitle = 60;
/** Characters that a title is made of, before white space is shortened. */
const titleSource = 400;

/** The beginning of the first message. @param {Conversation} conversation */
export function titleOf({ messages }) {
  const beginning = (messages[0]?.content ?? '').slice(0, titleSource);
  const characters = [...beginning.replace(/\s+/g, ' ').trim()];
  const isLong = characters.length > longestTitle;
  return isLong ? `${characters.slice(0, longestTitle - 1).join('')}…` : characters.join('');
}

const newId = () => `${Date.now()}-${Math.random().toString(36).slice(2)}`;

/** @param {Conversation[]} all */
const lastUsedFirst = (all) => all.sort((a, b) => b.used - a.used);

export class Conversations {
  /** @type {Records<Conversation>} */
  #records = new Records();
  /** Ids of those in the database. @type {Set<string>} */
  #stored = new Set();
  /** The last change of the database. @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** The last used one first; another list after each change. @type {Conversation[]} */
  all = [];
  /** The one on the paper; a new one has no record before its first message. @type {Conversation | undefined} */
  current;
  /** Whether the browser keeps them: some do not in private windows. */
  kept = true;

  /** @template T @param {Promise<T>} work @returns {Promise<T | undefined>} */
  async #try(work) {
    try {
      const value = await work;
      this.kept = true;
      return value;
    } catch {
      this.kept = false;
      return undefined;
    }
  }

  /** Reads what was kept. */
  async load() {
    const found = (await this.#try(this.#records.all())) ?? [];
    for (const { id } of found) this.#stored.add(id);
    // A conversation may have begun before this was read.
    const ids = new Set(this.all.map(({ id }) => id));
    this.all = lastUsedFirst([...this.all, ...found.filter(({ id }) => !ids.has(id))]);
  }

  /** One change of the database after the other. @template T @param {() => Promise<T>} work */
  #inTurn(work) {
    const done = this.#last.then(work);
    this.#last = done;
    return done;
  }

  /** @param {Conversation} conversation @param {number} [used]  of the record that it replaces */
  async #put(conversation, used) {
    const other = await this.#try(this.#records.put(conversation, used));
    if (this.kept) this.#stored.add(conversation.id);
    if (!other) return;
    // Another tab has gone on with it: this tab's becomes a conversation of its own.
    const id = newId();
    for (const one of [conversation, ...this.all]) if (one.id === other.id) one.id = id;
    this.all = lastUsedFirst([...this.all, other]);
    await this.#put(conversation);
  }

  /**
   * Keeps the current conversation, as it is now. Without messages there is nothing to keep.
   * @param {Pick<Conversation, 'messages' | 'system' | 'model'>} state
   */
  async save({ messages, system, model }) {
    if (messages.length === 0) {
      await this.remove();
      return;
    }
    const before = this.current;
    const id = before?.id ?? newId();
    const conversation = { id, used: Date.now(), system, model, messages: [...messages] };
    this.current = conversation;
    this.all = [conversation, ...this.all.filter((one) => one.id !== id)];
    await this.#inTurn(() => this.#put(conversation, before?.used));
  }

  /** Keeps another system prompt of the current conversation. @param {string} system */
  async saveSystem(system) {
    const { current } = this;
    if (!current || current.system === system) return;
    const changed = { ...current, system };
    this.current = changed;
    this.all = this.all.map((one) => (one === current ? changed : one));
    await this.#inTurn(() => this.#put(changed, current.used));
  }

  /** Deletes the current conversation. @returns {Promise<boolean>} false: it is still kept */
  async remove() {
    const { current } = this;
    if (!current) return true;
    this.current = undefined;
    this.all = this.all.filter(({ id }) => id !== current.id);
    return this.#inTurn(async () => {
      await this.#try(this.#records.delete(current.id));
      if (this.kept) this.#stored.delete(current.id);
      if (!this.#stored.has(current.id)) return true;
      this.all = lastUsedFirst([...this.all, current]);
      return false;
    });
  }
}
