/** What the page is busy with: one job at a time; a new one ends the one before, whose outcome is then dropped. */
import { byId, el } from './dom.js';
import { bytes } from './format.js';
import { adviceFor, messageOf } from './problems.js';

/** Work that is over sooner shows no progress bar, which would only flash. */
const progressDelayMs = 250;

/** @param {string} text  for the live region; behind an open dialog none is read out */
export function announce(text) {
  byId(document.querySelector('dialog[open]') ? 'chooser-announce' : 'announce').textContent = text;
}

/**
 * @param {string} title
 * @param {import('./problems.js').CodedError} error
 * @param {{ label: string, run: () => void }} [way]  out of it
 */
export function alertUser(title, error, way) {
  const advice = adviceFor(error);
  const close = el('button', { type: 'button', class: 'button quiet small' }, 'Dismiss');
  const box = el(
    'div',
    { class: 'alert' },
    el(
      'div',
      {},
      el('strong', {}, title),
      el('p', {}, sentence(messageOf(error))),
      ...(advice ? [el('p', { class: 'advice' }, advice)] : []),
    ),
    close,
  );
  close.addEventListener('click', () => {
    box.remove();
    byId('change').focus();
  });
  if (way) {
    const button = el('button', { type: 'button', class: 'button small' }, way.label);
    button.addEventListener('click', way.run);
    close.before(button);
  }
  byId('alerts').replaceChildren(box);
  box.scrollIntoView({ block: 'nearest' });
}

export const clearAlert = () => byId('alerts').replaceChildren();

/** @param {string} message */
function sentence(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** @typedef {{ signal: AbortSignal, progress: (p: { loaded: number, total: number }) => void }} JobContext */

export class Jobs {
  /** @type {AbortController | undefined} */
  #current;

  constructor() {
    byId('cancel').addEventListener('click', () => this.stop());
  }

  get busy() {
    return this.#current !== undefined;
  }

  /** Ends the job that runs. */
  stop() {
    this.#current?.abort();
  }

  /**
   * @template T
   * @param {(context: JobContext) => Promise<T>} work
   * @param {{ label?: string, failed: (error: Error) => void, cancelled?: () => void }} options  label: of a progress bar
   * @returns {Promise<T | undefined>} undefined when it failed, was cancelled, or another job took its place
   */
  async run(work, { label, failed, cancelled }) {
    this.#current?.abort();
    const job = new AbortController();
    this.#current = job;
    clearAlert();
    const bar = /** @type {HTMLProgressElement} */ (byId('progress-bar'));
    byId('progress').hidden = true;
    byId('progress-label').textContent = label ?? '';
    bar.removeAttribute('value');
    const timer = setTimeout(() => {
      byId('progress').hidden = !label;
    }, progressDelayMs);
    const start = performance.now();
    const progress = (/** @type {{ loaded: number, total: number }} */ { loaded, total }) => {
      if (this.#current !== job) return;
      bar.value = total ? loaded / total : 0;
      const perSecond = loaded / ((performance.now() - start) / 1000);
      byId('progress-label').textContent =
        `${label}: ${bytes(loaded)} of ${bytes(total)}, ${bytes(perSecond)}/s`;
    };
    try {
      const result = await work({ signal: job.signal, progress });
      return this.#current === job ? result : undefined;
    } catch (cause) {
      if (this.#current !== job) return undefined;
      const error = /** @type {Error} */ (cause);
      if (error.name === 'AbortError') {
        announce('Cancelled.');
        cancelled?.();
      } else failed(error);
      return undefined;
    } finally {
      clearTimeout(timer);
      if (this.#current === job) {
        this.#current = undefined;
        byId('progress').hidden = true;
      }
    }
  }
}
