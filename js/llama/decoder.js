/* The forward pass: tokens and their positions to logits, by the operations of fused-matmul/layer alone.
 *
 *   x = embedding[tokens]
 *   for each layer:  q, k, v = norm(x) Wqkv^T (+ bias); q, k = norm by head; q, k = rope; the cache takes k and v
 *                    x += attention(q, cache) Wo^T;  x += (silu(h gate^T) * (h up^T)) down^T, h = norm(x)
 *   logits = norm(x) output^T
 *
 * All tensors are made once, for the largest batch; a smaller one uses their first rows. Where attention is not causal, a token sees
 * all others: a batch is a whole text then, taken in blocks of tokens, first all their keys and values, then all the rest. */

import { viewOf } from '../wasm/tensor-view.js';
import { NumericError } from './errors.js';
import { checkNumbers, KV_LARGEST } from './numeric.js';
import { kvRowBytes } from './weights.js';

/** @typedef {import('../wasm/fused.js').FusedKernels} Kernels */
/** @typedef {import('../wasm/handles.js').Tensor} Tensor */
/** @typedef {import('../wasm/kv-cache.js').KvCache} KvCache */
/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */
/** @typedef {import('../wasm/selftest.js').Activation} Activation */
/** @typedef {import('./architectures/index.js').Hyperparameters} Hyperparameters */
/** @typedef {import('./pause.js').Pace} Pace */
/** @typedef {import('./weights.js').Layer} Layer */
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
const QKV = /** @type {const} */ (['queries', 'keys', 'values']);

/** @param {Hyperparameters} shape  @returns {{ q: number, kv: number, wide: number }} values of a token */
const widths = ({ nEmbd, nHeads, nKvHeads, headSize }) => {
  const q = nHeads * headSize;
  return { q, kv: nKvHeads * headSize, wide: Math.max(q, nEmbd) };
};

/** Bytes of a token of a batch, and what a block of tokens takes beside them for each. @param {Hyperparameters} shape */
const tokenBytes = (shape) => {
  const { q, kv, wide } = widths(shape);
  return { batch: 4 * (shape.nEmbd + wide), block: 4 * (q + 2 * kv + 2 * shape.nFf) };
};

/**
 * What a decoder takes in memory beside weights.
 * @param {Hyperparameters} shape
 * @param {{ contextLength: number, kvType: KvType, nVocab: number, causal: boolean }} options
 */
export function decoderMemory(shape, { contextLength, kvType, nVocab, causal }) {
  const bytes = tokenBytes(shape);
  const fitting = (/** @type {number} */ budget, /** @type {number} */ step) =>
    step * Math.floor(budget / (bytes.batch + bytes.block) / step);
  const blocks = Math.min(LARGEST_BATCH, fitting(BLOCKS_BYTES, TOKEN_BLOCK));
  const part = Math.max(SMALLEST_BATCH, Math.min(TOKEN_BLOCK, fitting(BLOCK_BYTES, SMALLEST_BATCH)));
  const block = Math.min(contextLength, Math.max(blocks, part));
  const batch = causal ? block : contextLength;
  const kvBytes = 2 * shape.nLayers * contextLength * kvRowBytes(kvType, widths(shape).kv);
  const logitRows = Math.max(1, Math.min(block, Math.floor(LOGIT_BYTES / (4 * nVocab))));
  const workspaceBytes = batch * bytes.batch + block * bytes.block + 4 * logitRows * nVocab;
  return { batch, block, logitRows, kvBytes, workspaceBytes };
}

/**
 * A part of a batch: the buffers as it uses them.
 * @typedef {object} Block
 * @property {number} start  its first token, counted from the batch's first
 * @property {number} nTokens
 * @property {Tensor} x
 * @property {Tensor[]} qkv
 * @property {Tensor[]} headed  queries and keys, a row for each head
 * @property {Tensor} attended
 * @property {Tensor} projected  in the place of the queries
 * @property {Uint32Array} firstRows  zeros
 */

export class Decoder {
  #fm;
  #shape;
  #weights;
  #settings;
  #block;
  /** The position of the first token of the last forward. */
  #position = 0;
  /** @type {(KvCache | Tensor)[]} */
  #owned = [];
  /** @type {{ keys: KvCache, values: KvCache }[]} */
  #caches = [];
  #buffers;
  /** The blocks of a batch of one token, and of the last other size. */
  #one;
  #many;
  #ropeOptions;

