/**
 * Small synthetic models of every architecture as GGUF files, and their results in float64, written
 * from the papers: RMS norm (Zhang and Sennrich), rotary positions (Su et al.), grouped-query
 * attention (Ainslie et al.), SwiGLU (Shazeer).
 */
import { floatsOf } from './activations.js';
import { makeWeights } from './blocks.js';
import { ggufBytes } from './gguf-bytes.js';
import { Prng } from './prng.js';
import { dequantizeF64, referenceByName } from './reference.js';

/** @import { Pair, TensorSpec } from './gguf-bytes.js' */
/** @import { ReferenceType } from './reference.js' */

/**
 * @typedef {object} Spec
 * @property {string} [architecture]
 * @property {number} [nLayers]
 * @property {number} [nEmbd]
 * @property {number} [nFf]
 * @property {number} [nHeads]
 * @property {number} [nKvHeads]
 * @property {number} [headSize]  written as attention.key_length if it is not nEmbd / nHeads
 * @property {number} [nDims]  number of values that RoPE rotates
 * @property {number} [nVocab]
 * @property {number} [context]
 * @property {number} [eps]
 * @property {number} [base]
 * @property {number} [linear]  RoPE scaling
 * @property {boolean} [factors]  rope_freqs.weight
 * @property {boolean} [bias]
 * @property {boolean} [tied]
 * @property {boolean} [causal]  false: every token sees all tokens, and the metadata says so
 * @property {string} [type]  type of most matrices
 * @property {string} [qkType]  type of attn_q and attn_k
 * @property {number} [seed]
 * @property {Record<string, Pair>} [pairs]  additional or different metadata
 * @property {(tensors: TensorSpec[]) => TensorSpec[]} [change]  changes the tensors before they are
 *   written
 */

/**
 * A vocabulary in which each token is one letter, so that texts can be written.
 * @param {number} nVocab
 */
const letters = (nVocab) =>
  Array.from({ length: nVocab }, (_, i) =>
    i < 3 ? ['<unk>', '<s>', '</s>'][i] : String.fromCharCode(0x4e00 + i),
  );

/** @param {Spec} spec */
function complete(spec) {
  const { architecture = 'llama', nEmbd = 64, nHeads = 4 } = spec;
  const headSize = spec.headSize ?? nEmbd / nHeads;
  return {
    ...{ architecture, nLayers: 2, nEmbd, nFf: 96, nHeads, nKvHeads: 2, headSize, nDims: headSize },
    ...{ nVocab: 40, context: 64, eps: 1e-5, base: 10000, linear: 1, factors: false, tied: false },
    causal: true,
    ...{ bias: architecture === 'qwen2', type: 'F32', qkType: 'F32', seed: 1 },
    ...spec,
  };
}

