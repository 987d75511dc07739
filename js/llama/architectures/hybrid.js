/* Models in which some layers have a recurrent block instead of attention. Their files mark these
 * layers by 0 heads of keys and values. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').Plan} Plan */
/** @typedef {import('../plan.js').RecurrentSettings} RecurrentSettings */

const KV_HEADS = 'attention.head_count_kv';

/**
 * Tells which layers are recurrent, and makes a reader for the others, which gives the number of KV
 * heads that they share.
 * @param {MetadataReader} read
 * @returns {{ isRecurrent: boolean[], read: MetadataReader }}
 * @throws {ModelError} the list has another length, or layers with attention differ
 */
export function readKinds(read) {
  const nLayers = read.count('block_count');
  const given = read.value(KV_HEADS) ?? read.count('attention.head_count');
  const each = Array.isArray(given)
    ? given.map(Number)
    : Array.from({ length: nLayers }, () => Number(given));
  if (each.length !== nLayers)
    throw new ModelError(`${show(read.key(KV_HEADS))} has ${each.length} values for ${nLayers} layers`);
  if (!each.every((n) => Number.isSafeInteger(n) && n >= 0))
    throw new ModelError(`${show(read.key(KV_HEADS))} must be integers from 0 on, got ${show(given)}`);
  const [nKvHeads = read.count('attention.head_count'), other] = new Set(each.filter((n) => n > 0));
  if (other !== undefined) {
    throw new ModelError(
      `layers with ${nKvHeads} and with ${other} KV heads in one model are not supported (${show(read.key(KV_HEADS))})`,
    );
  }
  return {
    isRecurrent: each.map((n) => n === 0),
    read: {
      ...read,
      count: (name, fallback) => (name === KV_HEADS ? nKvHeads : read.count(name, fallback)),
      value: (name) => (name === KV_HEADS ? nKvHeads : read.value(name)),
    },
  };
}

/**
 * Gives layers a recurrent block instead of attention.
 * @param {Plan} plan  changed
 * @param {readonly boolean[]} isRecurrent  for each layer
 * @param {(i: number) => Pick<Plan, 'tensors' | 'shared'> & { recurrent: RecurrentSettings }} make  the
 *   block of a layer, with its tensors
 */
export function replaceAttention(plan, isRecurrent, make) {
  const isGone = (/** @type {string} */ role) => {
    const layer = /^layers\.(\d+)\.attention\./.exec(role)?.[1];
    return layer !== undefined && isRecurrent[Number(layer)];
  };
  // The norm of the input stays.
  for (const one of plan.tensors)
    if (isGone(one.role)) one.role = one.role.replace(/\.attention\.norm$/, '.recurrent.norm');
  plan.tensors = plan.tensors.filter(({ role }) => !isGone(role));
  plan.shared = Object.fromEntries(Object.entries(plan.shared).filter(([role]) => !isGone(role)));
  for (const [i, layer] of plan.layers.entries()) {
    if (!isRecurrent[i]) continue;
    const { recurrent, tensors, shared } = make(i);
    layer.attention = undefined;
    layer.recurrent = recurrent;
    plan.tensors.push(...tensors);
    Object.assign(plan.shared, shared);
  }
}
