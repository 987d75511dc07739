/* Rotary positions as the metadata of a file describe them: dimensions, base, and the ways to
 * stretch the positions beyond those of the training. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {Omit<import('../plan.js').Rope, 'pairing'>} Turn */

const SCALING_TYPES = ['none', 'linear', 'yarn', 'longrope'];

/**
 * @typedef {object} RopeOptions
 * @property {number} [base]  Base of the frequencies, if it is not rope.freq_base.
 * @property {boolean} [logMultiplier]  Whether YaRN's factor of the magnitude is divided by that of
 *   rope.scaling.yarn_log_multiplier.
 */

/**
 * @param {MetadataReader} read
 * @param {number} headSize
 * @param {RopeOptions} [options]
 * @returns {Turn}
 */
export function readRope(read, headSize, { base = freqBase(read), logMultiplier = false } = {}) {
  const { count, key, value } = read;
  const nDims = count('rope.dimension_count', headSize);
  if (nDims % 2 !== 0 || nDims > headSize)
    throw new ModelError(`${show(key('rope.dimension_count'))} is ${nDims}, heads have ${headSize} values`);
  const type = value('rope.scaling.type') ?? 'linear';
  if (!SCALING_TYPES.includes(/** @type {string} */ (type))) {
    throw new ModelError(
      `RoPE scaling of type ${show(type)} is not supported; supported are ${SCALING_TYPES.join(', ')}, and llama3's factors in rope_freqs.weight`,
    );
  }
  const factor = type === 'none' ? 1 : scalingFactor(read);
  const magnitude = read.positive('rope.scaling.attn_factor', 1);
  if (type !== 'yarn') return { nDims, base, linearScale: factor, divisors: undefined, magnitude };
  const multiplier = logMultiplier ? read.optional('rope.scaling.yarn_log_multiplier', 0) : 0;
  return {
    ...{ nDims, base, linearScale: 1 },
    divisors: yarnDivisors(read, { nDims, base, factor }),
    magnitude: (magnitude * yarnMagnitude(factor, 1)) / yarnMagnitude(factor, multiplier),
  };
}

/**
 * The same rotation without any scaling of positions.
 * @template {Turn} T
 * @param {T} rope
 * @returns {T}
 */
export const unscaled = (rope) => ({ ...rope, linearScale: 1, divisors: undefined });

/** @param {MetadataReader} read */
export const freqBase = (read) => read.positive('rope.freq_base', 10000);

/** Positions that the rotation was trained for before it was stretched. @param {MetadataReader} read */
export const originalContext = (read) =>
  read.count('rope.scaling.original_context_length', read.count('context_length'));

/**
 * How far positions are stretched. The factor also has an older key; 0 means that there is none.
 * @param {MetadataReader} read
 */
export function scalingFactor({ value, optional }) {
  const name = ['rope.scaling.factor', 'rope.scale_linear'].find((one) => value(one) !== undefined);
  return name === undefined ? 1 : optional(name, 1);
}

/**
 * YaRN (Peng et al.): pairs that turn more than betaFast times within the original context keep
 * their frequency, those that turn less than betaSlow times are divided by the factor, and between
 * them the frequencies are interpolated.
 * @param {MetadataReader} read
 * @param {{ nDims: number, base: number, factor: number }} rope
 */
function yarnDivisors(read, { nDims, base, factor }) {
  const context = originalContext(read);
  const pairOf = (/** @type {number} */ turns) =>
    (nDims * Math.log(context / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const first = Math.max(0, Math.floor(pairOf(read.positive('rope.scaling.yarn_beta_fast', 32))));
  const last = Math.min(nDims - 1, Math.ceil(pairOf(read.positive('rope.scaling.yarn_beta_slow', 1))));
  return Array.from({ length: nDims / 2 }, (_, pair) => {
    const kept = 1 - Math.min(1, Math.max(0, (pair - first) / Math.max(0.001, last - first)));
    return 1 / (kept + (1 - kept) / factor);
  });
}

/** YaRN's factor of a magnitude. @param {number} factor @param {number} multiplier */
export const yarnMagnitude = (factor, multiplier) =>
  factor <= 1 ? 1 : 1 + 0.1 * multiplier * Math.log(factor);
