/** The table of a file's tensors. */
import { breakable, byId, el } from './dom.js';
import { bytes, count, dimensions } from './format.js';

/**
 * @typedef {{ name: string, type: string, shape: number[], nRows: number, nCols: number, byteLength: number,
 *   obstacle: string }} TensorRow
 */

/** Shown at once without asking; larger ones wait for a click. */
const maxFirstBytes = 64e6;

/** The matrix to start with: the largest of the type that most of the file's quantised bytes are of. */
export function firstTensor(/** @type {TensorRow[]} */ tensors) {
  const usable = tensors.filter((tensor) => !tensor.obstacle);
  const quantised = usable.filter((tensor) => !['F32', 'F16', 'BF16'].includes(tensor.type));
  const candidates = quantised.length ? quantised : usable;
  /** @type {Record<string, number>} */
  const bytesOf = {};
  for (const { type, byteLength } of candidates) bytesOf[type] = (bytesOf[type] ?? 0) + byteLength;
  return candidates
    .filter((tensor) => tensor.byteLength <= maxFirstBytes)
    .sort((a, b) => bytesOf[b.type] - bytesOf[a.type] || b.byteLength - a.byteLength)
    .at(0);
}

/** On a narrow screen the table is laid out as a grid, which takes its meaning away in some browsers: the roles keep it. */
const tableRoles = { table: 'table', rowgroup: 'thead, tbody', row: 'thead tr', columnheader: 'thead th' };

export class TensorsView {
  #body = byId('tensors');
  #filter = byId('filter');
  /** @type {{ tensor: TensorRow, row: HTMLElement, text: string }[]} */
  #rows = [];

  /** @param {(name: string) => void} onMultiply */
  constructor(onMultiply) {
    for (const [role, parts] of Object.entries(tableRoles)) {
      for (const part of byId('table-frame').querySelectorAll(parts)) part.setAttribute('role', role);
    }
    // Not every browser lets the keyboard scroll what holds nothing to focus, such as a file without a usable tensor.
    byId('table-frame').tabIndex = 0;
    this.#filter.addEventListener('input', () => this.#applyFilter());
    // The button is the way in for keyboards and screen readers; the rest of the row is a larger target for pointers.
    this.#body.addEventListener('click', (/** @type {MouseEvent} */ event) => {
      const row = /** @type {HTMLElement} */ (event.target).closest('tr');
      const hasSelection = String(document.getSelection() ?? '') !== '';
      const isButton = /** @type {HTMLElement} */ (event.target).closest('button');
      if (row && 'usable' in row.dataset && (isButton || !hasSelection)) onMultiply(row.dataset.name ?? '');
    });
  }

  show(/** @type {TensorRow[]} */ tensors) {
    this.#filter.value = '';
    this.#rows = tensors.map((tensor) => ({
      tensor,
      row: this.#row(tensor),
      text: `${tensor.name} ${tensor.type}`.toLowerCase(),
    }));
    this.#body.replaceChildren(...this.#rows.map(({ row }) => row));
    byId('table-frame').scrollTop = 0;
    this.#applyFilter();
  }

  markCurrent(/** @type {string} */ name) {
    for (const { tensor, row } of this.#rows) {
      if (tensor.name === name) row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
    }
  }

  #row(/** @type {TensorRow} */ tensor) {
    const action = tensor.obstacle
      ? el('span', { class: 'obstacle' }, tensor.obstacle)
      : el(
          'button',
          { type: 'button', class: 'button quiet small', 'aria-label': `Multiply by ${tensor.name}` },
          'Multiply',
        );
    return el(
      'tr',
      { role: 'row', 'data-name': tensor.name, 'data-usable': tensor.obstacle ? undefined : true },
      el('th', { role: 'rowheader', scope: 'row', class: 'name' }, ...breakable(tensor.name)),
      el('td', { role: 'cell', class: 'type' }, tensor.type),
      el('td', { role: 'cell', class: 'number shape' }, dimensions(tensor.shape)),
      el('td', { role: 'cell', class: 'number size' }, bytes(tensor.byteLength)),
      el('td', { role: 'cell', class: 'number action' }, action),
    );
  }

  #applyFilter() {
    const wanted = this.#filter.value.trim().toLowerCase();
    let shown = 0;
    for (const { row, text } of this.#rows) {
      row.hidden = !text.includes(wanted);
      if (!row.hidden) shown++;
    }
    const total = this.#rows.length;
    const usable = this.#rows.filter(({ tensor }) => !tensor.obstacle).length;
    byId('no-tensors').hidden = shown > 0;
    byId('no-tensors').textContent = total ? 'No tensor matches.' : 'No tensors yet.';
    byId('table-note').textContent = total
      ? `${shown === total ? '' : `${count(shown)} of `}${count(total)} tensors, ${count(usable)} can be multiplied.`
      : '';
  }
}
