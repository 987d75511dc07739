/* Blocks of experts in the self-test: a small block with the settings of the model, and how far its
 * results may be apart on two backends (see selftest-bounds.js).
 *
 * Where two experts are so close that rounding decides between them, backends may rightly choose
 * different ones. The choice is made here once more, in float64: tokens with a choice that is not
 * clear have no bound. */

import { normedError, normedSize, normOf, productError, SLOPE, u } from './selftest-bounds.js';

/** @typedef {import('../llama/plan.js').ExpertSettings} ExpertSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').RouterSettings} RouterSettings */
/** @typedef {import('./selftest-data.js').Matrix} Matrix */
/** @typedef {import('./selftest-model.js').Tree} Tree */
/** @typedef {import('./selftest-model.js').Values} Values */

/** @typedef {FeedSettings & { experts: ExpertSettings }} MixtureSettings */

/** Columns between the products of an expert, by the largest block of the types. */
const INNER_COLUMNS = /** @type {Record<number, number>} */ ({ 1: 42, 32: 96, 64: 128, 128: 128, 256: 256 });
const TESTED_EXPERTS = 16;
const TESTED_USED = 4;
/** Logits vary by about half of it: weights of experts differ, and their errors stay small. */
const ROUTER = 0.5;

/**
 * A small block with the settings of a mixture. Norms of its results are left out.
 * @param {FeedSettings} feed
 * @param {ExpertSettings} experts
 * @param {number} block  the largest of the types
 * @param {number | undefined} columns  between the products, where they are given
 * @returns {MixtureSettings}
 */
export function smallMixture(feed, experts, block, columns) {
  const { nExperts, nUsed, router, shared, routerNorm } = experts;
  const nGroups = Math.min(router.nGroups, 4);
  const isGrouped = router.nGroupsUsed < router.nGroups;
  const nGroupsUsed = isGrouped ? Math.min(router.nGroupsUsed, nGroups - 1) : nGroups;
  const size = Math.max(1, Math.floor(Math.min(nExperts, TESTED_EXPERTS) / nGroups));
  const nFf = columns ?? INNER_COLUMNS[block];
  return {
    ...feed,
    nFf,
    experts: {
      nExperts: nGroups * size,
      nUsed: Math.min(nUsed, TESTED_USED, nGroupsUsed * size),
      router: { ...router, nGroups, nGroupsUsed },
      shared: shared && { ...shared, nFf: 2 * nFf },
      ...(routerNorm && { routerNorm }),
    },
  };
}

/**
 * A router: numbers on both sides of 0, so that experts differ.
 * @param {number} nRows
 * @param {number} nCols
 * @param {Float32Array} values
 * @returns {Matrix}
 */
function routerOf(nRows, nCols, values) {
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const norm = (/** @type {number} */ r) => normOf(values.subarray(r * nCols, (r + 1) * nCols));
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return { ...{ type: 'F32', nRows, nCols, norm, largest }, data: /** @type {Matrix['data']} */ (data) };
}

/**
 * The tensors of a block, beside gate, up and down.
 * @param {MixtureSettings} settings
 * @param {number} nEmbd
 * @param {readonly string[]} roles  those of the model's tensors that it may lack
 * @param {object} make
 * @param {(nRows: number, nCols: number, mean?: number, type?: string) => Matrix} make.matrix
 * @param {(n: number, mean?: number) => Float32Array} make.vector
 * @param {(value: number, nEmbd: number) => number} make.meanFor  the mean of weights whose products with
 *   `nEmbd` values are about `value`
 * @returns {Tree}
 */
export function mixtureTensors({ nFf, experts }, nEmbd, roles, { matrix, vector, meanFor }) {
  const { nExperts, shared, routerNorm } = experts;
  /** Numbers on both sides of 0, one or a row for each expert. */
  const spread = (/** @type {number} */ n, /** @type {number} */ size) =>
    vector(n).map((value) => size * (4 * value - 4));
  const rows = (/** @type {number} */ nCols) => ({
    ...{ nRows: nExperts, nCols },
    values: spread(nExperts * nCols, 1),
  });
  const optional = {
    routerBias: () => spread(nExperts, 0.5),
    selectBias: () => spread(nExperts, 0.5),
    gateFactor: () => vector(nExperts),
    upFactor: () => vector(nExperts),
    downFactor: () => vector(nExperts),
    gateBias: () => rows(nFf),
    upBias: () => rows(nFf),
    downBias: () => rows(nEmbd),
  };
  const given = Object.entries(optional).filter(([role]) => roles.includes(role));
  return {
    router: routerOf(
      nExperts,
      nEmbd,
      spread(nExperts * nEmbd, ROUTER / Math.sqrt(nEmbd) / (routerNorm?.scale ?? 1)),
    ),
    ...Object.fromEntries(given.map(([role, make]) => [role, make()])),
    ...(routerNorm && { routerNorm: vector(nEmbd) }),
    ...(shared && {
      sharedGate: matrix(shared.nFf, nEmbd, meanFor(2, nEmbd)),
      sharedUp: matrix(shared.nFf, nEmbd, meanFor(2, nEmbd)),
      sharedDown: matrix(nEmbd, shared.nFf),
    }),
    ...(shared?.gated && { sharedRouter: matrix(1, nEmbd, meanFor(2, nEmbd), 'F32') }),
  };
}

