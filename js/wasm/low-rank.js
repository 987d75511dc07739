/* Low-rank additions to products, as LoRA adapters make them: y += scale * (x * a^T) * b^T. The kernels
 * of a model with additions are those of the device, except for products with the matrices that get
 * some, and rows of tables that do. The products with a join the call that multiplies by the matrix. */

import { ModelError } from '../llama/errors.js';
import { aloneIn, MOST_ALONE } from './core.js';
import { lowRankWork } from './fit.js';
import { viewOf } from './tensor-view.js';

/** @typedef {import('../backend.js').LoadedWeights} LoadedWeights */
/** @typedef {import('../backend.js').Weights} Weights */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./handles.js').Weight} Weight */
/** @typedef {import('./kernel-types.js').Routing} Routing */
/** @typedef {import('./kernels.js').Kernels} Kernels */
/** @typedef {import('./selftest.js').Activation} Activation */

/**
 * A block multiplies the whole product by the factor of its matrix, where there is one, so additions are
 * divided by it; experts have a factor each.
 * @typedef {{ a: Weight, b: Weight, scale: number, factors?: Float32Array }} Addition
 */

/** The weight of a role. @param {Weights} weights @param {string} role @returns {any} */
const at = (weights, role) => role.split('.').reduce((tree, part) => tree?.[part], weights);

/**
 * The additions of a plan, by the weight that they belong to: those to products with a matrix, and those
 * to the rows of a table, which may be the same weight.
 * @param {Plan} plan
 * @param {Weights} byRole
 */
function additionsOf({ lowRank = [], tensors }, byRole) {
  const tables = new Set(tensors.filter(({ use }) => use === 'table').map(({ role }) => role));
  /** @type {Record<'products' | 'tables', Map<Weight, Addition[]>>} */
  const all = { products: new Map(), tables: new Map() };
  for (const { of, a, b, scale } of lowRank) {
    const weight = at(byRole, of);
    if (!weight) continue;
    const map = tables.has(of) ? all.tables : all.products;
    const factor = at(byRole, `${of}Factor`) ?? 1;
    const own = typeof factor === 'number' ? { scale: scale / factor } : { scale, factors: factor.toArray() };
    if (factor === 0 || own.factors?.includes(0))
      throw new ModelError(`an adapter cannot be added to ${of}: its factor is 0`);
    const addition = { a: at(byRole, a), b: at(byRole, b), ...own };
    const others = map.get(weight) ?? [];
    // Roles that share a whole matrix have the same weight.
    if (!others.some((one) => one.a === addition.a && one.b === addition.b))
      map.set(weight, [...others, addition]);
  }
  return all;
}

/** Work memory that grows where it must. */
class Work {
  #fm;
  /** @type {Tensor} */
  #tensor;

  /** @param {Kernels} fm @param {number} n  values that are likely to be needed */
  constructor(fm, n) {
    this.#fm = fm;
    this.#tensor = fm.tensor({ nRows: 1, nCols: n });
  }

  get length() {
    return this.#tensor.length;
  }

