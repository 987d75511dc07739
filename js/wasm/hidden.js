/* The hidden states of a batch in wasm memory, and the work tensors of the blocks of a layer. All
 * are allocated once, for the largest batch (or part of one) and the widest layer. Smaller ones use
 * the first rows. */

import { latentCols, latentViews } from './latent.js';
import { workCols } from './recurrent/kinds.js';
import { viewOf } from './tensor-view.js';

/** @typedef {import('../backend.js').DeviceTensor} DeviceTensor */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernels.js').Kernels} Kernels */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').ExpertSettings} ExpertSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('../llama/plan.js').RecurrentSettings} RecurrentSettings */

/** Values of a token: in queries, and in keys or values. @param {AttentionSettings} attention */
export const widths = ({ nHeads, nKvHeads, headSize }) => ({ q: nHeads * headSize, kv: nKvHeads * headSize });

/** @param {Record<string, number>} cols */
export const sumOf = (cols) => Object.values(cols).reduce((sum, n) => sum + n, 0);

/**
 * Columns of the buffers of a block of experts: products with gate and up, which the shared expert
 * uses again; results of all experts of a token; logits. None, for other blocks.
 * @param {FeedSettings} feed
 * @param {number} nEmbd
 */
function expertCols({ nFf, experts }, nEmbd) {
  if (!experts) return { inner: 0, results: 0, logits: 0 };
  const { nExperts, nUsed, shared } = experts;
  return {
    inner: Math.max(nUsed * nFf, shared?.nFf ?? 0),
    results: (nUsed + (shared ? 1 : 0)) * nEmbd,
    logits: nExperts,
  };
}

/**
 * Columns of each buffer, for the widest layer. Hidden states and queries have rows for a whole
 * batch, the other buffers for a part of one.
 * @param {Plan} plan
 */
export function bufferCols({ nEmbd, layers, embedding }) {
  const most = (/** @type {(layer: Plan['layers'][0]) => number} */ of) => Math.max(...layers.map(of));
  const q = most(({ attention }) => (attention ? widths(attention).q : 0));
  const kv = most(({ attention }) => (attention ? widths(attention).kv : 0));
  const storesNorms = layers.some(
    ({ attention, feed }) => attention?.norm?.kind === 'layer' || feed.norm?.kind === 'layer' || feed.experts,
  );
  const inputSize = embedding.layerInputs?.size ?? 0;
  const ofExperts = layers.map(({ feed }) => expertCols(feed, nEmbd));
  const batch = {
    x: nEmbd,
    // Queries; later the block's result, which is added to x.
    q: Math.max(q, nEmbd),
    layerInputs: layers.length * inputSize,
    // Rows of a table; later values and gates of one layer.
    layerTable: Math.max(layers.length, 2) * inputSize,
  };
  const part = {
    k: kv,
    v: most(({ attention }) => (attention && !attention.latent ? widths(attention).kv : 0)),
    // All work tensors of latent attention.
    latent: most(({ attention }) => (attention ? latentCols(attention) : 0)),
    // The result of attention. Before and after it, hidden states after a norm.
    attended: storesNorms ? Math.max(q, nEmbd) : q,
    // The gate of that result.
    gate: most(({ attention }) => (attention?.outputGate ? widths(attention).q : 0)),
    // Between the products of a feed-forward block without a gate.
    inner: most(({ feed }) => (feed.kind === 'plain' ? feed.nFf : 0)),
    // All work tensors of a recurrent block; meanwhile the layer's queries stay in theirs.
    recurrent: most(({ recurrent }) => (recurrent ? sumOf(workCols(recurrent, nEmbd)) : 0)),
    expertGate: Math.max(...ofExperts.map(({ inner }) => inner)),
    expertUp: Math.max(...ofExperts.map(({ inner }) => inner)),
    expertResults: Math.max(...ofExperts.map(({ results }) => results)),
    expertLogits: Math.max(...ofExperts.map(({ logits }) => logits)),
  };
  return { batch, part };
}

/** More tokens than any step has. */
const LARGEST_STEP = 2 ** 26;

/** @implements {DeviceTensor} */
export class WasmHidden {
  /** @type {Record<string, Tensor>} */
  #buffers;
  #fm;
  #innerShape;
  /**
   * Views by step: those of one token, and those of the last larger batch.
   * @type {Map<number, Map<object, any>>}
   */
  #views = new Map();

