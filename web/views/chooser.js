/** The dialog that chooses another model, and dropping one on the page. */
import { byId, el } from '../dom.js';
import { bytes } from '../format.js';
import { LinkError, parseLink, suggestions } from '../links.js';

/** @typedef {{ files: (files: File[]) => void, link: (link: { url: string, file: string }) => void, builtIn: () => void }} Choices */

/** @typedef {{ url: string, size: number, bytes: number }} Kept */

/** @param {Choices & { kept: () => Promise<Kept[]>, forget: (url: string) => Promise<Kept[]> }} choices */
export function setUpChooser({ files, link, builtIn, kept, forget }) {
  const dialog = /** @type {HTMLDialogElement} */ (byId('chooser'));
  const input = /** @type {HTMLInputElement} */ (byId('link'));
  byId('change').addEventListener('click', () => {
    byId('link-error').textContent = '';
    input.removeAttribute('aria-invalid');
    dialog.showModal();
    kept().then(showKept, () => showKept([]));
  });

  /** @param {Kept[]} all */
  function showKept(all) {
    byId('kept').hidden = all.length === 0;
    byId('kept-list').replaceChildren(
      ...all.map(({ url, size, bytes: there }) => {
        const parsed = parseLink(url, document.baseURI);
        const load = el('button', { type: 'button', class: 'button quiet small' }, 'Run');
        const remove = el('button', { type: 'button', class: 'button quiet small' }, 'Remove');
        load.setAttribute('aria-label', `Run ${parsed.file}`);
        remove.setAttribute('aria-label', `Remove ${parsed.file}`);
        load.addEventListener('click', () => {
          dialog.close();
          link(parsed);
        });
        remove.addEventListener('click', async () => {
          showKept(await forget(url));
          byId('chooser-close').focus();
        });
        const amount = there < size ? `${bytes(there)} of ${bytes(size)}` : bytes(size);
        return el(
          'li',
          {},
          el('span', {}, `${parsed.file} `, el('span', { class: 'muted' }, amount)),
          load,
          remove,
        );
      }),
    );
  }

  byId('chooser-close').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => {
    // The dialog itself is hit only beside its content: on the backdrop, or its padding.
    if (event.target !== dialog) return;
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const { clientX: x, clientY: y } = event;
    if (x < left || x > right || y < top || y > bottom) dialog.close();
  });

  byId('choose').addEventListener('click', () => byId('file').click());
  byId('file').addEventListener('change', () => {
    // Copied: the list of the input is emptied with it.
    const chosen = [...byId('file').files];
    dialog.close();
    if (chosen.length > 0) files(chosen);
    byId('file').value = '';
  });
  byId('default').addEventListener('click', () => {
    dialog.close();
    builtIn();
  });

  const submit = () => {
    try {
      const parsed = parseLink(input.value, document.baseURI);
      byId('link-error').textContent = '';
      input.removeAttribute('aria-invalid');
      dialog.close();
      link(parsed);
    } catch (error) {
      if (!(error instanceof LinkError)) throw error;
      byId('link-error').textContent = error.message;
      input.setAttribute('aria-invalid', 'true');
      input.focus();
    }
  };
  byId('link-form').addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
  });
  byId('suggestions').append(
    ...suggestions.map(({ label, link: address }) => {
      const chip = el('button', { type: 'button', class: 'chip' }, label);
      chip.addEventListener('click', () => {
        input.value = address;
        submit();
      });
      return chip;
    }),
  );

  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes('Files');
  addEventListener('dragover', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) document.body.classList.remove('dropping');
  });
  addEventListener('drop', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove('dropping');
    dialog.close();
    const dropped = [...(event.dataTransfer?.files ?? [])];
    if (dropped.length > 0) files(dropped);
  });
}
