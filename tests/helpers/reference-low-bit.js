/**
 * The reference decoders of the types with codebooks (IQ1, IQ2, IQ3) and of Q1_0, Q2_0 and NVFP4;
 * reference.js says how decoders are written.
 */
import { IQ1_S_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID } from './codebooks.js';
import { f16ToNumber } from './floats.js';

/** @import { Decoder, FieldKind, Rounding } from './reference.js' */
/** @typedef {[string, number, number, [string, FieldKind, number][], Decoder]} Definition */

/** Twice the e2m1 values (OCP MX specification). Block scales are halved in return. */
export const E2M1_VALUES = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** @param {DataView} v @param {number} at */
const f16 = (v, at) => f16ToNumber(v.getUint16(at, true));

/**
 * The f16 number whose nibbles are the upper ones of four 16-bit integers (IQ1_M).
 * @param {DataView} v @param {number} at
 */
export function f16InNibbles(v, at) {
  let bits = 0;
  for (let i = 0; i < 4; i++) bits |= (v.getUint8(at + 2 * i + 1) >> 4) << (4 * i);
  return f16ToNumber(bits);
}

/** @type {Definition[]} */
export const lowBitTypes = [];

/** @param {Definition} definition */
const add = (...definition) => {
  lowBitTypes.push(definition);
};

/* Q1_0: value i is d where bit i of qs is set, and -d where it is not. */
add(
  'Q1_0',
  41,
  128,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 16],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let i = 0; i < 128; i++) {
      const bit = (v.getUint8(at + 2 + (i >> 3)) >> (i & 7)) & 1;
      out(i, round(d * (2 * bit - 1)), Math.abs(d) * (2 * bit + 1));
    }
  },
);

/* Q2_0: value i is bits 2 (i % 4), 2 (i % 4) + 1 of qs[i / 4], less 1. */
add(
  'Q2_0',
  42,
  64,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 16],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let i = 0; i < 64; i++) {
      const code = (v.getUint8(at + 2 + (i >> 2)) >> (2 * (i & 3))) & 3;
      out(i, round(d * (code - 1)), Math.abs(d) * (code + 1));
    }
  },
);

/* NVFP4: a ue4m3 scale, halved, for each 16 values; of 8 bytes the low nibbles come first. 0x7f
 * counts as 0. */
add(
  'NVFP4',
  40,
  64,
  [
    ['d', 'scales', 4],
    ['qs', 'codes', 32],
  ],
  (v, at, round, out) => {
    for (let i = 0; i < 64; i++) {
      const byte = v.getUint8(at + (i >> 4));
      const exponent = (byte >> 3) & 15;
      const mantissa = byte & 7;
      const scale =
        byte === 0x7f ? 0 : exponent === 0 ? mantissa * 2 ** -10 : (1 + mantissa / 8) * 2 ** (exponent - 8);
      const nibble = (v.getUint8(at + 4 + 8 * (i >> 4) + (i & 7)) >> (i & 8 ? 4 : 0)) & 15;
      const code = E2M1_VALUES[nibble];
      out(i, round(scale * code), scale * (code + 12 + 12));
    }
  },
);

/** Entries by codebook, each read once. @type {Map<string, number[][]>} */
const entriesOf = new Map();

/**
 * @param {string} grid @param {number} entry @param {(four: string) => number[]} read  an entry from its
 *   four characters
 */
function entryOf(grid, entry, read) {
  const entries = entriesOf.get(grid) ?? [];
  entriesOf.set(grid, entries);
  entries[entry] ??= read(grid.slice(4 * entry, 4 * entry + 4));
  return entries[entry];
}

/**
 * 8 magnitudes of an entry of an IQ2 codebook, or 8 values of one of IQ1.
 * @param {string} grid @param {number} entry @param {number[]} values  by digit, the same for every
 *   entry of a codebook
 */
const eightOf = (grid, entry, values) =>
  entryOf(grid, entry, (four) => {
    const digits = Number.parseInt(four, 16);
    return Array.from({ length: 8 }, (_, j) => values[(digits >> (14 - 2 * j)) & 3]);
  });

