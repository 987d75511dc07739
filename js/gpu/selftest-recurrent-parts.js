/* Kinds of recurrent blocks in the self-test: smaller settings, their vectors, and how far results of
 * two backends may be apart.
 *
 * Errors are followed from token to token, beside the values that the CPU has: an input comes with the
 * bound of its product (selftest-bounds.js). A product of two values errs by |a| e_b + |b| e_a + e_a e_b,
 * each backend rounds by u = 2^-24 of a result, and a sum of n terms by n u of their magnitudes. */

import { normOf, u } from './selftest-bounds.js';
import { makeVector } from './selftest-data.js';

/** @typedef {import('../llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('./selftest-data.js').Generator} Generator */

/** Values, and how far those of two backends may be apart. @typedef {{ v: Float64Array, e: Float64Array }} Spread */

/** @typedef {import('./selftest-model.js').Values} Values */

/**
 * Bounds of a block. Its tokens are given in their order; those at position 0 begin anew, and others
 * may go back to the last copy.
 * @typedef {(inputs: Record<string, Spread>, position: number, isCopied: boolean) => Spread} ErrorsOf
 *   inputs: by role; isCopied: the state is copied before
 */

/**
 * @typedef {object} RecurrentPart
 * @property {(settings: any, model: { nEmbd: number, block: number }) => object} fewer  Settings with
 *   fewer channels or heads; block: the largest of the weight types.
 * @property {(settings: any, random: Generator) => Record<string, Float32Array | Values>} vectors
 * @property {(settings: any, vectors: Record<string, any>) => ErrorsOf} errors
 */

/** @param {number} n @returns {Spread} */
const spread = (n) => ({ v: new Float64Array(n), e: new Float64Array(n) });

/** a * b. @param {Spread} a @param {Spread} b @returns {Spread} */
function times(a, b) {
  const y = spread(a.v.length);
  for (let i = 0; i < y.v.length; i++) {
    y.v[i] = a.v[i] * b.v[i];
    y.e[i] = Math.abs(a.v[i]) * b.e[i] + (Math.abs(b.v[i]) + b.e[i]) * a.e[i] + 2 * u * Math.abs(y.v[i]);
  }
  return y;
}

/**
 * Convolutions of all channels, by position.
 * @param {Values} weight
 * @param {Float32Array} [bias]
 * @returns {(x: Spread, position: number) => Spread}
 */
function convolved({ nRows, nCols: length, values }, bias) {
  /** @type {Spread[]} */
  const past = [];
  return (x, position) => {
    past.length = position;
    past.push(x);
    const y = spread(nRows);
    for (let i = 0; i < nRows; i++) {
      let size = Math.abs(bias?.[i] ?? 0);
      y.v[i] = bias?.[i] ?? 0;
      for (let j = 0; j < length; j++) {
        const of = past[position + 1 - length + j];
        if (!of) continue;
        const w = values[i * length + j];
        y.v[i] += w * of.v[i];
        size += Math.abs(w * of.v[i]);
        y.e[i] += Math.abs(w) * of.e[i];
      }
      y.e[i] += 2 * (length + 2) * u * size;
    }
    return y;
  };
}

/**
 * Weights of a convolution. They are so different that no token and no channel looks like another one:
 * norms hide what only changes the scale.
 * @param {number} nRows
 * @param {number} length
 * @param {Generator} random
 */
const convolution = (nRows, length, random) => ({
  ...{ nRows, nCols: length },
  values: Float32Array.from({ length: nRows * length }, () => (4 * random.unit() - 1) / length),
});

/** Largest derivative of silu. */
const SLOPE = 1.1;

/** silu(x). @param {Spread} x @returns {Spread} */
const silu = ({ v, e }) => {
  const y = v.map((value) => value / (1 + Math.exp(-value)));
  return { v: y, e: e.map((error, i) => SLOPE * error + (32 + 4 * Math.abs(v[i])) * u * Math.abs(y[i])) };
};

/** Some of the values. @param {Spread} x @param {number} start @param {number} n @returns {Spread} */
const part = ({ v, e }, start, n) => ({ v: v.subarray(start, start + n), e: e.subarray(start, start + n) });

/** x / sqrt(|x|^2 + eps), and the norm of its error. @param {Spread} x @param {number} eps */
function unit({ v, e }, eps) {
  const size = Math.sqrt(normOf(v) ** 2 + eps);
  const off = normOf(e);
  const error = off < size / 2 ? off / (size - off) : 2;
  return { v: v.map((value) => value / size), error: error + (v.length + 26) * u };
}

/** e^(a softplus(time + bias)), and softplus(..), each with its error. */
function stepOf(
  /** @type {Spread} */ { v, e },
  /** @type {number} */ head,
  /** @type {number} */ bias,
  /** @type {number} */ a,
) {
  const x = v[head] + bias;
  const time = Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  const off = e[head] + 2 * u * (Math.abs(x) + 16 * time);
  const decay = Math.exp(a * time);
  return {
    time,
    off,
    decay,
    ofDecay: decay * (Math.expm1(Math.abs(a) * off) + (16 + 4 * Math.abs(a * time)) * u),
  };
}

