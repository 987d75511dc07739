/* The forward pass: tokens and their positions to logits, by the operations of fused-matmul/layer alone.
 *
 *   x = embedding[tokens]
 *   for each layer:  q, k, v = norm(x) Wqkv^T (+ bias); q, k = norm by head; q, k = rope; the cache takes k and v
 *                    x += attention(q, cache) Wo^T;  x += (silu(h gate^T) * (h up^T)) down^T, h = norm(x)
 *   logits = norm(x) output^T
 *
 * All tensors are made once, for the largest batch; a smaller one uses their first rows. */

import { viewOf } from '../wasm/tensor-view.js';
import { kvRowBytes } from './weights.js';

/** @typedef {import('../wasm/fused.js').FusedKernels} Kernels */
/** @typedef {import('../wasm/handles.js').Tensor} Tensor */
/** @typedef {import('../wasm/kv-cache.js').KvCache} KvCache */
/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */
/** @typedef {import('../wasm/selftest.js').Activation} Activation */
/** @typedef {import('./architectures/index.js').Hyperparameters} Hyperparameters */
/** @typedef {import('./pause.js').Pace} Pace */
/** @typedef {import('./weights.js').Weights} Weights */

/** Products decode a weight once for so many tokens, and for a rest of them again: a batch is a multiple of it, or a part. */
const TOKEN_BLOCK = 128;
const LARGEST_BATCH = 4 * TOKEN_BLOCK;
const SMALLEST_BATCH = 32;
/** What tensors and the feed-forward block's workspace of a batch may take: of one block of tokens, of several. */
const BLOCK_BYTES = 22e6;
const BLOCKS_BYTES = 10e6;
/** Rows of logits that are held at a time where those of every token are asked for. */
const LOGIT_BYTES = 2e6;

/** @param {Hyperparameters} shape  @returns {{ q: number, kv: number, wide: number }} values of a token */
const widths = ({ nEmbd, nHeads, nKvHeads, headSize }) => {
  const q = nHeads * headSize;
  return { q, kv: nKvHeads * headSize, wide: Math.max(q, nEmbd) };
};

/** @param {Hyperparameters} shape */
const tokenBytes = (shape) => {
  const { q, kv, wide } = widths(shape);
  return 4 * (shape.nEmbd + wide + q + 2 * kv + 2 * shape.nFf);
};

/**
 * What a decoder takes in memory beside weights.
 * @param {Hyperparameters} shape
 * @param {{ contextLength: number, kvType: KvType, nVocab: number }} options
 */
export function decoderMemory(shape, { contextLength, kvType, nVocab }) {
  const fitting = (/** @type {number} */ bytes, /** @type {number} */ step) =>
    step * Math.floor(bytes / tokenBytes(shape) / step);
  const blocks = Math.min(LARGEST_BATCH, fitting(BLOCKS_BYTES, TOKEN_BLOCK));
  const part = Math.max(SMALLEST_BATCH, Math.min(TOKEN_BLOCK, fitting(BLOCK_BYTES, SMALLEST_BATCH)));
  const batch = Math.min(contextLength, Math.max(blocks, part));
  const kvBytes = 2 * shape.nLayers * contextLength * kvRowBytes(kvType, widths(shape).kv);
  const logitRows = Math.max(1, Math.min(batch, Math.floor(LOGIT_BYTES / (4 * nVocab))));
  return { batch, logitRows, kvBytes, workspaceBytes: batch * tokenBytes(shape) + 4 * logitRows * nVocab };
}

export class Decoder {
  #fm;
  #shape;
  #weights;
  #activation;
  /** @type {(KvCache | Tensor)[]} */
  #owned = [];
  /** @type {{ keys: KvCache, values: KvCache }[]} */
  #caches = [];
  #buffers;
  /** Views of the buffers for a batch of one token, and for the last other size. */
  #one;
  #many;
  #ropeOptions;

