/** The table of a file's tensors. */
import { breakable, byId, el, frame } from '../dom.js';
import { bytes, count, dimensions } from '../format.js';
import { kernelFor } from './types-view.js';

/**
 * @typedef {{ name: string, type: string, shape: readonly number[], nRows: number, nCols: number, byteLength: number,
 *   obstacle: string }} TensorRow
 */

/** Shown at once without asking; larger ones wait for a click. */
const maxFirstBytes = 64e6;
/** Rows made in one go: a few milliseconds of layout. */
const rowsAtOnce = 8;
/** Rows are made when the end of those there are is nearer than this to what is seen of the table. */
const aheadPx = 400;

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

/**
 * Some files have thousands of tensors: a row is made when it is about to be seen, so that the page never waits for a long list to be
 * laid out. The table tells assistive technology how many there are.
 */
export class TensorsView {
  #body = byId('tensors');
  #table = /** @type {HTMLElement} */ (this.#body.closest('table'));
  #filter = byId('filter');
  #end = byId('tensors-end');
  /** @type {TensorRow[]} */
  #tensors = [];
  /** Those that match the filter. @type {TensorRow[]} */
  #matching = [];
  /** Of the first of them. @type {{ tensor: TensorRow, row: HTMLElement }[]} */
  #rows = [];
  #current = '';
  /** @type {(type: string) => string} */
  #kernelOf = () => '';
  #nearEnd = new IntersectionObserver(([entry]) => entry.isIntersecting && this.#more(), {
    root: byId('table-frame'),
    rootMargin: `${aheadPx}px`,
  });

  /** @param {(name: string) => void} onMultiply */
  constructor(onMultiply) {
    for (const [role, parts] of Object.entries(tableRoles)) {
      for (const part of byId('table-frame').querySelectorAll(parts)) part.setAttribute('role', role);
    }
    // Not every browser lets the keyboard scroll what holds nothing to focus, such as a file without a usable tensor.
    byId('table-frame').tabIndex = 0;
    this.#filter.addEventListener('input', () => this.#applyFilter());
    // The next Tab must find a row, however fast it comes: nobody is told of what the observer sees before the next frame.
    this.#body.addEventListener('focusin', (/** @type {FocusEvent} */ event) => {
      const row = /** @type {HTMLElement} */ (event.target).closest('tr');
      const isNearEnd = this.#rows.slice(-rowsAtOnce).some((made) => made.row === row);
      if (isNearEnd && this.#rows.length < this.#matching.length) this.#more();
    });
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
  show(tensors, served, activation) {
    this.#tensors = tensors;
    this.#current = '';
    this.#kernelOf = (type) => kernelFor(served, type, activation);
    this.#filter.value = '';
    this.#applyFilter();
  }

  /** The kernels of another activation mode or another module. @param {import('./types-view.js').Served} served @param {string} activation */
  async kernels(served, activation) {
    this.#kernelOf = (type) => kernelFor(served, type, activation);
    for (const [i, { tensor, row }] of this.#rows.entries()) {
      const cell = row.querySelector('.kernel');
      const kernel = this.#kernelOf(tensor.type);
      if (cell && cell.textContent !== kernel) cell.textContent = kernel;
      if ((i + 1) % (4 * rowsAtOnce) === 0) await frame();
    }
  }

  markCurrent(/** @type {string} */ name) {
    this.#current = name;
    for (const { tensor, row } of this.#rows) {
      if (tensor.name === name) row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
    }
  }

  #more() {
    const start = this.#rows.length;
    const some = this.#matching
      .slice(start, start + rowsAtOnce)
      .map((tensor, i) => ({ tensor, row: this.#row(tensor, start + i) }));
    this.#rows.push(...some);
    this.#body.append(...some.map(({ row }) => row));
    this.#nearEnd.disconnect();
    // Says anew whether the end is near.
    if (this.#rows.length < this.#matching.length) this.#nearEnd.observe(this.#end);
  }

  /** @param {TensorRow} tensor @param {number} index  of those shown */
  #row(tensor, index) {
    const action = tensor.obstacle
      ? el('span', { class: 'obstacle' }, tensor.obstacle)
      : el(
          'button',
          { type: 'button', class: 'button quiet small', 'aria-label': `Multiply by ${tensor.name}` },
          'Multiply',
        );
    return el(
      'tr',
      {
        role: 'row',
        'aria-rowindex': index + 2, // after the head
        'aria-current': tensor.name === this.#current ? 'true' : undefined,
        'data-name': tensor.name,
        'data-usable': tensor.obstacle ? undefined : true,
      },
      el('th', { role: 'rowheader', scope: 'row', class: 'name' }, ...breakable(tensor.name)),
      el('td', { role: 'cell', class: 'type' }, tensor.type),
      el('td', { role: 'cell', class: 'kernel' }, this.#kernelOf(tensor.type)),
      el('td', { role: 'cell', class: 'number shape' }, dimensions(tensor.shape)),
      el('td', { role: 'cell', class: 'number size' }, bytes(tensor.byteLength)),
      el('td', { role: 'cell', class: 'number action' }, action),
    );
  }

  #applyFilter() {
    const wanted = this.#filter.value.trim().toLowerCase();
    this.#matching = this.#tensors.filter(({ name, type }) =>
      `${name} ${type}`.toLowerCase().includes(wanted),
    );
    this.#rows = [];
    this.#body.replaceChildren();
    byId('table-frame').scrollTop = 0;
    const [shown, total] = [this.#matching.length, this.#tensors.length];
    this.#table.setAttribute('aria-rowcount', String(shown + 1));
    this.#more();
    const usable = this.#tensors.filter((tensor) => !tensor.obstacle).length;
    byId('no-tensors').hidden = shown > 0;
    byId('no-tensors').textContent = total ? 'No tensor matches.' : 'No tensors yet.';
    byId('table-note').textContent = total
      ? `${shown === total ? '' : `${count(shown)} of `}${count(total)} tensors, ${count(usable)} can be multiplied.`
      : '';
  }
}
