/**
 * Writes GGUF files, valid and invalid, for tests of the parser and the sources. Layout: GGUF
 * specification, version 3.
 */

/** Type numbers of metadata values. */
export const KV = /** @type {const} */ ({
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
});

/**
 * @typedef {{ of: keyof typeof KV, items: any[] | Uint8Array }} ArrayValue  as bytes: items of 8
 *   bytes each
 */
/**
 * @typedef {[key: string, type: keyof typeof KV, value: any]} Pair  an array's value is an
 *   ArrayValue
 */

/**
 * @typedef {object} TensorSpec
 * @property {string} name
 * @property {number} typeId
 * @property {(number | bigint)[]} shape
 * @property {Uint8Array} data
 * @property {number | bigint} [offset]  used instead of the right one
 */

class Writer {
  /** @type {Buffer[]} */
  #chunks = [];
  length = 0;

  /** @param {Uint8Array} data */
  raw(data) {
    this.#chunks.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    this.length += data.length;
  }

  /** @param {number} bytes @param {(view: DataView) => void} write */
  number(bytes, write) {
    const view = new DataView(new ArrayBuffer(bytes));
    write(view);
    this.raw(new Uint8Array(view.buffer));
  }

  /** @param {number} value */
  u32(value) {
    this.number(4, (view) => view.setUint32(0, value, true));
  }

  /** @param {number | bigint} value */
  u64(value) {
    this.number(8, (view) => view.setBigUint64(0, BigInt(value), true));
  }

  /** @param {string} text */
  string(text) {
    const data = Buffer.from(text);
    this.u64(data.length);
    this.raw(data);
  }

  /** @param {keyof typeof KV} type @param {any} value */
  value(type, value) {
    if (type === 'string') this.string(value);
    else if (type === 'array') {
      this.u32(KV[/** @type {keyof typeof KV} */ (value.of)]);
      const packed = value.items instanceof Uint8Array;
      this.u64(packed ? value.items.length / 8 : value.items.length);
      if (packed) this.raw(value.items);
      else for (const item of value.items) this.value(value.of, item);
    } else if (type === 'u64') this.u64(value);
    else if (type === 'i64') this.number(8, (view) => view.setBigInt64(0, BigInt(value), true));
    else if (type === 'f64') this.number(8, (view) => view.setFloat64(0, value, true));
    else if (type === 'f32') this.number(4, (view) => view.setFloat32(0, value, true));
    else if (type === 'u32' || type === 'i32') this.u32(value >>> 0);
    else if (type === 'u16' || type === 'i16') this.number(2, (view) => view.setUint16(0, value, true));
    else this.number(1, (view) => view.setUint8(0, Number(value)));
  }

  /** @param {number} alignment */
  pad(alignment) {
    this.raw(new Uint8Array((alignment - (this.length % alignment)) % alignment));
  }

  bytes() {
    return new Uint8Array(Buffer.concat(this.#chunks));
  }
}

/**
 * @param {{ pairs?: Pair[], tensors?: TensorSpec[], alignment?: number, version?: number }} spec
 * @returns {{ bytes: Uint8Array<ArrayBuffer>, headerEnd: number, dataStart: number }}
 */
export function ggufBytes({ pairs = [], tensors = [], alignment = 32, version = 3 }) {
  const file = new Writer();
  file.raw(Buffer.from('GGUF'));
  file.u32(version);
  file.u64(tensors.length);
  file.u64(pairs.length);
  for (const [key, type, value] of pairs) {
    file.string(key);
    file.u32(KV[type]);
    file.value(type, value);
  }
  let next = 0;
  for (const { name, typeId, shape, data, offset = next } of tensors) {
    file.string(name);
    file.u32(shape.length);
    for (const dim of shape) file.u64(dim);
    file.u32(typeId);
    file.u64(offset);
    next += Math.ceil(data.length / alignment) * alignment;
  }
  const headerEnd = file.length;
  file.pad(alignment);
  const dataStart = file.length;
  tensors.forEach(({ data }, i) => {
    file.raw(data);
    if (i < tensors.length - 1) file.pad(alignment);
  });
  return { bytes: file.bytes(), headerEnd, dataStart };
}

/**
 * Bytes that depend on their position, so that a wrong offset shows.
 * @param {number} length @param {number} [seed]
 */
export function countedBytes(length, seed = 1) {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = i * 31 + seed * 17 + (i >> 8);
  return bytes;
}

/**
 * A file with a Q4_K tensor, an F32 tensor and one of a type that is not served. It ends with the
 * last byte of the data.
 */
export function sampleGguf() {
  return ggufBytes({
    pairs: [
      ['general.architecture', 'string', 'llama'],
      ['llama.context_length', 'u32', 256],
      ['a.float', 'f32', 0.5],
      ['a.bool', 'bool', true],
      ['a.negative', 'i64', -5],
      ['a.large', 'u64', 2n ** 63n],
      ['tokenizer.ggml.tokens', 'array', { of: 'string', items: ['a', 'bc', '', 'déf'] }],
      ['a.numbers', 'array', { of: 'i32', items: [1, -2, 3] }],
      [
        'a.nested',
        'array',
        {
          of: 'array',
          items: [
            { of: 'u8', items: [1, 2] },
            { of: 'u8', items: [] },
          ],
        },
      ],
    ],
    tensors: [
      { name: 'a.weight', typeId: 12, shape: [512, 3], data: countedBytes(864) },
      {
        name: 'norm.weight',
        typeId: 0,
        shape: [5],
        data: new Uint8Array(new Float32Array([1, 2, 3, 4, 5]).buffer),
      },
      { name: 'other.weight', typeId: 24, shape: [7, 3, 2], data: countedBytes(42, 2) },
    ],
  });
}

/**
 * A file of F32 tensors t0, t1, ..., each with as many bytes as given. No two have the same bytes.
 * @param {{ nTensors: number, bytes: number }} size  bytes: a multiple of 1024
 */
export function wideGguf({ nTensors, bytes }) {
  const tensors = Array.from({ length: nTensors }, (_, i) => {
    return { name: `t${i}`, typeId: 0, shape: [256, bytes / 1024], data: countedBytes(bytes, i + 1) };
  });
  return ggufBytes({ tensors });
}