  /**
   * Makes a tensor for each number of columns, one after another in the memory.
   * @param {number} nRows
   * @param {readonly number[]} cols
   */
  take(nRows, cols) {
    const n = cols.reduce((sum, nCols) => sum + nRows * nCols, 0);
    if (n > this.length) {
      const larger = this.#fm.tensor({ nRows: 1, nCols: n });
      this.#tensor.free();
      this.#tensor = larger;
    }
    let start = 0;
    return cols.map((nCols) => {
      const values = viewOf(this.#tensor, { start, nRows: nRows * nCols, nCols: 1 });
      start += nRows * nCols;
      return viewOf(values, { nRows, nCols });
    });
  }

  free() {
    if (!this.#tensor.freed) this.#tensor.free();
  }
}

/**
 * Makes kernels for a model with additions, and weights that free the work memory with themselves.
 * @param {Kernels} fm
 * @param {Plan} plan
 * @param {LoadedWeights} weights  freed if there is no work memory
 * @param {Activation} activation  mode of all products
 * @returns {{ kernels: Kernels, weights: LoadedWeights }}
 */
export function adapt(fm, plan, weights, activation) {
  const { byRole } = weights;
  /** @type {Work[]} */
  const works = [];
  const free = () => {
    for (const work of works) work.free();
    weights.free();
  };
  try {
    const { inner, outer } = lowRankWork(plan);
    for (const n of [inner, outer]) works.push(new Work(fm, n));
    const [between, results] = works;
    const kernels = kernelsWith(fm, additionsOf(plan, byRole), { between, results }, activation);
    const adapted = {
      byRole,
      free,
      get freed() {
        return weights.freed;
      },
    };
    return { kernels, weights: adapted };
  } catch (error) {
    free();
    throw error;
  }
}

/**
 * Makes the kernels.
 * @param {Kernels} fm
 * @param {ReturnType<typeof additionsOf>} additions
 * @param {{ between: Work, results: Work }} works  for the results of a, and of b
 * @param {Activation} activation  mode of products for embeddings
 * @returns {Kernels}
 */
function kernelsWith(fm, { products, tables }, { between: inner, results: outer }, activation) {
  /**
   * y += scale * t * b^T, some rows at a time.
   * @param {Tensor} y
   * @param {Tensor} t
   * @param {Addition} addition
   * @param {Activation} mode
   */
  const add = (y, t, { b, scale }, mode) => {
    const step = Math.max(1, Math.floor(outer.length / b.nRows));
    for (let start = 0; start < y.nRows; start += step) {
      const rows = { start, nRows: Math.min(step, y.nRows - start) };
      const [out] = outer.take(rows.nRows, [b.nRows]);
      const to = viewOf(y, rows);
      fm.fusedMatmul(b, viewOf(t, rows), { out, activation: mode });
      fm.addScaled(to, out, scale, { out: to });
    }
  };

  /**
   * y_i += scale_i * t_i * b_i^T with the matrices of experts: the rows are those of the routing.
   * @param {Tensor} y
   * @param {Tensor} t
   * @param {Addition} addition
   * @param {Activation} mode
   * @param {Routing} routing
   */
  const addExperts = (y, t, { b, scale, factors }, mode, { rows, ...routing }) => {
    const inOrder = { ...routing, nTokens: rows.length, rows: rows.map((_, i) => i) };
    const [out] = outer.take(y.nRows, [y.nCols]);
    fm.fusedMatmulExperts([b], t, inOrder, { out: [out], activation: mode });
    if (!factors) {
      fm.addScaled(y, out, scale, { out: y });
      return;
    }
    let start = 0;
    for (const [e, end] of routing.ends.entries()) {
      if (end === start) continue;
      const [to, of] = [y, out].map((one) => viewOf(one, { start, nRows: end - start }));
      fm.addScaled(to, of, scale / factors[e], { out: to });
      start = end;
    }
  };

  /**
   * Products with several matrices, and with the matrices a of their additions in the same call.
   * @param {readonly Weight[]} weights
   * @param {Tensor[]} out
   * @param {number} share  what a product with a has of its rows: 1, or one expert of so many
   * @param {(weights: Weight[], out: Tensor[]) => void} run
   * @param {(y: Tensor, t: Tensor, addition: Addition, mode: Activation) => void} finish
   * @param {Activation} mode
   */
  const multiply = (weights, out, share, run, finish, mode) => {
    const lists = weights.map((w) => products.get(w) ?? []);
    // Matrices that are rows of the same tensor share their a.
    const firsts = [...new Set(lists.flat().map(({ a }) => a))];
    const between = inner.take(
      out[0].nRows,
      firsts.map((a) => a.nRows / share),
    );
    run([...weights, ...firsts], [...out, ...between]);
    for (const [i, list] of lists.entries())
      for (const one of list) finish(out[i], between[firsts.indexOf(one.a)], one, mode);
    return out;
  };

  /** @type {Record<string, Function>} */
  const own = {
    /** @type {(...args: any[]) => any} */
    fusedMatmul(w, x, options = {}) {
      if (!products.has(w)) return fm.fusedMatmul(w, x, options);
      const { out, ...rest } = options;
      if (!(x instanceof Float32Array)) return own.fusedMatmulMany([w], x, { ...rest, out: [out] })[0];
      const y = fm.fusedMatmul(w, x, rest);
      for (const { a, b, scale } of products.get(w) ?? []) {
        const added = fm.fusedMatmul(b, fm.fusedMatmul(a, x, rest), rest);
        for (const [i, value] of added.entries()) y[i] += scale * value;
      }
      return y;
    },
    /** @type {(...args: any[]) => any} */
    fusedMatmulMany(weights, x, { out, ...options }) {
      const run = (/** @type {Weight[]} */ all, /** @type {Tensor[]} */ to) =>
        fm.fusedMatmulMany(all, x, { ...options, out: to });
      return multiply(weights, out, 1, run, add, options.activation);
    },
    /** @type {(...args: any[]) => any} */
    fusedRmsNormMatmul(weights, x, norm, { out, ...options }) {
      const run = (/** @type {Weight[]} */ all, /** @type {Tensor[]} */ to) =>
        fm.fusedRmsNormMatmul(all, x, norm, { ...options, out: to });
      return multiply(weights, out, 1, run, add, options.activation);
    },
    /** @type {(...args: any[]) => any} */
    fusedSwigluMatmul(w, gate, up, { out, ...options }) {
      fm.fusedSwigluMatmul(w, gate, up, { ...options, out });
      for (const one of products.get(w) ?? []) {
        const [t] = inner.take(out.nRows, [one.a.nRows]);
        fm.fusedSwigluMatmul(one.a, gate, up, { ...options, out: t });
        add(out, t, one, options.activation);
      }
      return out;
    },
    /** @type {(...args: any[]) => any} */
    fusedMatmulExperts(weights, x, routing, { out, biases = [], ...options }) {
      const run = (/** @type {Weight[]} */ all, /** @type {Tensor[]} */ to) =>
        fm.fusedMatmulExperts(all, x, routing, { ...options, biases: all.map((_, i) => biases[i]), out: to });
      const finish = (/** @type {Tensor} */ y, /** @type {Tensor} */ t, /** @type {Addition} */ one) =>
        addExperts(y, t, one, options.activation, routing);
      return multiply(weights, out, routing.ends.length, run, finish, options.activation);
    },
    /** @type {(...args: any[]) => any} */
    embed(table, ids, { out }) {
      fm.embed(table, ids, { out });
      for (const one of tables.get(table) ?? []) {
        const [t] = inner.take(ids.length, [one.a.nCols]);
        fm.embed(one.a, ids, { out: t });
        // So few tokens may be those of a step whose rows have the bits of single ones.
        add(out, t, one, ids.length <= MOST_ALONE ? aloneIn(activation) : activation);
      }
      return out;
    },
  };

  const methods = new Map(Object.entries(own));
  // Everything else is done by the kernels themselves.
  return new Proxy(fm, {
    get(target, name) {
      const method = methods.get(String(name));
      if (method) return method;
      const value = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
