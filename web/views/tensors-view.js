/** The table of a file's tensors. */
import { breakable, byId, el } from '../dom.js';
import { bytes, count, dimensions } from '../format.js';
import { kernelFor } from './types-view.js';

/**
 * @typedef {{ name: string, type: string, shape: number[], nRows: number, nCols: number, byteLength: number,
 *   obstacle: string }} TensorRow
 */

/** Shown at once without asking; larger ones wait for a click. */
const maxFirstBytes = 64e6;
/** Rows made in one go. */
const rowsAtOnce = 20;

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

  /**
   * @param {TensorRow[]} tensors
   * @param {import('./types-view.js').Served} served
   * @param {string} activation
   */
  async show(tensors, served, activation) {
    this.#filter.value = '';
    /** @type {{ tensor: TensorRow, row: HTMLElement, text: string }[]} */
    const rows = [];
    this.#rows = rows;
    this.#body.replaceChildren();
    byId('table-frame').scrollTop = 0;
    // Some files have thousands: the page goes on working while they are laid out.
    for (let at = 0; at < tensors.length && this.#rows === rows; at += rowsAtOnce) {
      const some = tensors.slice(at, at + rowsAtOnce).map((tensor) => ({
        tensor,
        row: this.#row(tensor, kernelFor(served, tensor.type, activation)),
        text: `${tensor.name} ${tensor.type}`.toLowerCase(),
      }));
      rows.push(...some);
      this.#body.append(...some.map(({ row }) => row));
      if (rows.length < tensors.length) await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    this.#applyFilter();
  }

  /** The kernels of another activation mode or another module. @param {import('./types-view.js').Served} served @param {string} activation */
  kernels(served, activation) {
    for (const { tensor, row } of this.#rows) {
      const cell = row.querySelector('.kernel');
      if (cell) cell.textContent = kernelFor(served, tensor.type, activation);
    }
  }

  markCurrent(/** @type {string} */ name) {
    for (const { tensor, row } of this.#rows) {
      if (tensor.name === name) row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
    }
  }

  /** @param {TensorRow} tensor @param {string} kernel */
  #row(tensor, kernel) {
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
      el('td', { role: 'cell', class: 'kernel' }, kernel),
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