  /**
   * @param {Kernels} fm
   * @param {Hyperparameters} shape
   * @param {Weights} weights
   * @param {{ contextLength: number, kvType: KvType, activation: Activation, causal: boolean }} settings
   */
  constructor(fm, shape, weights, settings) {
    const { contextLength, kvType, causal } = settings;
    this.#fm = fm;
    this.#shape = shape;
    this.#weights = weights;
    this.#settings = settings;
    const nVocab = weights.output.nRows;
    const memory = decoderMemory(shape, { contextLength, kvType, nVocab, causal });
    const { batch, block, logitRows } = memory;
    this.kvBytes = memory.kvBytes;
    this.workspaceBytes = memory.workspaceBytes;
    /** The most tokens that forward takes. */
    this.batch = batch;
    this.#block = block;
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
        k: tensor(block, kv),
        v: tensor(block, kv),
        attended: tensor(block, q),
        logits: tensor(logitRows, nVocab),
      };
    } catch (error) {
      this.free();
      throw error;
    }
    this.#one = this.#blocksOf(1);
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
   * @throws {NumericError} a number is NaN, infinite, or too large for the cache
   */
  async forward(tokens, position, pace) {
    this.#position = position;
    try {
      await this.#pass(tokens, pace, false);
    } catch (error) {
      // A NaN spreads. It is traced by a second pass, which looks at the result of every step.
      if (error instanceof NumericError && !Number.isFinite(error.value))
        await this.#pass(tokens, pace, true);
      throw error;
    }
  }

  /**
   * @param {readonly number[]} tokens
   * @param {Pace} pace
   * @param {boolean} traced  looks for NaN and infinity after every step, not only in what the cache takes and at the end
   */
  async #pass(tokens, pace, traced) {
    const { embedding, layers } = this.#weights;
    const { eps } = this.#shape;
    const { activation, causal } = this.#settings;
    const blocks = this.#viewsOf(tokens.length);
    const batch = viewOf(this.#buffers.x, { nRows: tokens.length });
    const fm = this.#fm;
    const first = this.#position;
    const seen = causal ? {} : { causal, nPositions: first + tokens.length };
    fm.embed(embedding, tokens, { out: batch });
    if (traced) this.#check(batch, 'embedding');
    for (const [i, layer] of layers.entries()) {
      const { keys, values } = this.#caches[i];
      // All keys and values of the batch are there before a token that may see them attends.
      for (const block of blocks) {
        if (pace.due) await pace.rest();
        this.#project(i, layer, block);
      }
      for (const block of blocks) {
        const { x, qkv, attended, projected, start } = block;
        fm.flashAttention(qkv[0], keys, values, { firstPosition: first + start, ...seen, out: attended });
        if (tokens.length > 1 && pace.due) await pace.rest();
        fm.fusedMatmul(layer.output, attended, { out: projected, activation });
        fm.add(x, projected, { out: x });
        if (traced) this.#check(x, 'attention', i, start);
        fm.fusedFfn(layer.ffn, x, { eps, residual: true, out: x, activation });
        if (traced) this.#check(x, 'feed-forward', i, start);
      }
    }
    // The sums of a layer keep a NaN of any of those before.
    if (!traced) this.#check(batch, 'feed-forward', layers.length - 1);
  }

  /** Queries, keys and values; the cache takes the latter. @param {number} i @param {Layer} layer @param {Block} block */
  #project(i, layer, block) {
    const fm = this.#fm;
    const { eps, row } = this.#shape;
    const { activation, kvType } = this.#settings;
    const { x, qkv, headed, start } = block;
    const [q, k, v] = qkv;
    const position = this.#position + start;
    const rope = { ...this.#ropeOptions, position };
    const { keys, values } = this.#caches[i];
    fm.fusedRmsNormMatmul(layer.qkv, x, layer.attnNorm, { eps, out: qkv, activation });
    layer.bias.forEach((bias, j) => {
      if (bias) this.#addBias(qkv[j], bias, block);
    });
    if (row.headNorm) {
      headed.forEach((heads, j) => {
        fm.rmsNorm(heads, layer.headNorm[j], { eps, out: heads });
      });
    }
    fm.rope(q, { ...rope, out: q });
    fm.rope(k, { ...rope, out: k });
    // Infinite queries or keys may end as weights of 0: no later number would tell.
    for (const [j, part] of QKV.entries())
      this.#check(qkv[j], part, i, start, j > 0 ? KV_LARGEST[kvType] : undefined);
    keys.write(k, position);
    values.write(v, position);
  }

  /**
   * @param {Tensor} tensor  a row for each token
   * @param {import('./errors.js').NumericPart} part
   * @param {number} [layer]
   * @param {number} [start]  the first token, counted from the batch's first
   * @param {number} [largest]
   */
  #check(tensor, part, layer, start = 0, largest) {
    checkNumbers(tensor, this.#settings, { part, layer, position: this.#position + start, largest });
  }

  /**
   * Logits of some of the tokens of the last forward.
   * @param {number} start  the first, counted from the batch's first
   * @param {number} nRows  at most `logitRows`
   * @returns {Tensor}  of the decoder; valid until the next call
   * @throws {NumericError} a logit is NaN or infinite
   */
  logitsOf(start, nRows) {
    const { eps } = this.#shape;
    const { norm, output } = this.#weights;
    const { activation } = this.#settings;
    const { x, logits } = this.#buffers;
    const out = viewOf(logits, { nRows });
    this.#fm.fusedRmsNormMatmul([output], viewOf(x, { start, nRows }), norm, { eps, out: [out], activation });
    this.#check(out, 'output', undefined, start);
    return out;
  }

  /**
   * The hidden states of the last forward after the final norm: what the output matrix would see.
   * @param {number} start  the first token, counted from the batch's first
   * @param {number} nRows
   * @returns {Float32Array}
   * @throws {NumericError} a number of them is NaN or infinite
   */
  hidden(start, nRows) {
    const { norm } = this.#weights;
    const normed = viewOf(this.#buffers.q, { nRows, nCols: this.#shape.nEmbd });
    const x = viewOf(this.#buffers.x, { start, nRows });
    this.#fm.rmsNorm(x, norm, { eps: this.#shape.eps, out: normed });
    this.#check(normed, 'output', undefined, start);
    return normed.toArray();
  }

  /** Frees caches and tensors. */
  free() {
    for (const handle of this.#owned) if (!handle.freed) handle.free();
  }

  /** @param {number} nTokens  of a batch */
  #viewsOf(nTokens) {
    if (nTokens === 1) return this.#one;
    const last = this.#many[this.#many.length - 1];
    if (last.start + last.nTokens !== nTokens) this.#many = this.#blocksOf(nTokens);
    return this.#many;
  }

  /** The buffers as a batch of nTokens uses them, block by block. @param {number} nTokens @returns {Block[]} */
  #blocksOf(nTokens) {
    const size = this.#block;
    return Array.from({ length: Math.ceil(nTokens / size) }, (_, i) =>
      this.#views(i * size, Math.min(size, nTokens - i * size)),
    );
  }

  /** @param {number} start  in the batch @param {number} nTokens */
  #views(start, nTokens) {
    const { nEmbd, nHeads, nKvHeads, headSize } = this.#shape;
    const { x, q, k, v, attended } = this.#buffers;
    const nRows = nTokens;
    const qCols = nHeads * headSize;
    // Rows of a block stay within its part of the buffer, however many values they have.
    const qPart = viewOf(q, { start, nRows });
    return {
      start,
      nTokens,
      x: viewOf(x, { start, nRows }),
      qkv: [viewOf(qPart, { nRows, nCols: qCols }), viewOf(k, { nRows }), viewOf(v, { nRows })],
      headed: [
        viewOf(qPart, { nRows: nRows * nHeads, nCols: headSize }),
        viewOf(k, { nRows: nRows * nKvHeads, nCols: headSize }),
      ],
      attended: viewOf(attended, { nRows }),
      projected: viewOf(qPart, { nRows, nCols: nEmbd }),
      firstRows: new Uint32Array(nTokens),
    };
  }

  /**
   * Adds a bias to every row. For several it is copied to as many first; attention has not filled its buffer yet.
   * @param {Tensor} x
   * @param {import('./weights.js').Bias} bias
   * @param {Block} block
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