/** @param {Spec} given */
export function makeModel(given) {
  const spec = complete(given);
  const { architecture, nLayers, nEmbd, nFf, nHeads, nKvHeads, headSize, nDims, nVocab } = spec;
  const prng = new Prng(spec.seed);
  /** @type {TensorSpec[]} */
  const tensors = [];
  /** @type {Map<string, Float64Array>} */
  const values = new Map();
  /**
   * @param {string} name @param {string} typeName @param {number} nRows @param {number} nCols
   * @param {Uint8Array} data
   */
  const put = (name, typeName, nRows, nCols, data) => {
    const type = /** @type {ReferenceType} */ (referenceByName.get(typeName));
    tensors.push({ name, typeId: type.id, shape: nRows === 1 ? [nCols] : [nCols, nRows], data });
    values.set(name, dequantizeF64(type, data).values);
  };
  /** @param {string} name @param {number} nRows @param {number} nCols @param {string} [typeName] */
  const matrix = (name, nRows, nCols, typeName = spec.type) => {
    const type = /** @type {ReferenceType} */ (referenceByName.get(typeName));
    put(name, typeName, nRows, nCols, makeWeights(type, 'natural', nRows, nCols, prng));
  };
  /** @param {string} name @param {number} n @param {() => number} make */
  const vector = (name, n, make) => put(name, 'F32', 1, n, new Uint8Array(floatsOf(n, make).buffer));
  const nearOne = () => 1 + 0.2 * prng.gaussian();

  matrix('token_embd.weight', nVocab, nEmbd);
  for (let i = 0; i < nLayers; i++) {
    const name = (/** @type {string} */ of) => `blk.${i}.${of}`;
    vector(name('attn_norm.weight'), nEmbd, nearOne);
    // Weights large enough that attention has distinct positions to choose from.
    matrix(name('attn_q.weight'), nHeads * headSize, nEmbd, spec.qkType);
    matrix(name('attn_k.weight'), nKvHeads * headSize, nEmbd, spec.qkType);
    matrix(name('attn_v.weight'), nKvHeads * headSize, nEmbd);
    if (spec.bias) {
      for (const [of, n] of /** @type {const} */ ([
        ['q', nHeads],
        ['k', nKvHeads],
        ['v', nKvHeads],
      ]))
        vector(name(`attn_${of}.bias`), n * headSize, () => 0.5 * prng.gaussian());
    }
    if (architecture === 'qwen3') {
      vector(name('attn_q_norm.weight'), headSize, () => 1.5 * nearOne());
      vector(name('attn_k_norm.weight'), headSize, () => 1.5 * nearOne());
    }
    matrix(name('attn_output.weight'), nEmbd, nHeads * headSize);
    vector(name('ffn_norm.weight'), nEmbd, nearOne);
    matrix(name('ffn_gate.weight'), nFf, nEmbd);
    matrix(name('ffn_up.weight'), nFf, nEmbd);
    matrix(name('ffn_down.weight'), nEmbd, nFf);
  }
  vector('output_norm.weight', nEmbd, nearOne);
  if (!spec.tied) matrix('output.weight', nVocab, nEmbd);
  if (spec.factors) vector('rope_freqs.weight', nDims / 2, () => 1 + 7 * prng.unit());

  const key = (/** @type {string} */ name) => `${architecture}.${name}`;
  /** @type {Record<string, Pair>} */
  const pairs = {};
  /** @param {string} name @param {Pair[1]} type @param {any} value */
  const pair = (name, type, value) => {
    pairs[name] = [name, type, value];
  };
  pair('general.architecture', 'string', architecture);
  pair(key('block_count'), 'u32', nLayers);
  pair(key('context_length'), 'u32', spec.context);
  pair(key('embedding_length'), 'u32', nEmbd);
  pair(key('feed_forward_length'), 'u32', nFf);
  pair(key('attention.head_count'), 'u32', nHeads);
  pair(key('attention.head_count_kv'), 'u32', nKvHeads);
  pair(key('attention.layer_norm_rms_epsilon'), 'f32', spec.eps);
  pair(key('rope.freq_base'), 'f32', spec.base);
  if (headSize !== nEmbd / nHeads) {
    pair(key('attention.key_length'), 'u32', headSize);
    pair(key('attention.value_length'), 'u32', headSize);
  }
  if (nDims !== headSize) pair(key('rope.dimension_count'), 'u32', nDims);
  if (spec.linear !== 1) {
    pair(key('rope.scaling.type'), 'string', 'linear');
    pair(key('rope.scaling.factor'), 'f32', spec.linear);
  }
  if (!spec.causal) pair(key('attention.causal'), 'bool', false);
  pair('tokenizer.ggml.model', 'string', 'llama');
  pair('tokenizer.ggml.tokens', 'array', { of: 'string', items: letters(nVocab) });
  pair('tokenizer.ggml.scores', 'array', { of: 'f32', items: Array.from({ length: nVocab }, () => 0) });
  pair('tokenizer.ggml.token_type', 'array', {
    of: 'i32',
    items: Array.from({ length: nVocab }, (_, i) => [2, 3, 3][i] ?? 1),
  });
  pair('tokenizer.ggml.bos_token_id', 'u32', 1);
  pair('tokenizer.ggml.eos_token_id', 'u32', 2);
  pair('tokenizer.ggml.add_space_prefix', 'bool', false);
  Object.assign(pairs, spec.pairs);
  const file = { pairs: Object.values(pairs), tensors: spec.change?.(tensors) ?? tensors };
  const { bytes } = ggufBytes(file);
  return {
    bytes,
    /** The contents of the file, for tests that write it differently. */
    file,
    spec,
    /** @param {number[]} tokens */
    logits: (tokens) => forward(spec, values, tokens).logits,
    /**
     * The hidden states after the final norm.
     * @param {number[]} tokens  the hidden states after the final norm
     */
    hidden: (tokens) => forward(spec, values, tokens).hidden,
  };
}

/** @param {Float64Array} w [nRows][nCols] @param {number[]} x @returns {number[]} */
function multiply(w, x) {
  return Array.from({ length: w.length / x.length }, (_, r) =>
    x.reduce((sum, value, c) => sum + value * w[r * x.length + c], 0),
  );
}

/** @param {number[]} x @param {Float64Array} weight @param {number} eps */
function norm(x, weight, eps) {
  const mean = x.reduce((sum, value) => sum + value * value, 0) / x.length;
  return x.map((value, i) => (value / Math.sqrt(mean + eps)) * weight[i]);
}

