/* Layers that see only a window of positions. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').AttentionLayer} AttentionLayer */

/**
 * Windows of a file that has no keys for them.
 * @typedef {object} WindowDefaults
 * @property {number} [period]  Layers of a period; without it a file must have one.
 * @property {number} [window]  Size of the windows; without it no layer has one.
 * @property {boolean} [fullFirst]  Whether the first layer of a period sees all positions instead of
 *   the last one.
 */

const WINDOW = 'attention.sliding_window';
const PATTERN = 'attention.sliding_window_pattern';

/**
 * The window of every layer; 0 means none. In every period of layers, the last one (or the first)
 * sees all positions. A file may give another period, or a list with true for every layer that has a
 * window.
 * @param {MetadataReader} read
 * @param {number} nLayers
 * @param {WindowDefaults} defaults
 * @returns {number[]}
 */
export function readWindows(read, nLayers, { period, window = 0, fullFirst = false }) {
  const size = (read.value(WINDOW) ?? window) === 0 ? 0 : read.count(WINDOW, window);
  const pattern = read.value(PATTERN) ?? period;
  if (Array.isArray(pattern) && pattern.length !== nLayers) {
    throw new ModelError(`${show(read.key(PATTERN))} has ${pattern.length} values for ${nLayers} layers`);
  }
  if (Array.isArray(pattern) && pattern.some((one) => typeof one !== 'boolean'))
    throw new ModelError(`${show(read.key(PATTERN))} must have true or false for every layer`);
  const every = Array.isArray(pattern) || pattern === 0 ? 0 : read.count(PATTERN, period);
  const full = fullFirst ? 0 : every - 1;
  return Array.from({ length: nLayers }, (_, i) => {
    const has = Array.isArray(pattern) ? pattern[i] === true : every === 0 || i % every !== full;
    return has ? size : 0;
  });
}

/**
 * Sets the windows of layers, and returns which layers have one.
 * @param {MetadataReader} read
 * @param {AttentionLayer[]} layers
 * @param {WindowDefaults} defaults
 * @returns {boolean[]}
 */
export function slide(read, layers, defaults) {
  return readWindows(read, layers.length, defaults).map((window, i) => {
    layers[i].attention.window = window;
    return window > 0;
  });
}
