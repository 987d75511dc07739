/* A stretch of a model as a plan of its own, for one of several devices. */

/** @typedef {import('./plan.js').Plan} Plan */
/** @typedef {import('./plan.js').PlannedTensor} PlannedTensor */

/**
 * Layers of a model: those from `from` up to the one before `to`; and whether the embedding and the
 * head belong to them. Products after the pooling and a ranking head belong to the head.
 * @typedef {{ from: number, to: number, embedding: boolean, head: boolean }} Stretch
 */

/**
 * A plan with the tensors that are loaded for it.
 * @typedef {{ plan: Plan, tensors: PlannedTensor[] }} Slice
 */

const LAYER = /^layers\.(\d+)\./;
/** Roles of the last stretch. */
const LAST = /^(head|dense|ranker)\./;

/**
 * Makes the plan of a stretch. Its layers count from 0. Tensors that it shares with another stretch,
 * as a tied embedding, belong to both.
 * @param {Plan} plan
 * @param {readonly PlannedTensor[]} tensors  those of the plan that the file has
 * @param {Stretch} stretch
 * @returns {Slice}
 */
export function slicePlan(plan, tensors, { from, to, embedding, head }) {
  const isIn = (/** @type {string} */ role) => {
    const layer = LAYER.exec(role)?.[1];
    if (layer !== undefined) return Number(layer) >= from && Number(layer) < to;
    return (embedding && role.startsWith('embedding.')) || (head && LAST.test(role));
  };
  const rename = (/** @type {string} */ role) => {
    const layer = LAYER.exec(role)?.[1];
    if (layer === undefined) return role;
    return role.replace(LAYER, isIn(role) ? `layers.${Number(layer) - from}.` : `elsewhere.${layer}.`);
  };
  const present = new Set(tensors.map(({ role }) => role));
  /** Roles whose tensors are needed. @type {Set<string>} */
  const needed = new Set();
  /** @type {Plan['shared']} */
  const shared = {};
  const need = (/** @type {string} */ role) => {
    if (needed.has(role)) return;
    needed.add(role);
    if (present.has(role) || !Object.hasOwn(plan.shared, role)) return;
    const { of, ...rows } = plan.shared[role];
    shared[rename(role)] = { of: rename(of), ...rows };
    need(of);
  };
  for (const role of [...plan.tensors.map((one) => one.role), ...Object.keys(plan.shared)])
    if (isIn(role)) need(role);
  const own = (/** @type {readonly PlannedTensor[]} */ all) =>
    all.filter(({ role }) => needed.has(role)).map((one) => ({ ...one, role: rename(one.role) }));
  const lowRank = (plan.lowRank ?? [])
    .filter(({ of }) => isIn(of))
    .map(({ of, a, b, scale }) => ({ of: rename(of), a: rename(a), b: rename(b), scale }));
  return {
    plan: {
      ...{ ...plan, layers: plan.layers.slice(from, to), tensors: own(plan.tensors), shared },
      lowRank: lowRank.length > 0 ? lowRank : undefined,
    },
    tensors: own(tensors),
  };
}