/** @param {number} x */
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** @param {readonly number[]} logits */
function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** The sum of the two largest. @param {readonly number[]} values */
const bestTwo = (values) => {
  const [first, second = 0] = [...values].sort((a, b) => b - a);
  return first + second;
};

/**
 * The first n of a list by falling value, and how far the last of them is from the next.
 * @param {readonly number[]} values
 * @param {number} n
 */
function best(values, n) {
  const order = [...values.keys()].sort((a, b) => values[b] - values[a] || a - b);
  const margin = n < order.length ? values[order[n - 1]] - values[order[n]] : Number.POSITIVE_INFINITY;
  return { chosen: order.slice(0, n), margin };
}

/**
 * The experts of a token and their weights.
 * @param {readonly number[]} logits
 * @param {number} error  of each logit
 * @param {ExpertSettings} experts
 * @param {ArrayLike<number>} [selectBias]
 * @returns {{ chosen: number[], weights: number[], relative: number, clear: boolean }} relative: error
 *   of the weights; clear: rounding does not change the choice
 */
function choose(logits, error, { nExperts, nUsed, router }, selectBias) {
  const { scores: kind, over, normalize, scale, nGroups, nGroupsUsed } = router;
  const isLate = kind === 'softmax' && over === 'chosen';
  const scores = isLate ? logits : kind === 'sigmoid' ? logits.map(sigmoid) : softmax(logits);
  const relative = Math.expm1(2 * error) + 2 * (nExperts + 24) * u;
  const ranks = scores.map((score, e) => score + (selectBias?.[e] ?? 0));
  const off = ranks.map((rank, e) =>
    isLate ? error + u * Math.abs(rank) : relative * scores[e] + 4 * u * (scores[e] + Math.abs(rank)),
  );
  const most = 2 * Math.max(...off);
  const size = nExperts / nGroups;
  const sums = Array.from({ length: nGroups }, (_, g) => bestTwo(ranks.slice(g * size, (g + 1) * size)));
  const groups = best(sums, nGroupsUsed);
  const open = ranks.map((rank, e) =>
    groups.chosen.includes(Math.floor(e / size)) ? rank : Number.NEGATIVE_INFINITY,
  );
  const { chosen, margin } = best(open, nUsed);
  const own = chosen.map((e) => scores[e]);
  const weights = isLate ? softmax(own) : own;
  const sum = normalize ? weights.reduce((a, b) => a + b, 0) : 1;
  return {
    ...{ chosen, weights: weights.map((weight) => (weight / sum) * scale) },
    relative: (normalize ? 2 : 1) * relative + (nUsed + 4) * u,
    clear: margin > most && groups.margin > 2 * most,
  };
}

/** Values with their errors: magnitudes. @typedef {{ sizes: Float64Array, errors: Float64Array }} Sized */

/**
 * Rows of one expert: a product, its factor and its bias.
 * @param {Matrix} w
 * @param {{ first: number, nRows: number, factor: number,
 *   bias?: { values: Float32Array, at: number } | undefined }} rows
 * @param {number} size  the norm of what is multiplied
 * @param {number} error  of it
 * @param {typeof productError} errorOf
 * @returns {Sized}
 */
function product(w, { first, nRows, factor, bias }, size, error, errorOf) {
  const sizes = new Float64Array(nRows);
  const errors = new Float64Array(nRows);
  for (let r = 0; r < nRows; r++) {
    const norm = w.norm(first + r);
    const added = Math.abs(bias?.values[bias.at + r] ?? 0);
    sizes[r] = factor * norm * size + added;
    errors[r] = factor * (errorOf(w, first + r, 'f32') * (size + error) + norm * error) + 4 * u * sizes[r];
  }
  return { sizes, errors };
}

/**
 * act(gate) * up.
 * @param {FeedSettings['activation']} activation
 * @param {Sized} gate
 * @param {Sized} up
 */
