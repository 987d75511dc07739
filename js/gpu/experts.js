/* Feed-forward blocks of experts as work for the GPU.
 *
 *   router   logits of all experts                       one product, with that of the shared
 *                                                        expert's factor where it has one
 *   route    the experts of each token, their weights    one dispatch
 *   in       weight * act(gate h) * (up h)               one dispatch; one more for a shared expert
 *   out      x += down inner, over all experts           one dispatch
 *
 * Nothing of the choice comes back to the processor: kernels read in `routes` which rows they need. */

import { everyRow, normedProduct, normWork } from './blocks.js';
import { PLAIN } from './features.js';
import { up16 } from './shader.js';
import { joinVectors } from './vectors.js';
import { innerLayout, logitStride } from './wgsl/expert-layout.js';
import { expertsIn, expertsInGroups, expertsOut, expertsOutGroups } from './wgsl/experts.js';
import { addTo } from './wgsl/layer.js';
import { route, routeGroups } from './wgsl/route.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../backend.js').Weights} Weights */
/** @typedef {import('../llama/plan.js').ExpertSettings} ExpertSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('./blocks.js').Means} Means */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./hidden.js').GpuHidden} GpuHidden */
/** @typedef {import('./products.js').Form} Form */
/** @typedef {import('./products.js').Work} Work */
/** @typedef {import('./weight.js').GpuWeight} GpuWeight */
/** @typedef {import('./wgsl/experts.js').ExpertPart} ExpertPart */

/** @template S @typedef {import('../backend.js').Block<S>} Block */

/** Vectors of a block that kernels of experts read, by role. */
const VECTORS = /** @type {const} */ ([
  ...['norm', 'sharedNorm', 'routerBias', 'selectBias', 'gateFactor', 'upFactor', 'downFactor'],
  ...['gateBias', 'upBias', 'downBias'],
]);

/**
 * The vectors of a block in one buffer.
 * @param {Weights} weights
 * @param {Means} means
 * @returns {{ buffer: GpuBuffer, at: Record<string, number> }}
 */
const vectorsOf = (weights, { gpu, commands, own, remembered }) =>
  remembered(weights, 'vectors of experts', () => {
    const given = VECTORS.map((role) => {
      const vector = weights[role];
      return [role, vector && { buffer: vector.buffer, nCols: vector.nRows * up16(vector.nCols) }];
    });
    const joined = joinVectors(gpu, commands, Object.fromEntries(given), []);
    own(joined.buffer);
    return joined;
  });

/**
 * The parts of a tensor of experts, by the buffers that they lie in.
 * @param {GpuWeight} weight
 * @returns {(ExpertPart & { buffer: GpuBuffer })[]}
 */
function partsOf(weight) {
  const units = weight.units();
  return units.map(({ unit, buffer, firstRow }) => ({
    ...{ unit, buffer, first: firstRow },
    whole: units.length === 1,
  }));
}

