/* Copies of caches and states, for contexts that are saved or copied. */

import { ShapeError } from '../errors.js';
import { addressIn } from './handles.js';
import { RecurrentState } from './recurrent/state.js';

/** @typedef {import('../backend.js').Saved} Saved */
/** @typedef {import('./kv-cache.js').KvCache} KvCache */
/** @typedef {import('./layer-cache.js').LayerCache} LayerCache */
/** @typedef {import('./memory.js').Memory} Memory */

/**
 * @param {Memory} memory
 * @param {LayerCache | RecurrentState} part
 * @param {number} nTokens
 * @returns {Saved}
 */
export function save(memory, part, nTokens) {
  if (part instanceof RecurrentState)
    return { at: [part.position, part.savedAt], bytes: new Uint8Array(part.values.slice().buffer) };
  const { first } = part;
  // A pass that was aborted may have moved the first position.
  const views = rowsOf(memory, part, Math.max(0, nTokens - first));
  const bytes = new Uint8Array(views[0].length + views[1].length);
  bytes.set(views[0]);
  bytes.set(views[1], views[0].length);
  return { at: [first], bytes };
}

/**
 * @param {Memory} memory
 * @param {LayerCache | RecurrentState} part
 * @param {Saved} saved
 * @param {number} nTokens
 * @throws {ShapeError} it is no copy of such a part; the message has both numbers
 */
export function restore(memory, part, { at, bytes }, nTokens) {
  const isState = part instanceof RecurrentState;
  if (at.length !== (isState ? 2 : 1) || (!isState && at[0] < 0))
    throw new ShapeError(`a saved layer has positions ${at.join(' and ')}`);
  if (isState) {
    const [position, savedAt] = at;
    const { values } = part;
    checkSize(bytes, values.byteLength);
    values.set(new Float32Array(bytes.slice().buffer));
    part.position = position;
    part.savedAt = savedAt;
    return;
  }
  const [first] = at;
  const nRows = Math.max(0, nTokens - first);
  const { nPositions } = part.keys;
  if (!(nRows <= nPositions)) {
    throw new ShapeError(`a saved layer has ${nRows} positions, its cache has room for ${nPositions}`, {
      got: nRows,
      expected: nPositions,
    });
  }
  const [keys, values] = rowsOf(memory, part, nRows);
  checkSize(bytes, keys.length + values.length);
  keys.set(bytes.subarray(0, keys.length));
  values.set(bytes.subarray(keys.length));
  part.first = first;
}

/**
 * Views of the first rows of keys and values.
 * @param {Memory} memory
 * @param {LayerCache} cache
 * @param {number} nRows
 */
function rowsOf(memory, { keys, values }, nRows) {
  return [keys, values].map((/** @type {KvCache} */ one) => {
    const start = addressIn(one, memory);
    return memory.u8.subarray(start, start + nRows * (one.byteLength / one.nPositions));
  });
}

/** @param {Uint8Array} bytes @param {number} expected */
function checkSize({ length: got }, expected) {
  if (got === expected) return;
  throw new ShapeError(`a saved layer has ${got} bytes, expected ${expected}`, { got, expected });
}
