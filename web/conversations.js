/** The conversations that this browser keeps: texts only, in IndexedDB. */
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

/** The beginning of the first message. @param {Conversation} conversation */
export function titleOf({ messages }) {
  const words = (messages[0]?.content ?? '').replace(/\s+/g, ' ').trim();
  return words.length > longestTitle ? `${words.slice(0, longestTitle - 1)}…` : words;
}

export class Conversations {
  /** @type {Records<Conversation>} */
  #records = new Records();
  /** The last used one first. @type {Conversation[]} */
  all = [];
  /** The one on the paper; a new one has no record before its first message. @type {Conversation | undefined} */
  current;
  /** Whether the browser keeps them: some do not in private windows. */
  kept = true;

  /** @template T @param {Promise<T>} work @returns {Promise<T | undefined>} */
  async #try(work) {
    try {
      return await work;
    } catch {
      this.kept = false;
      return undefined;
    }
  }

  /** Reads what was kept. */
  async load() {
    const found = (await this.#try(this.#records.all())) ?? [];
    // A conversation may have begun before this was read.
    const ids = new Set(this.all.map(({ id }) => id));
    this.all = [...this.all, ...found.filter(({ id }) => !ids.has(id))].sort((a, b) => b.used - a.used);
  }

  /**
   * Keeps the current conversation, as it is now. Without messages there is nothing to keep.
   * @param {Pick<Conversation, 'messages' | 'system' | 'model'>} state
   */
  async save({ messages, system, model }) {
    if (messages.length === 0) return this.remove();
    const id = this.current?.id ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;
    const conversation = { id, used: Date.now(), system, model, messages: [...messages] };
    this.current = conversation;
    this.all = [conversation, ...this.all.filter((other) => other.id !== id)];
    await this.#try(this.#records.put(conversation));
  }

  /** Deletes the current conversation. */
  async remove() {
    const { current } = this;
    if (!current) return;
    this.current = undefined;
    this.all = this.all.filter(({ id }) => id !== current.id);
    await this.#try(this.#records.delete(current.id));
  }
}
