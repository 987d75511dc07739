/* Compares the tensors of a plan with the header of a file, before the first byte of a weight is
 * read, and arranges loaded tensors by role. */

import { GgufError, ShapeError, show } from '../errors.js';
import { ModelError } from './errors.js';

/** @typedef {import('../gguf/index.js').GgufFile} GgufFile */
/** @typedef {import('./plan.js').Plan} Plan */
/** @typedef {import('./plan.js').PlannedTensor} PlannedTensor */
/** @typedef {import('./plan.js').SharedRole} SharedRole */

/** Most names shown in a message. */
const SHOWN = 3;

/** @param {readonly string[]} names */
const shownNames = (names) =>
  `${names.slice(0, SHOWN).map(show).join(', ')}${names.length > SHOWN ? ', ...' : ''}`;

/**
 * The tensors to load, in the order of the file. Those without use are checked, and left out.
 * @param {GgufFile} gguf
 * @param {Plan} plan
 * @returns {PlannedTensor[]}
 * @throws {GgufError} a tensor is missing
 * @throws {ShapeError} a tensor has another shape than the plan says
 * @throws {ModelError} the file has a tensor that the plan does not know; ignoring it would change
 *   the results
 */
export function checkTensors(gguf, { architecture, tensors }) {
  const missing = tensors.filter(({ name, optional }) => !optional && !gguf.tensors.has(name));
  if (missing.length > 0) {
    const names = missing.map(({ name }) => name);
    throw new GgufError(
      `${missing.length} of the tensors of a ${architecture} model are missing: ${shownNames(names)}`,
      { tensor: names[0] },
    );
  }
  const present = tensors.filter(({ name }) => gguf.tensors.has(name));
  for (const { name, nRows, nCols } of present) {
    const tensor = gguf.tensor(name);
    if (tensor.nRows !== nRows || tensor.nCols !== nCols) {
      const at = tensor.nRows === nRows ? 'nCols' : 'nRows';
      throw new ShapeError(
        `tensor ${show(name)} is ${tensor.nRows}x${tensor.nCols}, expected ${nRows}x${nCols}`,
        { got: tensor[at], expected: at === 'nRows' ? nRows : nCols },
      );
    }
  }
  const known = new Set(present.map(({ name }) => name));
  const others = [...gguf.tensors.keys()].filter((name) => !known.has(name));
  if (others.length > 0) {
    throw new ModelError(
      `the file has ${others.length} tensors that a ${architecture} model does not use: ${shownNames(others)}`,
    );
  }
  return present
    .filter(({ use }) => use !== 'none')
    .sort((a, b) => gguf.tensor(a.name).offset - gguf.tensor(b.name).offset);
}

/**
 * Arranges loaded tensors as a tree: the role `layers.3.attention.q` becomes
 * tree.layers[3].attention.q. Roles without a tensor get the tensor that the plan shares with them,
 * if that one is loaded.
 * @template T
 * @param {Plan} plan
 * @param {ReadonlyMap<string, T>} byRole
 * @param {(of: T, rows: { start: number, nRows: number }) => T} slice  makes a view of some rows of
 *   a tensor
 * @returns {Record<string, any>}
 */
export function arrange({ shared }, byRole, slice) {
  const all = new Map(byRole);
  /** @param {string} role @returns {T | undefined} */
  const find = (role) => {
    const own = all.get(role);
    if (own !== undefined || !Object.hasOwn(shared, role)) return own;
    const { of, start = 0, nRows } = shared[role];
    const whole = find(of);
    const part = whole === undefined || nRows === undefined ? whole : slice(whole, { start, nRows });
    if (part !== undefined) all.set(role, part);
    return part;
  };
  for (const role of Object.keys(shared)) find(role);
  /** @type {Record<string, any>} */
  const tree = {};
  for (const [role, value] of all) {
    const path = role.split('.');
    const last = /** @type {string} */ (path.pop());
    /** @type {any} */
    let at = tree;
    for (const [i, part] of path.entries()) {
      at[part] ??= /^\d+$/.test(path[i + 1] ?? '') ? [] : {};
      at = at[part];
    }
    at[last] = value;
  }
  return tree;
}
