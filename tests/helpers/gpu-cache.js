/**
 * Caches of the tests of wasm kernels (attention.js), as a GPU holds them; see
 * js/gpu/wgsl/cache.js.
 */
import { cacheLayout } from '../../js/gpu/wgsl/cache.js';
import { f16ToNumber } from './floats.js';

/** @import { CacheShape } from '../../js/gpu/wgsl/cache.js' */

/**
 * @param {CacheShape} shape  its last positions may be more than there are rows
 * @param {Uint8Array} keys  rows as makeCache() gives them
 * @param {Uint8Array} values
 * @param {number} [rest]  every word of the padding and of positions without a row
 * @returns {Uint32Array}
 */
export function gpuCache(shape, keys, values, rest = 0) {
  const { type, nKvHeads, headSize } = shape;
  const layout = cacheLayout(shape);
  const words = new Uint32Array(layout.bytes / 4).fill(rest);
  const bytes = new Uint8Array(words.buffer);
  const nCols = nKvHeads * headSize;
  const rowBytes = { F32: 4 * nCols, F16: 2 * nCols, Q8_0: (nCols / 32) * 34 }[type];
  for (const [rows, first, firstScale] of /** @type {const} */ ([
    [keys, 0, layout.keyScales],
    [values, layout.values, layout.valueScales],
  ])) {
    for (let p = 0; p * rowBytes < rows.length; p++) {
      const row = rows.subarray(p * rowBytes, (p + 1) * rowBytes);
      const at = 4 * (first + p * layout.rowWords);
      if (type !== 'Q8_0') {
        bytes.set(row, at);
        continue;
      }
      for (let b = 0; b < nCols / 32; b++) {
        const block = row.subarray(34 * b, 34 * (b + 1));
        const scale = Float32Array.of(f16ToNumber(block[0] + 256 * block[1]));
        bytes.set(new Uint8Array(scale.buffer), 4 * (firstScale + p * layout.scaleWords + b));
        bytes.set(block.subarray(2), at + 32 * b);
      }
    }
  }
  return words;
}