  /**
   * @param {Kernels} fm
   * @param {Plan} plan
   * @param {{ batch: number, part: number }} sizes
   */
  constructor(fm, plan, { batch, part }) {
    /** @type {Record<string, Tensor>} */
    const buffers = {};
    try {
      const cols = bufferCols(plan);
      for (const [name, nCols] of Object.entries(cols.batch))
        if (nCols > 0) buffers[name] = fm.tensor({ nRows: batch, nCols });
      for (const [name, nCols] of Object.entries(cols.part))
        if (nCols > 0) buffers[name] = fm.tensor({ nRows: part, nCols });
    } catch (error) {
      for (const buffer of Object.values(buffers)) buffer.free();
      throw error;
    }
    this.#buffers = buffers;
    this.#fm = fm;
    this.#innerShape = {
      nRows: part,
      nCols: Math.max(...plan.layers.map(({ feed }) => (feed.kind === 'gated' ? feed.nFf : 0))),
    };
    this.nRows = batch;
    this.nCols = plan.nEmbd;
  }

  get freed() {
    return this.#buffers.x.freed;
  }

  free() {
    for (const buffer of Object.values(this.#buffers)) if (!buffer.freed) buffer.free();
  }

  /** Rows of the hidden states. @param {import('../backend.js').Rows} rows */
  rows(rows) {
    return viewOf(this.#buffers.x, rows);
  }

  /**
   * Hidden states, and a tensor of the same shape for the result that is added to them.
   * @param {{ start: number, nTokens: number }} step
   */
  states(step) {
    return this.#cached(step, this, () => {
      const { start, nTokens: nRows } = step;
      return {
        x: viewOf(this.#buffers.x, { start, nRows }),
        added: viewOf(this.#queries(step), { nRows, nCols: this.nCols }),
      };
    });
  }

  /**
   * Memory for the values that every layer gets beside the hidden states.
   * @param {{ start: number, nTokens: number }} step
   * @param {number} size  values of a layer
   * @returns {import('./layer-inputs.js').InputWork}
   */
  layerInputs(step, size) {
    const { layerInputs, layerTable } = this.#buffers;
    return this.#cached(step, layerInputs, () => {
      const { start, nTokens: nRows } = step;
      const rows = viewOf(layerTable, { start, nRows });
      return {
        all: viewOf(layerInputs, { start, nRows }),
        table: viewOf(rows, { nRows, nCols: layerInputs.nCols }),
        own: viewOf(rows, { nRows, nCols: size }),
        gate: viewOf(rows, { start: nRows, nRows, nCols: size }),
      };
    });
  }

  /**
   * The buffers in the shapes of an attention layer.
   * @param {{ start: number, nTokens: number }} step
   * @param {AttentionSettings} attention
   */
  attention(step, attention) {
    return this.#cached(step, attention, () => {
      const { k, v, attended, gate } = this.#buffers;
      const { nHeads, nKvHeads, headSize, latent, kvBack = 0 } = attention;
      const own = kvBack > 0 ? [] : latent ? [k] : [k, v];
      const cols = widths(attention);
      const nRows = step.nTokens;
      const q = this.#queries(step);
      const ofHeads = { nRows: nRows * nKvHeads, nCols: headSize };
      // Keys and values only where they are the layer's own.
      return {
        qkv: [
          viewOf(q, { nRows, nCols: cols.q }),
          ...own.map((one) => viewOf(one, { nRows, nCols: cols.kv })),
        ],
        heads: [
          viewOf(q, { nRows: nRows * nHeads, nCols: headSize }),
          ...own.map((one) => viewOf(one, ofHeads)),
        ],
        attended: viewOf(attended, { nRows, nCols: cols.q }),
        latent: latent && latentViews(this.#buffers.latent, nRows, attention),
        gate: attention.outputGate ? viewOf(gate, { nRows, nCols: cols.q }) : undefined,
      };
    });
  }

  /**
   * Work memory of a recurrent block: a tensor by name, each with a row for every token, and `added`
   * for the result.
   * @param {{ start: number, nTokens: number }} step
   * @param {RecurrentSettings} recurrent
   * @returns {Record<string, Tensor>}
   */
  recurrent(step, recurrent) {
    return this.#cached(step, recurrent, () => {
      const { nTokens: nRows } = step;
      /** @type {Record<string, Tensor>} */
      const work = {};
      let at = 0;
      for (const [name, nCols] of Object.entries(workCols(recurrent, this.nCols))) {
        const values = viewOf(this.#buffers.recurrent, { start: at, nRows: nRows * nCols, nCols: 1 });
        work[name] = viewOf(values, { nRows, nCols });
        at += nRows * nCols;
      }
      return work;
    });
  }

  /**
   * Work memory of a feed-forward block without a gate.
   * @param {{ start: number, nTokens: number }} step
   * @param {import('../llama/plan.js').FeedSettings} feed
   */
  inner(step, feed) {
    return this.#cached(step, feed, () =>
      viewOf(this.#buffers.inner, { nRows: step.nTokens, nCols: feed.nFf }),
    );
  }

  /**
   * Work memory for two products of a feed-forward block with a gate. It is allocated when it is
   * first needed, for models whose matrices have factors: they do not use the workspace of the fused
   * block, which has the same size.
   * @param {{ start: number, nTokens: number }} step
   * @param {import('../llama/plan.js').FeedSettings} feed
   */
  gated(step, feed) {
    return this.#cached(step, feed, () => {
      const shape = { nRows: step.nTokens, nCols: feed.nFf };
      return ['gate', 'up'].map((name) => viewOf(this.#workspace(name), shape));
    });
  }

  /**
   * The buffers in the shapes of a block of experts. gate, up and routed have a row for each pair
   * of a token and an expert, results has those of the shared expert behind them.
   * @param {{ start: number, nTokens: number }} step
   * @param {FeedSettings} feed
   */
  experts(step, feed) {
    return this.#cached(step, feed, () => {
      const { nTokens } = step;
      const { nExperts, nUsed, shared } = /** @type {ExpertSettings} */ (feed.experts);
      const { expertGate, expertUp, expertResults, expertLogits } = this.#buffers;
      const nPairs = nTokens * nUsed;
      const inner = { nRows: nPairs, nCols: feed.nFf };
      const { nCols } = this;
      const results = viewOf(expertResults, { nRows: nPairs + (shared ? nTokens : 0), nCols });
      return {
        logits: viewOf(expertLogits, { nRows: nTokens, nCols: nExperts }),
        gate: viewOf(expertGate, inner),
        up: viewOf(expertUp, inner),
        routed: viewOf(expertResults, { nRows: nPairs, nCols }),
        results,
        shared: shared && {
          gate: viewOf(expertGate, { nRows: nTokens, nCols: shared.nFf }),
          up: viewOf(expertUp, { nRows: nTokens, nCols: shared.nFf }),
          out: viewOf(results, { start: nPairs, nRows: nTokens }),
          logits: viewOf(expertLogits, { nRows: nTokens, nCols: 1 }),
        },
      };
    });
  }

  /** @param {string} name */
  #workspace(name) {
    this.#buffers[name] ??= this.#fm.tensor(this.#innerShape);
    return this.#buffers[name];
  }

  /**
   * The rows of a step in the buffer of queries, whatever part of a row the step uses.
   * @param {{ start: number, nTokens: number }} step
   */
  #queries({ start, nTokens }) {
    return viewOf(this.#buffers.q, { start, nRows: nTokens });
  }

  /**
   * A work tensor of the shape of some hidden states, for use outside of attention.
   * @param {number} nRows
   */
  normed(nRows) {
    return viewOf(this.#buffers.attended, { nRows, nCols: this.nCols });
  }

  /**
   * @template T
   * @param {{ start: number, nTokens: number }} step
   * @param {object} key
   * @param {() => T} make
   * @returns {T}
   */
  #cached({ start, nTokens }, key, make) {
    const step = start * LARGEST_STEP + nTokens;
    let views = this.#views.get(step);
    if (!views) {
      // A new batch begins: only the views of one token, for decoding, are kept.
      if (start === 0) for (const other of this.#views.keys()) if (other !== 1) this.#views.delete(other);
      views = new Map();
      this.#views.set(step, views);
    }
    let found = views.get(key);
    if (found === undefined) {
      found = make();
      views.set(key, found);
    }
    return found;
  }
}