/**
 * @param {Block<FeedSettings>} block
 * @param {GpuHidden} hidden
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function expertsWork(block, { buffers }, form, means) {
  const { settings, weights } = block;
  const { norm, postNorm, residualScale, activation } = settings;
  const experts = /** @type {ExpertSettings} */ (settings.experts);
  const { shared, norms } = experts;
  const { x, normed, gate: inner, routes, mixed } = /** @type {Record<string, GpuBuffer>} */ (buffers);
  const nEmbd = weights.router.nCols;
  const layout = innerLayout(settings.nFf, experts);
  const { at, buffer: vectors } = vectorsOf(weights, means);
  const { rows, invocations, subgroups } = { ...PLAIN, ...means.variants };
  const kernels = { rows: Math.min(rows, 8), invocations, subgroups };
  const isMany = form === 'many';

  /**
   * The first half of experts, after a norm of x.
   * @param {'' | 'shared'} whose
   * @param {{ eps: number } | undefined} ofInput
   * @param {string} role  of the norm's weight
   * @param {boolean} isThere  norm(x) is in `normed` already, where it is made for many tokens
   * @returns {Work[]}
   */
  const first = (whose, ofInput, role, isThere) => {
    const [gates, ups] = whose
      ? [partsOf(weights.sharedGate), partsOf(weights.sharedUp)]
      : [partsOf(weights.gate), partsOf(weights.up)];
    const isMade = isMany && ofInput && !isThere;
    const before = isMade ? [normWork({ kind: 'rms', ...ofInput }, weights, role, x, normed)] : [];
    const { gateFactor, upFactor, downFactor, gateBias, upBias } = at;
    const given = Object.entries({ gateFactor, upFactor, downFactor, gateBias, upBias });
    const options = {
      ...{ nRows: whose ? weights.sharedGate.nRows : settings.nFf, layout, activation },
      shared: whose === 'shared',
      norm: isMany || !ofInput ? undefined : { eps: ofInput.eps, at: at[role] },
      at: whose ? {} : Object.fromEntries(given.filter(([, one]) => one !== undefined)),
      form: kernels,
    };
    const work = gates.flatMap((gate) =>
      ups
        .filter((up) => gate.first < up.first + up.unit.nRows && up.first < gate.first + gate.unit.nRows)
        .map((up) => {
          const all = { ...options, parts: /** @type {const} */ ([gate, up]) };
          const from = isMany && ofInput ? normed : x;
          return {
            shader: expertsIn(all),
            buffers: { w0: gate.buffer, w1: up.buffer, x: from, routes, vectors, inner },
            groups: (/** @type {Step} */ { nTokens }) => expertsInGroups(all, nTokens),
          };
        }),
    );
    return [...before, ...work];
  };

  /**
   * The second half: experts, the shared one, or both. Tensors in one piece have one dispatch.
   * @param {readonly ('down' | 'sharedDown')[]} roles
   * @param {GpuBuffer} y
   * @param {number} [scale]  y += scale * the result
   * @returns {Work[]}
   */
  const second = (roles, y, scale) => {
    const lists = roles.map((role) => partsOf(weights[role]).map((part) => ({ role, part })));
    const dispatches = lists.every(({ length }) => length === 1)
      ? [lists.flat()]
      : lists.flat().map((one) => [one]);
    return dispatches.map((parts, i) => {
      const of = (/** @type {string} */ name) => parts.find(({ role }) => role === name)?.part;
      const options = {
        ...{ experts: of('down'), shared: of('sharedDown'), nRows: nEmbd, layout, bias: at.downBias },
        ...{ residualScale: scale ?? (i > 0 ? 1 : undefined), form: kernels },
      };
      const bound = Object.fromEntries(parts.map(({ part }, k) => [`w${k}`, part.buffer]));
      return {
        shader: expertsOut(options),
        buffers: { ...bound, x: inner, routes, vectors, y },
        groups: (/** @type {Step} */ { nTokens }) => expertsOutGroups(options, nTokens),
      };
    });
  };

  const work = [
    ...routerWork(block, buffers, at, vectors, form, means),
    // The product of the router has made the same norm, unless it has one of its own.
    ...first('', norm, 'norm', !experts.routerNorm),
    ...(shared ? first('shared', norms ?? norm, norms ? 'sharedNorm' : 'norm', !norms) : []),
  ];
  /** @type {('down' | 'sharedDown')[]} */
  const both = shared ? ['down', 'sharedDown'] : ['down'];
  if (!norms && !postNorm) return [...work, ...second(both, x, residualScale)];
  /** x += residualScale * postNorm(y). @param {GpuBuffer} y @returns {Work} */
  const add = (y) => ({
    shader: addTo({ nCols: nEmbd, scale: residualScale, norm: postNorm }),
    buffers: { x: y, ...(postNorm && { weight: weights.postNorm.buffer }), y: x },
    groups: everyRow,
  });
  if (!norms) return [...work, ...second(both, normed), add(normed)];
  const { eps } = norms;
  const added = {
    shader: addTo({ nCols: nEmbd, scale: 1, norm: { kind: 'rms', eps } }),
    buffers: { x: normed, weight: weights.sharedPostNorm?.buffer, y: mixed },
    groups: everyRow,
  };
  return [
    ...work,
    ...second(['down'], normed),
    normWork({ kind: 'rms', eps }, weights, 'expertsNorm', normed, mixed),
    ...(shared ? [...second(['sharedDown'], normed), added] : []),
    add(mixed),
  ];
}

/**
 * The experts of each token and their weights.
 * @param {Block<FeedSettings>} block
 * @param {import('./hidden.js').HiddenBuffers} buffers
 * @param {Record<string, number>} at  where vectors begin
 * @param {GpuBuffer} vectors
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
function routerWork({ settings, weights }, buffers, at, vectors, form, means) {
  const { norm, experts } = settings;
  const { nExperts, nUsed, router, shared, routerNorm } = /** @type {ExpertSettings} */ (experts);
  const { logits, routes } = /** @type {Record<string, GpuBuffer>} */ (/** @type {unknown} */ (buffers));
  /** @param {GpuWeight[]} list @param {number} first @param {'norm' | 'routerNorm'} role */
  const product = (list, first, role) => {
    const ofInput =
      role === 'norm' ? norm : routerNorm && { kind: /** @type {const} */ ('rms'), ...routerNorm };
    return normedProduct(
      { weights: list, y: logits, output: { first, stride: logitStride(nExperts) } },
      { settings: { norm: ofInput }, weights: { norm: weights[role] } },
      buffers,
      weights[role]?.buffer,
      form,
      means,
    );
  };
  const ofShared = shared?.gated ? [weights.sharedRouter] : [];
  const options = {
    ...{ nExperts, nUsed, router, logitScale: routerNorm?.scale, gatedShared: shared?.gated ?? false },
    ...{ bias: at.routerBias, selectBias: at.selectBias },
  };
  return [
    ...(routerNorm
      ? [
          ...product([weights.router], 0, 'routerNorm'),
          ...(ofShared.length > 0 ? product(ofShared, nExperts, 'norm') : []),
        ]
      : product([weights.router, ...ofShared], 0, 'norm')),
    {
      shader: route(options),
      buffers: { logits, vectors, routes },
      groups: ({ nTokens }) => routeGroups(nTokens),
    },
  ];
}
