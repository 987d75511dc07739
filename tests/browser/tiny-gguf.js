/** Writes small GGUF files for the browser tests. Layout: GGUF specification, version 3. */
import { makeWeights } from '../helpers/blocks.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';

const ALIGNMENT = 32;
const STRING = 8;
const padded = (/** @type {number} */ n) => Math.ceil(n / ALIGNMENT) * ALIGNMENT;

class Writer {
  /** @type {Buffer[]} */
  chunks = [];
  length = 0;

  /** @param {Uint8Array} data */
  raw(data) {
    this.chunks.push(Buffer.from(data));
    this.length += data.length;
  }

  /** @param {number} value */
  u32(value) {
    const buffer = Buffer.alloc(4);
    buffer.writeUInt32LE(value);
    this.raw(buffer);
  }

  /** @param {number} value */
  u64(value) {
    const buffer = Buffer.alloc(8);
    buffer.writeBigUInt64LE(BigInt(value));
    this.raw(buffer);
  }

  /** @param {string} text */
  string(text) {
    const data = Buffer.from(text);
    this.u64(data.length);
    this.raw(data);
  }

  pad() {
    this.raw(Buffer.alloc(padded(this.length) - this.length));
  }
}

/**
 * @param {{ name: string, typeId: number, shape: number[], data: Uint8Array }[]} tensors  shape[0] is the row length
 * @param {Record<string, string>} [metadata]
 * @returns {Buffer}
 */
export function ggufFile(
  tensors,
  metadata = { 'general.architecture': 'llama', 'general.name': 'written by a test' },
) {
  const file = new Writer();
  file.raw(Buffer.from('GGUF'));
  file.u32(3);
  file.u64(tensors.length);
  file.u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    file.string(key);
    file.u32(STRING);
    file.string(value);
  }
  let offset = 0;
  for (const { name, typeId, shape, data } of tensors) {
    file.string(name);
    file.u32(shape.length);
    for (const n of shape) file.u64(n);
    file.u32(typeId);
    file.u64(offset);
    offset += padded(data.length);
  }
  file.pad();
  for (const { data } of tensors) {
    file.raw(data);
    file.pad();
  }
  return Buffer.concat(file.chunks);
}

/** @param {string} name @param {string} typeName @param {number} nRows @param {number} nCols */
export function randomTensor(name, typeName, nRows, nCols) {
  const type = referenceByName.get(typeName);
  if (!type) throw new Error(`no reference for ${typeName}`);
  const data = makeWeights(type, 'natural', nRows, nCols, new Prng(nRows * 1000 + nCols));
  return { name, typeId: type.id, shape: [nCols, nRows], data };
}

/** A file with one tensor of each kind the page treats differently. */
export function tinyGguf() {
  const vector = Buffer.from(new Float32Array(256).fill(1).buffer);
  return ggufFile([
    randomTensor('small.weight', 'Q4_K', 5, 256),
    randomTensor('large.weight', 'Q4_K', 9, 512),
    randomTensor('half.weight', 'F16', 3, 40),
    { name: 'norm.weight', typeId: 0, shape: [256], data: vector },
    { name: 'odd.weight', typeId: 24, shape: [32, 2], data: Buffer.alloc(64) },
  ]);
}