/** @param {string} grid @param {number} entry @param {number[]} values  by digit, as in eightOf() */
const fourOf = (grid, entry, values) =>
  entryOf(grid, entry, (four) => [...four].map((digit) => values[Number(digit)]));

const IQ2_VALUES = [8, 25, 43];
const IQ3_XXS_VALUES = [4, 12, 20, 28, 36, 44, 52, 62];
const IQ3_S_VALUES = [1, 3, 5, 7, 9, 11, 13, 15];
const TERNARY = [-1, 0, 1];

/** The eight signs that seven bits stand for: the number of minus signs is even. @param {number} seven */
function evenSigns(seven) {
  let minus = 0;
  for (let j = 0; j < 7; j++) minus += (seven >> j) & 1;
  return seven | ((minus & 1) << 7);
}

/**
 * Hands out values of one scale. Kernels may keep codes unsigned, by adding the largest one.
 * @param {Parameters<Decoder>[3]} out @param {Rounding} round @param {number} first
 * @param {number} scale @param {number[]} magnitudes @param {number} signs @param {number} largest
 */
function outSigned(out, round, first, scale, magnitudes, signs, largest) {
  magnitudes.forEach((magnitude, j) => {
    const code = (signs >> j) & 1 ? -magnitude : magnitude;
    out(first + j, round(scale * code), Math.abs(scale) * (code + 2 * largest));
  });
}

/* IQ2_XXS: per 32 values 4 bytes of entries, then 4 x 7 signs and a scale of 4 bits. */
add(
  'IQ2_XXS',
  16,
  256,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 64],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let k = 0; k < 32; k++) {
      const part = at + 2 + 8 * (k >> 2);
      const rest = v.getUint32(part + 4, true);
      const scale = round(round(d * (0.5 + (rest >>> 28))) * 0.25);
      const eight = eightOf(IQ2_XXS_GRID, v.getUint8(part + (k & 3)), IQ2_VALUES);
      outSigned(out, round, 8 * k, scale, eight, evenSigns((rest >>> (7 * (k & 3))) & 127), 43);
    }
  },
);

/* IQ2_XS: per 8 values 9 bits of an entry and 7 signs; a scale of 4 bits per 16 values. */
add(
  'IQ2_XS',
  17,
  256,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 64],
    ['scales', 'scales', 8],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let k = 0; k < 32; k++) {
      const packed = v.getUint16(at + 2 + 2 * k, true);
      const nibble = (v.getUint8(at + 66 + (k >> 2)) >> (k & 2 ? 4 : 0)) & 15;
      const scale = round(round(d * (0.5 + nibble)) * 0.25);
      const eight = eightOf(IQ2_XS_GRID, packed & 511, IQ2_VALUES);
      outSigned(out, round, 8 * k, scale, eight, evenSigns(packed >> 9), 43);
    }
  },
);

/* IQ2_S: per 8 values the lower 8 bits of an entry, 8 signs, and 2 more bits of the entry in qh. */
add(
  'IQ2_S',
  22,
  256,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 32],
    ['signs', 'codes', 32],
    ['qh', 'codes', 8],
    ['scales', 'scales', 8],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let k = 0; k < 32; k++) {
      const high = (v.getUint8(at + 66 + (k >> 2)) >> (2 * (k & 3))) & 3;
      const nibble = (v.getUint8(at + 74 + (k >> 2)) >> (k & 2 ? 4 : 0)) & 15;
      const scale = round(round(d * (0.5 + nibble)) * 0.25);
      const eight = eightOf(IQ2_S_GRID, v.getUint8(at + 2 + k) + 256 * high, IQ2_VALUES);
      outSigned(out, round, 8 * k, scale, eight, v.getUint8(at + 34 + k), 43);
    }
  },
);