/** @param {number[]} x @param {number} size @param {(head: number[]) => number[]} map */
const byHead = (x, size, map) =>
  Array.from({ length: x.length / size }, (_, h) => map(x.slice(h * size, (h + 1) * size))).flat();
/** @param {number[]} a @param {number[]} b */
const plus = (a, b) => a.map((value, i) => value + b[i]);

/**
 * @param {ReturnType<typeof complete>} spec @param {Map<string, Float64Array>} values
 * @param {number[]} tokens
 * @returns {{ hidden: number[][], logits: Float64Array }}  logits: tokens.length x nVocab
 */
function forward(spec, values, tokens) {
  const { architecture, nLayers, nEmbd, nHeads, nKvHeads, headSize, nDims, eps, base, linear } = spec;
  const seen = (/** @type {number} */ t) => (spec.causal ? t + 1 : tokens.length);
  const tensor = (/** @type {string} */ name) => /** @type {Float64Array} */ (values.get(name));
  const f32 = (/** @type {number} */ value) => Math.fround(value);
  const factors = values.get('rope_freqs.weight');
  /**
   * The llama converters permute rows so that RoPE pairs neighbours. The others pair the first half
   * with the second.
   */
  const partners = (/** @type {number} */ i) =>
    architecture === 'llama' ? [2 * i, 2 * i + 1] : [i, i + nDims / 2];
  /** @param {number[]} head @param {number} position */
  const turn = (head, position) => {
    const out = [...head];
    for (let i = 0; i < nDims / 2; i++) {
      const angle = ((position / f32(linear)) * f32(base) ** ((-2 * i) / nDims)) / (factors?.[i] ?? 1);
      const [a, b] = partners(i);
      out[a] = head[a] * Math.cos(angle) - head[b] * Math.sin(angle);
      out[b] = head[a] * Math.sin(angle) + head[b] * Math.cos(angle);
    }
    return out;
  };
  let xs = tokens.map((token) => [
    ...tensor('token_embd.weight').subarray(token * nEmbd, (token + 1) * nEmbd),
  ]);
  for (let layer = 0; layer < nLayers; layer++) {
    const of = (/** @type {string} */ name) => tensor(`blk.${layer}.${name}`);
    const project = (/** @type {string} */ name, /** @type {number[]} */ h) => {
      const y = multiply(of(`attn_${name}.weight`), h);
      const bias = values.get(`blk.${layer}.attn_${name}.bias`);
      return bias ? plus(y, [...bias]) : y;
    };
    const projected = xs.map((x, position) => {
      const h = norm(x, of('attn_norm.weight'), f32(eps));
      let [q, k] = [project('q', h), project('k', h)];
      if (architecture === 'qwen3') {
        q = byHead(q, headSize, (head) => norm(head, of('attn_q_norm.weight'), f32(eps)));
        k = byHead(k, headSize, (head) => norm(head, of('attn_k_norm.weight'), f32(eps)));
      }
      const rotate = (/** @type {number[]} */ x) => byHead(x, headSize, (head) => turn(head, position));
      return { q: rotate(q), k: rotate(k), v: project('v', h) };
    });
    xs = xs.map((x, t) => {
      const attended = Array.from({ length: nHeads }, (_, h) => {
        const kv = Math.floor(h / (nHeads / nKvHeads)) * headSize;
        const scores = projected.slice(0, seen(t)).map(({ k }) => {
          let dot = 0;
          for (let i = 0; i < headSize; i++) dot += projected[t].q[h * headSize + i] * k[kv + i];
          return dot / Math.sqrt(headSize);
        });
        const peak = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - peak));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        return Array.from(
          { length: headSize },
          (_, i) => weights.reduce((sum, weight, s) => sum + weight * projected[s].v[kv + i], 0) / total,
        );
      }).flat();
      const y = plus(x, multiply(of('attn_output.weight'), attended));
      const h = norm(y, of('ffn_norm.weight'), f32(eps));
      const up = multiply(of('ffn_up.weight'), h);
      const gated = multiply(of('ffn_gate.weight'), h).map(
        (gate, i) => (gate / (1 + Math.exp(-gate))) * up[i],
      );
      return plus(y, multiply(of('ffn_down.weight'), gated));
    });
  }
  const output = values.get('output.weight') ?? tensor('token_embd.weight');
  const hidden = xs.map((x) => norm(x, tensor('output_norm.weight'), f32(eps)));
  return { hidden, logits: Float64Array.from(hidden.flatMap((h) => multiply(output, h))) };
}
