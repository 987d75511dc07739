/* Layers that see only a window of positions. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').AttentionLayer} AttentionLayer */

const WINDOW = 'attention.sliding_window';
const PATTERN = 'attention.sliding_window_pattern';

/**
 * Sets the windows of layers, and returns which layers have one. In every period of layers, the
 * last one (or the first) sees all positions. A file may give another period, or a list with true for every layer
 * that has a window.
 * @param {MetadataReader} read
 * @param {AttentionLayer[]} layers
 * @param {{ period: number, window?: number, fullFirst?: boolean }} defaults  period, window: for a
 *   file without these keys; without a window no layer has one. fullFirst: the first layer of a
 *   period sees all positions instead of the last one
 * @returns {boolean[]}
 */
export function slide(read, layers, { period, window = 0, fullFirst = false }) {
  const size = (read.value(WINDOW) ?? window) === 0 ? 0 : read.count(WINDOW, window);
  const pattern = read.value(PATTERN) ?? period;
  if (Array.isArray(pattern) && pattern.length !== layers.length) {
    throw new ModelError(
      `${show(read.key(PATTERN))} has ${pattern.length} values for ${layers.length} layers`,
    );
  }
  const every = Array.isArray(pattern) || pattern === 0 ? 0 : read.count(PATTERN, period);
  const full = fullFirst ? 0 : every - 1;
  return layers.map(({ attention }, i) => {
    const has = Array.isArray(pattern) ? pattern[i] === true : every === 0 || i % every !== full;
    if (has) attention.window = size;
    return has && size > 0;
  });
}