/* IQ3_XXS: 64 entries of 4 values; signs and scales as in IQ2_XXS. */
add(
  'IQ3_XXS',
  18,
  256,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 64],
    ['scales_signs', 'codes', 32],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let k = 0; k < 64; k++) {
      const rest = v.getUint32(at + 66 + 4 * (k >> 3), true);
      const scale = round(round(d * (0.5 + (rest >>> 28))) * 0.5);
      const signs = evenSigns((rest >>> (7 * ((k >> 1) & 3))) & 127);
      const four = fourOf(IQ3_XXS_GRID, v.getUint8(at + 2 + k), IQ3_XXS_VALUES);
      outSigned(out, round, 4 * k, scale, four, signs >> (4 * (k & 1)), 62);
    }
  },
);

/* IQ3_S: 64 entries of 4 values, whose ninth bits are in qh; signs; scales of 4 bits per 32. */
add(
  'IQ3_S',
  21,
  256,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 64],
    ['qh', 'codes', 8],
    ['signs', 'codes', 32],
    ['scales', 'scales', 4],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let k = 0; k < 64; k++) {
      const nibble = (v.getUint8(at + 106 + (k >> 4)) >> (k & 8 ? 4 : 0)) & 15;
      const scale = round(d * (1 + 2 * nibble));
      const ninth = (v.getUint8(at + 66 + (k >> 3)) >> (k & 7)) & 1;
      const signs = v.getUint8(at + 74 + (k >> 1)) >> (4 * (k & 1));
      const four = fourOf(IQ3_S_GRID, v.getUint8(at + 2 + k) + 256 * ninth, IQ3_S_VALUES);
      outSigned(out, round, 4 * k, scale, four, signs, 15);
    }
  },
);

/**
 * 8 values scale * (ternary + delta) of IQ1. Kernels may take scale / 8 and codes -9..9, plus 9.
 * @param {Parameters<Decoder>[3]} out @param {Rounding} round @param {number} first
 * @param {number} scale @param {number} entry @param {boolean} minus  the sign of delta
 */
function outTernary(out, round, first, scale, entry, minus) {
  eightOf(IQ1_S_GRID, entry, TERNARY).forEach((ternary, j) => {
    const value = ternary + (minus ? -0.125 : 0.125);
    out(first + j, round(scale * value), Math.abs(scale) * (value + 2.25));
  });
}

/* IQ1_S: per 32 values 16 bits: 4 x 3 bits of entries, a scale of 3 bits, the sign of delta. */
add(
  'IQ1_S',
  19,
  256,
  [
    ['d', 'f16', 2],
    ['qs', 'codes', 32],
    ['qh', 'codes', 16],
  ],
  (v, at, round, out) => {
    const d = f16(v, at);
    for (let k = 0; k < 32; k++) {
      const qh = v.getUint16(at + 34 + 2 * (k >> 2), true);
      const scale = round(d * (2 * ((qh >> 12) & 7) + 1));
      const entry = v.getUint8(at + 2 + k) + 256 * ((qh >> (3 * (k & 3))) & 7);
      outTernary(out, round, 8 * k, scale, entry, qh >= 0x8000);
    }
  },
);

/* IQ1_M: per 8 values a nibble: 3 bits of the entry and the sign of delta; scales of 3 bits per 16
 * values; the upper nibbles of the four 16-bit scales are d. */
add(
  'IQ1_M',
  29,
  256,
  [
    ['qs', 'codes', 32],
    ['qh', 'codes', 16],
    ['scales', 'f16 in nibbles', 8],
  ],
  (v, at, round, out) => {
    const d = f16InNibbles(v, at + 48);
    for (let k = 0; k < 32; k++) {
      const nibble = v.getUint8(at + 32 + (k >> 1)) >> (4 * (k & 1));
      const scales = v.getUint16(at + 48 + 2 * (k >> 3), true);
      const scale = round(d * (2 * ((scales >> (3 * ((k >> 1) & 3))) & 7) + 1));
      const entry = v.getUint8(at + k) + 256 * (nibble & 7);
      outTernary(out, round, 8 * k, scale, entry, (nibble & 8) !== 0);
    }
  },
);