/**
 * rms(x) * weight, group by group.
 * @param {Spread} x
 * @param {(i: number) => number} weight
 * @param {{ size: number, eps: number }} group
 */
function normed(x, weight, { size, eps }) {
  const y = spread(x.v.length);
  for (let start = 0; start < x.v.length; start += size) {
    const { v, e } = part(x, start, size);
    const rms = Math.sqrt(normOf(v) ** 2 / size + eps);
    const relative = normOf(e) / (rms * Math.sqrt(size)) + 2 * u * (size / 2 + 13);
    for (let i = 0; i < size; i++) {
      const by = weight(start + i) / rms;
      y.v[start + i] = v[i] * by;
      y.e[start + i] = Math.abs(by) * (e[i] + (Math.abs(v[i]) + e[i]) * 1.05 * relative);
    }
  }
  return y;
}

/** States of heads: values row by row, and the norm of the error of each column. */
class Heads {
  /** @param {number} nHeads @param {number} rows @param {number} cols */
  constructor(nHeads, rows, cols) {
    this.v = Array.from({ length: nHeads }, () => new Float64Array(rows * cols));
    this.e = Array.from({ length: nHeads }, () => new Float64Array(cols));
    this.saved = structuredClone({ v: this.v, e: this.e });
    this.savedAt = 0;
    this.end = 0;
  }

  /** @param {number} position @param {boolean} isCopied */
  begin(position, isCopied) {
    if (position === 0) for (const of of [...this.v, ...this.e]) of.fill(0);
    else if (position !== this.end) Object.assign(this, structuredClone(this.saved));
    if (isCopied) this.saved = structuredClone({ v: this.v, e: this.e });
    this.end = position + 1;
  }
}

