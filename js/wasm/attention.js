/* Attention: the scores of one head, and grouped-query attention over a cache of keys and
 * values. */

import { checkLength, checkNames } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { Call } from './call.js';
import { addressIn } from './handles.js';
import { KvCache, LARGEST_HEAD } from './kv-cache.js';
import { checkPosition, headsOf } from './layer.js';
import { FLASH_OPTIONS, SCORE_OPTIONS } from './layer-options.js';
import { asOperand, checkNumber, countRows } from './operands.js';

/**
 * @template {keyof import('./kernels.js').Kernels} K
 * @typedef {import('./core.js').Operation<K>} Operation
 */

/** @type {Operation<'fusedAttentionScore'>} */
export const fusedAttentionScore = (core, q, k, options = {}) => {
  checkNames(options, SCORE_OPTIONS);
  const { headSize, scale, causal = false, out } = options;
  const shaped = [asOperand(q, 'q'), asOperand(k, 'k')].find((x) => 'nCols' in x);
  const size = headSize ?? shaped?.nCols;
  if (size === undefined) throw new ArgumentError('headSize is needed where q and k are Float32Arrays');
  checkHeadSize(size);
  const nQ = countRows(q, size, 'q', `a head of ${size}`);
  const nK = countRows(k, size, 'k', `a head of ${size}`);
  const factor = scale ?? 1 / Math.sqrt(size);
  checkNumber(factor, 'scale');
  const call = new Call(core);
  const [atQ, atK, atY] = [call.input(q), call.input(k), call.output(out, q, nQ, nK)];
  call.run('fusedAttentionScore', () =>
    core.memory.exports.fused_attention_score(
      atQ.ptr,
      atK.ptr,
      atY.ptr,
      nQ,
      nK,
      size,
      factor,
      causal ? 1 : 0,
    ),
  );
  return call.result(atY);
};

/** @type {Operation<'flashAttention'>} */
export const flashAttention = (core, q, kCache, vCache, options = {}) => {
  checkNames(options, FLASH_OPTIONS);
  const { firstPosition = 0, causal = true, window = 0, start = 0, softcap = 0, sinks, out } = options;
  const { memory } = core;
  asOperand(q, 'q');
  const atK = addressIn(asCache(kCache, 'kCache'), memory);
  const atV = addressIn(asCache(vCache, 'vCache'), memory);
  const { type, typeId, nKvHeads, headSize } = kCache;
  if (vCache.type !== type || vCache.nKvHeads !== nKvHeads || vCache.headSize !== headSize)
    throw new ShapeError(`${vCache} beside ${kCache}`, { got: vCache.nCols, expected: kCache.nCols });
  const nHeads = headsOf(q, { headSize, nHeads: options.nHeads });
  if (nHeads % nKvHeads !== 0) {
    throw new ShapeError(`${nHeads} heads are no multiple of the ${nKvHeads} KV heads of ${kCache}`, {
      got: nHeads,
      expected: nKvHeads,
    });
  }
  const nCols = nHeads * headSize;
  const nTokens = countRows(q, nCols, 'q', `a token of ${nHeads} head(s) of ${headSize}`);
  checkPosition(firstPosition, 'firstPosition');
  checkPosition(window, 'window');
  const nPositions = options.nPositions ?? firstPosition + nTokens;
  checkPosition(nPositions, 'nPositions');
  checkPosition(start, 'start');
  const room = Math.min(kCache.nPositions, vCache.nPositions) - start;
  if (nPositions < 1 || nPositions > room) {
    const from = start > 0 ? ` from ${start} on` : '';
    throw new ShapeError(`nPositions is ${nPositions}, the caches have ${Math.max(0, room)}${from}`, {
      got: nPositions,
      expected: room,
    });
  }
  const skipped = start * (kCache.byteLength / kCache.nPositions);
  const scale = options.scale ?? 1 / Math.sqrt(headSize);
  checkNumber(scale, 'scale');
  checkNumber(softcap, 'softcap', { from: 0 });
  if (sinks !== undefined) checkLength(asOperand(sinks, 'sinks'), nHeads, 'sinks');
  const call = new Call(core);
  const [atQ, atY] = [call.input(q), call.output(out, q, nTokens, nCols)];
  const atSinks = call.optional(sinks);
  const struct = call.struct('fm_attention', () => [
    ...[nTokens, nHeads, nKvHeads, headSize, nPositions, firstPosition, typeId],
    ...[causal ? 1 : 0, window, scale, softcap, atSinks.ptr],
  ]);
  call.run('flashAttention', () =>
    memory.exports.fm_flash_attention(struct.ptr, atQ.ptr, atK + skipped, atV + skipped, atY.ptr),
  );
  return call.result(atY);
};

/** @param {number} headSize */
function checkHeadSize(headSize) {
  if (Number.isInteger(headSize) && headSize >= 1 && headSize <= LARGEST_HEAD) return;
  throw new ShapeError(`headSize must be an integer from 1 to ${LARGEST_HEAD}, got ${show(headSize)}`, {
    got: headSize,
    expected: LARGEST_HEAD,
  });
}

/** @param {unknown} value @param {string} what @returns {KvCache} */
function asCache(value, what) {
  if (value instanceof KvCache) return value;
  throw new ArgumentError(`${what} must come from kvCache, got ${show(value)}`);
}
