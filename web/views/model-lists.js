/** The lists of the chooser: models that this browser keeps, and small models by link. */
import { byId, el } from '../dom.js';
import { bytes, count } from '../format.js';
import { alertUser } from '../jobs.js';
import { parseLink, suggestions } from '../links.js';
import { askFirst } from './confirm.js';

/** @typedef {{ url: string, size: number, bytes: number }} Kept */
/** @typedef {{ url: string, file: string }} Link */

const nbsp = '\u00a0';

/** @param {string} words @param {string} label  for those who do not see the row @param {() => void} action */
function button(words, label, action) {
  const made = el('button', { type: 'button', class: 'button quiet small', 'aria-label': label }, words);
  made.addEventListener('click', action);
  return made;
}

/** @param {number} n */
const modelsOf = (n) => `${count(n)}${nbsp}${n === 1 ? 'model' : 'models'}`;

/** @param {readonly Kept[]} all */
const bytesOf = (all) => all.reduce((sum, one) => sum + one.bytes, 0);

/** The space that models take and, if the browser says so, the space left. @param {readonly Kept[]} all */
async function sumWords(all) {
  const words = `${modelsOf(all.length)}, ${bytes(bytesOf(all))}.`;
  const { quota, usage } = (await navigator.storage?.estimate?.().catch(() => undefined)) ?? {};
  return quota ? `${words} The browser has about ${bytes(quota - (usage ?? 0))} left for this page.` : words;
}

/**
 * @typedef {object} KeptModels
 * @property {() => Promise<Kept[]>} kept
 * @property {(url: string) => Promise<Kept[]>} forget
 * @property {() => Promise<Kept[]>} forgetAll
 */

/**
 * @param {KeptModels} models
 * @param {(link: Link) => void} run  closes the dialog, and runs a model
 * @returns {() => Promise<void>} shows what there is now
 */
export function setUpModelLists({ kept, forget, forgetAll }, run) {
  /** @type {Kept[]} */
  let all = [];

  /** @param {Kept[]} found */
  function show(found) {
    all = found;
    byId('kept').hidden = all.length === 0;
    byId('kept-list').replaceChildren(...all.map(keptRow));
    byId('suggestions').replaceChildren(...suggestions.map(suggestedRow));
    sumWords(all).then((words) => {
      if (all === found) byId('kept-sum').textContent = words;
    });
  }

  /** Shows what a removal leaves. @param {Promise<Kept[]>} work */
  async function change(work) {
    try {
      show(await work);
      byId('chooser-close').focus();
    } catch (error) {
      byId('chooser').close();
      alertUser('The models could not be removed', /** @type {Error} */ (error));
    }
  }

  /** @param {Kept} model */
  function keptRow({ url, size, bytes: there }) {
    const link = parseLink(url, document.baseURI);
    const amount = there < size ? `${bytes(there)} of ${bytes(size)}` : bytes(size);
    return el(
      'li',
      {},
      el('span', {}, `${link.file} `, el('span', { class: 'muted' }, amount)),
      button('Run', `Run ${link.file}`, () => run(link)),
      button('Remove', `Remove ${link.file}`, () => change(forget(url))),
    );
  }

  /** @param {import('../links.js').Suggestion} model */
  function suggestedRow({ name, type, bytes: size, licence, link: page }) {
    const link = parseLink(page, document.baseURI);
    const isKept = all.some(({ url, size: whole, bytes: there }) => url === link.url && there === whole);
    const label = isKept ? `Run ${name}` : `Load ${name}, ${bytes(size)}`;
    return el(
      'li',
      {},
      el(
        'span',
        {},
        el('a', { href: page, target: '_blank', rel: 'noreferrer' }, name),
        el('span', { class: 'muted' }, ` ${type} · ${bytes(size)} · ${licence}`),
      ),
      button(isKept ? 'Run' : 'Load', label, () => run(link)),
    );
  }

  askFirst(
    byId('free-space'),
    () => `Remove ${modelsOf(all.length)}?`,
    () => change(forgetAll()),
  );

  return () => {
    show(all);
    return kept().then(show, () => show([]));
  };
}