/** @type {Readonly<Record<string, RecurrentPart>>} */
export const PARTS = Object.freeze({
  convolution: {
    fewer: (_, { nEmbd }) => ({ nChannels: nEmbd }),
    vectors: ({ nChannels, length }, random) => ({
      conv: convolution(nChannels, length, random),
      convBias: makeVector(nChannels, 0.5, random),
    }),
    errors(_, { conv, convBias }) {
      const mixed = convolved(conv, convBias);
      return ({ b, c, x }, position) => times(c, mixed(times(b, x), position));
    },
  },
  delta: {
    fewer({ nKeyHeads, nValueHeads, valueSize }, { block }) {
      const each = nValueHeads / nKeyHeads;
      let n = Math.min(2, nKeyHeads);
      while ((n * each * valueSize) % block !== 0 && n < nKeyHeads) n++;
      return { nKeyHeads: n, nValueHeads: n * each };
    },
    vectors: ({ nKeyHeads, nValueHeads, keySize, valueSize, length }, random) => ({
      conv: convolution(2 * nKeyHeads * keySize + nValueHeads * valueSize, length, random),
      dtBias: makeVector(nValueHeads, 0.5, random),
      a: makeVector(nValueHeads, -0.3, random),
      headNorm: makeVector(valueSize, 1, random),
    }),
    errors({ nKeyHeads, nValueHeads, keySize, valueSize, headNorm: { eps } }, { conv, dtBias, a, headNorm }) {
      const convolve = convolved(conv);
      const heads = new Heads(nValueHeads, keySize, valueSize);
      const root = Math.sqrt(keySize);
      return ({ qkv, gate, alpha, beta }, position, isCopied) => {
        const mixed = silu(convolve(qkv, position));
        heads.begin(position, isCopied);
        const y = spread(nValueHeads * valueSize);
        for (let h = 0; h < nValueHeads; h++) {
          const at = (h % nKeyHeads) * keySize;
          const q = unit(part(mixed, at, keySize), eps);
          const k = unit(part(mixed, nKeyHeads * keySize + at, keySize), eps);
          const value = part(mixed, 2 * nKeyHeads * keySize + h * valueSize, valueSize);
          const { decay, ofDecay } = stepOf(alpha, h, dtBias[h], a[h]);
          const b = 1 / (1 + Math.exp(-beta.v[h]));
          const ofB = beta.e[h] / 4 + 16 * u;
          const state = heads.v[h];
          const errors = heads.e[h];
          for (let c = 0; c < valueSize; c++) {
            let seen = 0;
            let size = 0;
            for (let i = 0; i < keySize; i++) {
              const s = state[i * valueSize + c];
              seen += decay * s * k.v[i];
              size += s * s;
            }
            size = Math.sqrt(size) + errors[c];
            const rest = value.v[c] - seen;
            const w = b * rest;
            let read = 0;
            let after = 0;
            for (let i = 0; i < keySize; i++) {
              const s = decay * state[i * valueSize + c] + k.v[i] * w;
              state[i * valueSize + c] = s;
              read += (s * q.v[i]) / root;
              after += s * s;
            }
            // An earlier error shrinks by the decay: the key has a norm of 1, and beta is below 1.
            const written = decay * size + Math.abs(w);
            const local =
              2 * ofDecay * size +
              k.error * (Math.abs(w) + decay * size) +
              ofB * (Math.abs(rest) + decay * errors[c]) +
              b * value.e[c] +
              2 * (keySize + 16) * u * (written + Math.abs(value.v[c]));
            errors[c] = decay * errors[c] + 1.1 * local;
            const i = h * valueSize + c;
            y.v[i] = read;
            y.e[i] =
              (errors[c] + q.error * (Math.sqrt(after) + errors[c]) + 2 * (keySize + 16) * u * written) /
              root;
          }
        }
        return times(
          normed(y, (i) => headNorm[i % valueSize], { size: valueSize, eps }),
          silu(gate),
        );
      };
    },
  },
  scan: {
    fewer({ nHeads, nGroups, headSize }, { block }) {
      const all = nHeads / nGroups;
      const n = Math.min(2, nGroups);
      let each = Math.min(2, all);
      while ((n * each * headSize) % block !== 0 && each < all) each++;
      return { nGroups: n, nHeads: n * each };
    },
    vectors({ nHeads, nGroups, headSize, stateSize, length }, random) {
      const inner = nHeads * headSize;
      const nChannels = inner + 2 * nGroups * stateSize;
      const rows = (/** @type {number} */ mean) => ({
        ...{ nRows: nHeads, nCols: 1 },
        values: makeVector(nHeads, mean, random),
      });
      return {
        conv: convolution(nChannels, length, random),
        convBias: makeVector(nChannels, 0.2, random),
        stepBias: makeVector(nHeads, -0.5, random),
        ...{ a: rows(-0.3), d: rows(0.5) },
        gateNorm: { nRows: nGroups, nCols: inner / nGroups, values: makeVector(inner, 1, random) },
      };
    },
    errors({ nHeads, nGroups, headSize, stateSize, gateNorm: { eps } }, vectors) {
      const { conv, convBias, stepBias, a, d, gateNorm } = vectors;
      const convolve = convolved(conv, convBias);
      const heads = new Heads(nHeads, stateSize, headSize);
      const inner = nHeads * headSize;
      return ({ z, x, dt }, position, isCopied) => {
        const mixed = silu(convolve(x, position));
        heads.begin(position, isCopied);
        const y = spread(inner);
        for (let h = 0; h < nHeads; h++) {
          const at = inner + Math.floor((h * nGroups) / nHeads) * stateSize;
          const key = part(mixed, at, stateSize);
          const query = part(mixed, at + nGroups * stateSize, stateSize);
          const [ofKey, ofQuery] = [key, query].map(({ v, e }) => ({ size: normOf(v), error: normOf(e) }));
          const { time, off, decay, ofDecay } = stepOf(dt, h, stepBias[h], a.values[h]);
          const state = heads.v[h];
          const errors = heads.e[h];
          for (let c = 0; c < headSize; c++) {
            const i = h * headSize + c;
            const w = time * mixed.v[i];
            const ofW = time * mixed.e[i] + (Math.abs(mixed.v[i]) + mixed.e[i]) * off + 2 * u * Math.abs(w);
            const by = d.values[h];
            let [read, before, after] = [by * mixed.v[i], 0, 0];
            for (let n = 0; n < stateSize; n++) {
              const s = state[n * headSize + c];
              const next = decay * s + key.v[n] * w;
              state[n * headSize + c] = next;
              read += next * query.v[n];
              before += s * s;
              after += next * next;
            }
            const written = decay * (Math.sqrt(before) + errors[c]) + ofKey.size * Math.abs(w);
            errors[c] =
              decay * errors[c] +
              ofDecay * (Math.sqrt(before) + errors[c]) +
              (ofKey.size + ofKey.error) * ofW +
              ofKey.error * Math.abs(w) +
              8 * u * written;
            y.v[i] = read;
            y.e[i] =
              (ofQuery.size + ofQuery.error) * errors[c] +
              ofQuery.error * Math.sqrt(after) +
              Math.abs(by) * mixed.e[i] +
              2 * (stateSize + 16) * u * (ofQuery.size * written + Math.abs(by * mixed.v[i]));
          }
        }
        const gated = times(y, silu(z));
        if (!gateNorm) return gated;
        return normed(gated, (i) => gateNorm.values[i], { size: inner / nGroups, eps });
      };
    },
  },
});

/** @param {RecurrentSettings} settings @param {Record<string, any>} vectors @returns {ErrorsOf} */
export const recurrentErrors = (settings, vectors) => PARTS[settings.kind].errors(settings, vectors);
