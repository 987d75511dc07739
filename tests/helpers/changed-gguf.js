/** Copies of GGUF files of the test data with other metadata and more tensors. */
import { openGguf } from '../../js/gguf/index.js';
import { ggufBytes } from './gguf-bytes.js';

/** @import { Pair, TensorSpec } from './gguf-bytes.js' */

/** @param {unknown} value @returns {Pair[1]} */
const typeOf = (value) =>
  typeof value === 'boolean'
    ? 'bool'
    : typeof value === 'string'
      ? 'string'
      : Array.isArray(value)
        ? 'array'
        : Number.isInteger(value)
          ? 'u32'
          : 'f32';

/** @param {string} key @param {any} value @returns {Pair} */
export const pairOf = (key, value) =>
  Array.isArray(value) ? [key, 'array', { of: typeOf(value[0]), items: value }] : [key, typeOf(value), value];

/** A tensor of f32 values. @param {string} name @param {number[]} shape @param {ArrayLike<number>} values */
export const floats = (name, shape, values) => ({
  ...{ name, typeId: 0, shape },
  data: new Uint8Array(Float32Array.from(values).buffer),
});

/**
 * @param {string} path
 * @param {{ metadata?: Record<string, any>, tensors?: TensorSpec[] }} changes
 * @returns {Promise<ArrayBuffer>}
 */
export async function changedGguf(path, { metadata = {}, tensors = [] }) {
  const gguf = await openGguf(path);
  try {
    /** @type {TensorSpec[]} */
    const all = [];
    for (const { name, typeId, shape } of gguf.tensors.values())
      all.push({ name, typeId, shape: [...shape], data: await gguf.read(name) });
    const pairs = Object.entries({ ...gguf.metadata, ...metadata })
      // The parser adds values about the file itself.
      .filter(([key]) => key.includes('.'))
      .map(([key, value]) => pairOf(key, value));
    return ggufBytes({ pairs, tensors: [...all, ...tensors] }).bytes.buffer;
  } finally {
    gguf.close();
  }
}
