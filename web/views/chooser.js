/** The dialog that chooses another model, and dropping one on the page. */
import { byId } from '../dom.js';
import { LinkError, parseLink } from '../links.js';
import { setUpModelLists } from './model-lists.js';

/** @typedef {{ files: (files: File[]) => void, link: (link: { url: string, file: string }) => void, builtIn: () => void }} Choices */

/** @param {Choices & import('./model-lists.js').KeptModels} choices */
export function setUpChooser({ files, link, builtIn, ...models }) {
  const dialog = /** @type {HTMLDialogElement} */ (byId('chooser'));
  const input = /** @type {HTMLInputElement} */ (byId('link'));
  const showModels = setUpModelLists(models, (chosen) => {
    dialog.close();
    link(chosen);
  });
  byId('change').addEventListener('click', () => {
    byId('link-error').textContent = '';
    input.removeAttribute('aria-invalid');
    dialog.showModal();
    showModels();
  });

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