  /**
   * @param {Kernels} fm
   * @param {Hyperparameters} shape
   * @param {Weights} weights
   * @param {{ contextLength: number, kvType: KvType, activation: Activation }} options
   */
  constructor(fm, shape, weights, { contextLength, kvType, activation }) {
    this.#fm = fm;
    this.#shape = shape;
    this.#weights = weights;
    this.#activation = activation;
    const nVocab = weights.output.nRows;
    const memory = decoderMemory(shape, { contextLength, kvType, nVocab });
    const { batch, logitRows } = memory;
    this.kvBytes = memory.kvBytes;
    this.workspaceBytes = memory.workspaceBytes;
    /** The most tokens that forward takes. */
    this.batch = batch;
    /** Rows of logits that logitsOf gives at a time, at most. */
    this.logitRows = logitRows;
    const { q, kv, wide } = widths(shape);
    const own = (/** @type {any} */ handle) => {
      this.#owned.push(handle);
      return handle;
    };
    try {
      const { nKvHeads, headSize } = shape;
      const cache = { type: kvType, nPositions: contextLength, nKvHeads, headSize };
      for (const _ of weights.layers) {
        this.#caches.push({ keys: own(fm.kvCache(cache)), values: own(fm.kvCache(cache)) });
      }
      const tensor = (/** @type {number} */ nRows, /** @type {number} */ nCols) =>
        /** @type {Tensor} */ (own(fm.tensor({ nRows, nCols })));
      this.#buffers = {
        x: tensor(batch, shape.nEmbd),
        // Queries, later what the projection of the heads gives.
        q: tensor(batch, wide),
        k: tensor(batch, kv),
        v: tensor(batch, kv),
        attended: tensor(batch, q),
        logits: tensor(logitRows, nVocab),
      };
    } catch (error) {
      this.free();
      throw error;
    }
    this.#one = this.#views(1);
    this.#many = this.#one;
    const { nDims, base, linearScale } = shape.rope;
    const { pairing } = shape.row;
    const factors = weights.ropeFactors;
    this.#ropeOptions = { headSize: shape.headSize, nDims, base, linearScale, pairing, factors };
  }

  /**
   * Runs tokens through all layers; keys and values go into the cache.
   * @param {readonly number[]} tokens  at most `batch`
   * @param {number} position  of the first
   * @param {Pace} pace
   */
  async forward(tokens, position, pace) {
    const fm = this.#fm;
    const { eps, row } = this.#shape;
    const activation = this.#activation;
    const views = this.#viewsOf(tokens.length);
    const { x, qkv, headed, attended, projected } = views;
    const [q, k, v] = qkv;
    const rope = { ...this.#ropeOptions, position };
    fm.embed(this.#weights.embedding, tokens, { out: x });
    for (const [i, layer] of this.#weights.layers.entries()) {
      if (pace.due) await pace.rest();
      const { keys, values } = this.#caches[i];
      fm.fusedRmsNormMatmul(layer.qkv, x, layer.attnNorm, { eps, out: qkv, activation });
      layer.bias.forEach((bias, j) => {
        if (bias) this.#addBias(qkv[j], bias, views);
      });
      if (row.headNorm) {
        headed.forEach((heads, j) => {
          fm.rmsNorm(heads, layer.headNorm[j], { eps, out: heads });
        });
      }
      fm.rope(q, { ...rope, out: q });
      fm.rope(k, { ...rope, out: k });
      keys.write(k, position);
      values.write(v, position);
      fm.flashAttention(q, keys, values, { firstPosition: position, out: attended });
      if (tokens.length > 1 && pace.due) await pace.rest();
      fm.fusedMatmul(layer.output, attended, { out: projected, activation });
      fm.add(x, projected, { out: x });
      fm.fusedFfn(layer.ffn, x, { eps, residual: true, out: x, activation });
    }
  }

  /**
   * Logits of some of the tokens of the last forward.
   * @param {number} start  the first, counted from the batch's first
   * @param {number} nRows  at most `logitRows`
   * @returns {Tensor}  of the decoder; valid until the next call
   */
  logitsOf(start, nRows) {
    const { eps } = this.#shape;
    const { norm, output } = this.#weights;
    const activation = this.#activation;
    const { x, logits } = this.#buffers;
    const out = viewOf(logits, { nRows });
    this.#fm.fusedRmsNormMatmul([output], viewOf(x, { start, nRows }), norm, { eps, out: [out], activation });
    return out;
  }

  /**
   * The hidden states of the last forward after the final norm: what the output matrix would see.
   * @param {number} nRows  tokens of that forward
   * @returns {Float32Array}
   */
  hidden(nRows) {
    const { norm } = this.#weights;
    const normed = viewOf(this.#buffers.q, { nRows, nCols: this.#shape.nEmbd });
    this.#fm.rmsNorm(viewOf(this.#buffers.x, { nRows }), norm, { eps: this.#shape.eps, out: normed });
    return normed.toArray();
  }

  /** Frees caches and tensors. */
  free() {
    for (const handle of this.#owned) if (!handle.freed) handle.free();
  }

  /** @param {number} nTokens */
  #viewsOf(nTokens) {
    if (nTokens === 1) return this.#one;
    if (this.#many.nTokens !== nTokens) this.#many = this.#views(nTokens);
    return this.#many;
  }

  /** The buffers as a batch of nTokens uses them. @param {number} nTokens */
  #views(nTokens) {
    const { nEmbd, nHeads, nKvHeads, headSize } = this.#shape;
    const { x, q, k, v, attended } = this.#buffers;
    const nRows = nTokens;
    const qCols = nHeads * headSize;
    return {
      nTokens,
      x: viewOf(x, { nRows }),
      qkv: [viewOf(q, { nRows, nCols: qCols }), viewOf(k, { nRows }), viewOf(v, { nRows })],
      headed: [
        viewOf(q, { nRows: nRows * nHeads, nCols: headSize }),
        viewOf(k, { nRows: nRows * nKvHeads, nCols: headSize }),
      ],
      attended: viewOf(attended, { nRows }),
      projected: viewOf(q, { nRows, nCols: nEmbd }),
      firstRows: new Uint32Array(nTokens),
    };
  }

  /**
   * Adds a bias to every row. For several it is copied to as many first; attention has not filled its buffer yet.
   * @param {Tensor} x
   * @param {import('./weights.js').Bias} bias
   * @param {{ nTokens: number, firstRows: Uint32Array }} views
   */
  #addBias(x, { weight, tensor }, { nTokens, firstRows }) {
    const fm = this.#fm;
    if (nTokens === 1) {
      fm.add(x, tensor, { out: x });
      return;
    }
    const rows = viewOf(this.#buffers.attended, { nRows: nTokens, nCols: weight.nCols });
    fm.add(x, fm.embed(weight, firstRows, { out: rows }), { out: x });
  }
}