function gatedSize(activation, gate, up) {
  let sizes = 0;
  let errors = 0;
  for (let f = 0; f < gate.sizes.length; f++) {
    const [a, ofA] = [gate.sizes[f], gate.errors[f]];
    const [v, ofV] = [up.sizes[f], up.errors[f]];
    const isClamped = activation === 'clamped';
    const squares = activation === 'relu2';
    const size = squares ? a * a : isClamped ? Math.min(a, 7) : a;
    const error = squares ? (2 * a + ofA) * ofA : SLOPE * ofA;
    const other = isClamped ? Math.min(v, 7) + 1 : v;
    sizes += (size * other) ** 2;
    errors += (error * (other + ofV) + size * ofV + 32 * u * size * other) ** 2;
  }
  return { size: Math.sqrt(sizes), error: Math.sqrt(errors) };
}

/**
 * Errors of a block's result for one hidden state, infinite where the choice is not clear.
 * @param {MixtureSettings} settings
 * @param {Tree} tree
 * @returns {(x: Float32Array) => Float64Array}
 */
export function mixtureErrors(settings, tree) {
  const { nFf, activation, experts, norm } = settings;
  const { routerNorm, nExperts, shared } = experts;
  const of = /** @type {Record<string, Matrix>} */ (/** @type {unknown} */ (tree));
  const vectors = /** @type {Record<string, Float32Array | undefined>} */ (/** @type {unknown} */ (tree));
  const values = /** @type {Record<string, Values | undefined>} */ (/** @type {unknown} */ (tree));
  const nEmbd = of.router.nCols;
  const { data } = of.router;
  const router = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
  const routerErrors = Array.from({ length: nExperts }, (_, e) => normedError(of.router, e, 'f32'));

  /** Size and error of an expert's results. */
  const results = (
    /** @type {'' | 'shared'} */ whose,
    /** @type {number} */ e,
    /** @type {number} */ normed,
  ) => {
    const nRows = whose ? of.sharedGate.nRows : nFf;
    const rowsOf = (/** @type {string} */ role, /** @type {number} */ n) => {
      const bias = whose ? undefined : values[`${role}Bias`]?.values;
      const factor = Math.abs((whose ? undefined : vectors[`${role}Factor`]?.[e]) ?? 1);
      return { first: e * n, nRows: n, factor, bias: bias && { values: bias, at: e * n } };
    };
    const matrix = (/** @type {string} */ role) =>
      whose ? of[`shared${role[0].toUpperCase()}${role.slice(1)}`] : of[role];
    const [gate, up] = ['gate', 'up'].map((role) =>
      product(matrix(role), rowsOf(role, nRows), normed, 0, normedError),
    );
    const { size, error } = gatedSize(activation, gate, up);
    return product(matrix('down'), rowsOf('down', nEmbd), size, error, productError);
  };

  return (x) => {
    const normedBy = (/** @type {{ eps: number } | undefined} */ by, /** @type {string} */ role) =>
      by ? normedSize(x, /** @type {Float32Array} */ (vectors[role]), by.eps) : normOf(x);
    const normed = normedBy(norm, 'norm');
    const [eps, gain] = routerNorm ? [routerNorm.eps, vectors.routerNorm] : [norm?.eps, vectors.norm];
    const by = eps === undefined ? 1 : 1 / Math.sqrt(normOf(x) ** 2 / nEmbd + eps);
    const scale = routerNorm?.scale ?? 1;
    const logits = Array.from({ length: nExperts }, (_, e) => {
      let sum = 0;
      for (let c = 0; c < nEmbd; c++)
        sum += x[c] * (eps === undefined ? 1 : (gain?.[c] ?? 0)) * router[e * nEmbd + c];
      return by * scale * sum + (vectors.routerBias?.[e] ?? 0);
    });
    const ofRouter = routerNorm ? normedBy(routerNorm, 'routerNorm') : normed;
    const largest = Math.max(...logits.map(Math.abs));
    const error = Math.abs(scale) * Math.max(...routerErrors) * ofRouter + 8 * u * largest;
    const { chosen, weights, relative, clear } = choose(logits, error, experts, vectors.selectBias);
    const errors = new Float64Array(nEmbd).fill(clear ? 0 : Number.POSITIVE_INFINITY);
    const add = (/** @type {Sized} */ of, /** @type {number} */ weight, /** @type {number} */ off) => {
      for (let c = 0; c < nEmbd; c++)
        errors[c] += Math.abs(weight) * (of.errors[c] + (off + 2 * (experts.nUsed + 2) * u) * of.sizes[c]);
    };
    for (const [s, e] of chosen.entries()) add(results('', e, normed), weights[s], relative);
    if (shared) {
      const off = shared.gated ? 2 * normedError(of.sharedRouter, 0, 'f32') * normed + 8 * u : 0;
      add(results('shared', 0, normed), 1, off);
    }
    return errors;
  };
}
