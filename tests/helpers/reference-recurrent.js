/**
 * Recurrent blocks in float64, token by token, with the formulas of js/llama/plan.js.
 */
import { ShapeError } from '../../js/errors.js';
import { delta } from './reference-delta.js';
import { Freeable, multiply, plus } from './reference-rows.js';
import { scan } from './reference-scan.js';

/** @import { ConvolutionSettings, RecurrentSettings } from '../../js/llama/plan.js' */
/** @import { Matrix } from './reference-rows.js' */

/** @typedef {Record<string, Float64Array>} Parts */

/**
 * A kind of block: sizes of the parts of its state, and what a token adds before the product with
 * the output matrix.
 * @template {RecurrentSettings} [S=any]
 * @typedef {object} ReferenceKind
 * @property {(settings: S) => Record<string, number>} sizes
 * @property {(h: Float64Array, state: Parts, settings: S, weights: Record<string, Matrix>) =>
 *   Float64Array} token  h: the input after its norm; the state is changed.
 */

/** The state of a layer, and a copy of an earlier one. */
export class ReferenceState extends Freeable {
  /** @type {Parts} */
  parts = {};
  /** @type {Parts} */
  #saved = {};
  #asked = 0;
  #done = 0;
  #position = 0;
  #savedAt = 0;

  /** @param {RecurrentSettings} settings */
  constructor(settings) {
    super();
    for (const [name, n] of Object.entries(KINDS[settings.kind].sizes(settings)))
      this.parts[name] = new Float64Array(n);
    this.#saved = structuredClone(this.parts);
  }

  /** Notes that a call is recorded. Returns what to call when it is done. */
  ask() {
    const call = ++this.#asked;
    return () => {
      this.#done = call;
    };
  }

  /** While calls wait, no position is there. */
  get position() {
    return this.#asked === this.#done ? this.#position : -1;
  }

  set position(position) {
    this.#position = position;
  }

  get savedAt() {
    return this.#asked === this.#done ? this.#savedAt : -1;
  }

  set savedAt(position) {
    this.#savedAt = position;
  }

  /** @param {number} position */
  begin(position) {
    if (position === 0) {
      for (const values of Object.values(this.parts)) values.fill(0);
      this.#savedAt = 0;
    } else if (position !== this.#position) {
      if (position !== this.#savedAt)
        throw new Error(`no state of position ${position}: ${this.#position} and ${this.#savedAt} are there`);
      this.parts = structuredClone(this.#saved);
    }
    this.#position = -1;
  }

  /** @returns {import('../../js/backend.js').Saved} */
  copy() {
    const values = [this.parts, this.#saved].flatMap((parts) => Object.values(parts).map((one) => [...one]));
    const bytes = new Uint8Array(Float64Array.from(values.flat()).buffer);
    return { at: [this.#position, this.#savedAt], bytes };
  }

  /** @param {import('../../js/backend.js').Saved} saved */
  fill({ at, bytes }) {
    const values = new Float64Array(bytes.slice().buffer);
    let from = 0;
    for (const part of [this.parts, this.#saved].flatMap((parts) => Object.values(parts))) {
      part.set(values.subarray(from, from + part.length));
      from += part.length;
    }
    if (from !== values.length) throw new ShapeError('the state has another size');
    [this.#position, this.#savedAt] = at;
  }

  /** @param {number} position */
  save(position) {
    this.#saved = structuredClone(this.parts);
    this.#savedAt = position;
  }
}

/** Product with a matrix of the block, its factor and its bias. */
export const project = (
  /** @type {Float64Array} */ h,
  /** @type {Record<string, Matrix>} */ weights,
  /** @type {string} */ role,
) => plus(multiply(weights[role], h, weights[`${role}Factor`]), weights[`${role}Bias`]);

/**
 * A causal convolution of each channel.
 * @param {Float64Array} x  the channels of a token
 * @param {Float64Array} columns  those of the tokens before, oldest first; changed
 * @param {Matrix} weight  channels x length
 * @param {Matrix} [bias]
 */
export function convolve(x, columns, weight, bias) {
  const { nRows: n, nCols: length } = weight;
  const all = Float64Array.from([...columns, ...x]);
  const y = x.map((_, i) => {
    const row = weight.row(i);
    return row.reduce((sum, value, j) => sum + value * all[j * n + i], bias?.values[i] ?? 0);
  });
  columns.set(all.subarray(n, n * length));
  return y;
}

/** @type {ReferenceKind<ConvolutionSettings>} */
const convolution = {
  sizes: ({ nChannels, length }) => ({ columns: nChannels * (length - 1) }),
  token(h, { columns }, _, weights) {
    const [b, c, x] = ['b', 'c', 'x'].map((role) => project(h, weights, role));
    const mixed = convolve(
      x.map((value, i) => b[i] * value),
      columns,
      weights.conv,
      weights.convBias,
    );
    return mixed.map((value, i) => c[i] * value);
  },
};

/** @type {Record<string, ReferenceKind>} */
const KINDS = { convolution, delta, scan };

/**
 * What a token adds, before the norm of the output.
 * @param {Float64Array} h @param {ReferenceState} state @param {RecurrentSettings} settings
 * @param {Record<string, Matrix>} weights
 */
export const recurrentRow = (h, state, settings, weights) =>
  project(KINDS[settings.kind].token(h, state.parts, settings, weights), weights, 'output');
