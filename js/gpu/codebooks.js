/* The codebooks of weight types, as GPU memory has them: 16 bits an entry, the lowest ones of its
 * first value. The wasm module has them, so it is asked: it decodes a block for each entry. */

import { servedType } from '../types.js';
import { createKernels } from '../wasm/create.js';

/**
 * How blocks name entries: how many there are, values of an entry, and the byte of a block with
 * bits 8 and above of its first entry. Bits 0 to 7 are byte 2, behind the scale.
 * @type {Record<string, { entries: number, values: number, high?: number }>}
 */
const CODEBOOKS = {
  IQ2_XXS: { entries: 256, values: 8 },
  IQ2_XS: { entries: 512, values: 8, high: 3 },
  IQ2_S: { entries: 1024, values: 8, high: 66 },
  IQ3_XXS: { entries: 256, values: 4 },
  IQ3_S: { entries: 512, values: 4, high: 66 },
  IQ1_S: { entries: 2048, values: 8, high: 34 },
};

/** By type. @type {Map<string, Promise<Uint16Array<ArrayBuffer>>>} */
const made = new Map();

/**
 * The codebook of a type.
 * @param {string} type
 * @returns {Promise<Uint16Array<ArrayBuffer>>}
 */
export function codebookOf(type) {
  let codebook = made.get(type);
  if (!codebook) {
    codebook = make(type);
    codebook.catch(() => made.delete(type));
    made.set(type, codebook);
  }
  return codebook;
}

/** @param {string} type */
async function make(type) {
  const { entries, values, high } = CODEBOOKS[type];
  const { blockBytes, blockValues } = servedType(type);
  const data = new Uint8Array(entries * blockBytes);
  for (let entry = 0; entry < entries; entry++) {
    const at = entry * blockBytes;
    data.set([0, 0x3c, entry & 255], at);
    if (high) data[at + high] = entry >> 8;
  }
  const fm = await createKernels({ threads: 1 });
  try {
    const decoded = fm.dequantize(fm.weight({ type, nRows: entries, nCols: blockValues, data }));
    /** The value j of an entry. */
    const value = (/** @type {number} */ entry, /** @type {number} */ j) => decoded[entry * blockValues + j];
    const places = Array.from({ length: values }, (_, j) => j);
    const all = Array.from({ length: entries }, (_, entry) => places.map((j) => value(entry, j)));
    // All signs are plus and all scales the same: digits count the values from the smallest one.
    const ascending = [...new Set(all.flat())].sort((a, b) => a - b);
    const bits = 16 / values;
    return Uint16Array.from(all, (entry) =>
      entry.reduce((packed, one, j) => packed | (ascending.indexOf(one) << (bits * j)), 0),
    );
  } finally {
    fm.dispose();
  }
}
