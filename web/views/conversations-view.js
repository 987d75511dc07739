/** The conversations as a row of buttons. */
import { titleOf } from '../conversations.js';
import { byId, el } from '../dom.js';

export class ConversationsView {
  #onOpen;
  /** Conversations and state that the list shows. @type {unknown[]} */
  #shown = [];

  /** @param {{ onNew: () => void, onOpen: (id: string) => void }} actions */
  constructor({ onNew, onOpen }) {
    this.#onOpen = onOpen;
    byId('new-conversation').addEventListener('click', onNew);
  }

  /**
   * @param {Pick<import('../conversations.js').Conversations, 'all' | 'current' | 'kept'>} conversations
   * @param {{ isChat: boolean, busy: boolean }} state  busy: the model writes, and no other conversation can be opened
   */
  show({ all, current, kept }, { isChat, busy }) {
    byId('conversations').hidden = !isChat && all.length === 0;
    byId('conversations-note').hidden = kept;
    byId('new-conversation').hidden = !isChat;
    byId('new-conversation').disabled = busy || !current;
    // Made again, it would lose the focus and the place that it is scrolled to.
    const shown = [all, current?.id, busy];
    if (shown.every((one, i) => one === this.#shown[i])) return;
    this.#shown = shown;
    const list = byId('conversation-list');
    list.replaceChildren(
      ...all.map((conversation) => {
        const isCurrent = conversation.id === current?.id;
        const title = titleOf(conversation);
        const button = el(
          'button',
          { type: 'button', class: 'chip', title, disabled: busy, 'aria-current': isCurrent && 'true' },
          title,
        );
        button.addEventListener('click', () => this.#onOpen(conversation.id));
        return el('li', {}, button);
      }),
    );
    if (current && current.id === all[0].id) list.scrollLeft = 0;
  }

  /** The button of the current conversation gets the focus, for one that was there before is gone. */
  focus() {
    const current = byId('conversation-list').querySelector('[aria-current]');
    (current ?? byId('new-conversation')).focus();
  }
}
