/**
 * Writes llamas with random weights as GGUF files. The one with 2048 and 5632 columns and 8 layers
 * is as large and as slow as a real one, so engines can be compared without a download. The
 * tokenizer (SPM) has pieces of up to three letters, so that " abc" is one token.
 */
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { root } from '../../scripts/setup/run.js';
import { numberToF16 } from '../helpers/floats.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';

/** @import { Pair, TensorSpec } from '../helpers/gguf-bytes.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

/**
 * @typedef {object} Shape
 * @property {number} nEmbd
 * @property {number} nFf
 * @property {number} nLayers
 * @property {number} nHeads
 * @property {number} nKvHeads
 * @property {number} nVocab
 */

/** @type {Shape} */
const LARGE = { nEmbd: 2048, nFf: 5632, nLayers: 8, nHeads: 32, nKvHeads: 8, nVocab: 32000 };
/**
 * 52 million weights in many layers: for drivers of GPUs that compute on the processor.
 * @type {Shape}
 */
export const SMALL = { nEmbd: 512, nFf: 1536, nLayers: 16, nHeads: 8, nKvHeads: 4, nVocab: 4096 };
const CONTEXT = 2048;
/** Random codes from a ring with a prime number of bytes, so that no two rows are alike. */
const RING_BYTES = 4_194_301;

/**
 * The types that llama.cpp gives to the tensors of a file with each name: those of most tensors,
 * and those of tensors that get more bits.
 */
export const FILE_TYPES = /** @type {const} */ ({
  Q4_K_M: { bulk: 'Q4_K', better: 'Q6_K', output: 'Q6_K', id: 15 },
  Q4_0: { bulk: 'Q4_0', better: 'Q4_0', output: 'Q6_K', id: 2 },
  Q8_0: { bulk: 'Q8_0', better: 'Q8_0', output: 'Q8_0', id: 7 },
});

/** @typedef {keyof typeof FILE_TYPES} FileType */

/**
 * Q4_K_M gives more bits to attn_v and ffn_down in the first and last eighth of the layers, and in
 * every third layer between.
 * @param {number} i
 * @param {number} nLayers
 */
const deservesMore = (i, nLayers) =>
  i < nLayers / 8 || i >= (7 * nLayers) / 8 || (i - Math.floor(nLayers / 8)) % 3 === 2;

/**
 * Sets scales with which random codes have a mean of 0 and a standard deviation of sigma, and all
 * else that a block of random bytes needs.
 * @type {Record<string, (view: DataView, at: number, sigma: number) => void>}
 */
const scaleBlock = {
  /* d * scale * (code - 7.5): minimums equal the scales, dmin = 7.5 d; the 6-bit scales are
   * 32..63 */
  Q4_K: (view, at, sigma) => {
    const d = sigma / (48 * 4.6);
    view.setUint16(at, numberToF16(d), true);
    view.setUint16(at + 2, numberToF16(7.5 * d), true);
    for (let j = 0; j < 4; j++) {
      const first = 32 | (view.getUint8(at + 4 + j) & 31);
      const second = 32 | (view.getUint8(at + 12 + j) & 31);
      view.setUint8(at + 4 + j, first | ((second >> 4) << 6));
      view.setUint8(at + 8 + j, first | ((second >> 4) << 6));
      view.setUint8(at + 12 + j, (second & 15) | ((second & 15) << 4));
    }
  },
  Q6_K: (view, at, sigma) => {
    for (let j = 0; j < 16; j++) view.setInt8(at + 192 + j, 32 + (view.getUint8(at + 192 + j) & 31));
    view.setUint16(at + 208, numberToF16(sigma / (48 * 18.5)), true);
  },
  Q4_0: (view, at, sigma) => view.setUint16(at, numberToF16(sigma / 4.6), true),
  Q8_0: (view, at, sigma) => view.setUint16(at, numberToF16(sigma / 74), true),
};

/**
 * @param {string} typeName @param {number} nRows @param {number} nCols @param {Uint8Array} ring
 * @param {{ at: number }} position @param {number} sigma
 */
function randomWeight(typeName, nRows, nCols, ring, position, sigma) {
  const { blockValues, blockBytes } = /** @type {ReferenceType} */ (referenceByName.get(typeName));
  const data = new Uint8Array(((nRows * nCols) / blockValues) * blockBytes);
  for (let at = 0; at < data.length; ) {
    const piece = ring.subarray(position.at, position.at + data.length - at);
    data.set(piece, at);
    at += piece.length;
    position.at = (position.at + piece.length) % ring.length;
  }
  const view = new DataView(data.buffer);
  const scale = scaleBlock[typeName];
  for (let at = 0, sign = 1; at < data.length; at += blockBytes, sign = data[at - 1] & 1 ? 1 : -1)
    scale(view, at, sign * sigma);
  return data;
}

/**
 * Up to 32000 pieces: the control tokens, bytes, then words of one to three letters. Shorter ones merge
 * first.
 * @param {number} nVocab
 */
function vocabulary(nVocab) {
  const letters = [...'abcdefghijklmnopqrstuvwxyz'];
  const longer = (/** @type {string[]} */ words) =>
    words.flatMap((word) => letters.map((letter) => word + letter));
  const [two, three] = [longer(letters), longer(longer(letters))];
  const spaced = (/** @type {string[]} */ words) => words.map((word) => `▁${word}`);
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const pieces = ['▁', ...letters, ...two, ...spaced(letters), ...spaced(two), ...three, ...spaced(three)];
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...pieces].slice(0, nVocab);
  /* token types: 2 unknown, 3 control, 6 byte, 1 normal */
  const types = tokens.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1));
  const scores = tokens.map((_, i) => (i < 259 ? 0 : 258 - i));
  return { tokens, types, scores };
}

/** @param {FileType} fileType @param {Shape} shape @returns {Uint8Array<ArrayBuffer>} */
function fileBytes(fileType, { nEmbd, nFf, nLayers, nHeads, nKvHeads, nVocab }) {
  const headSize = nEmbd / nHeads;
  /* Standard deviation of the weights: it keeps the size of activations. */
  const sigma = 1 / Math.sqrt(nEmbd);
  const { bulk, better, output, id } = FILE_TYPES[fileType];
  const prng = new Prng(id);
  const ring = new Uint8Array(RING_BYTES);
  prng.fill(ring);
  const position = { at: 0 };
  /** @type {TensorSpec[]} */
  const tensors = [];
  const matrix = (
    /** @type {string} */ name,
    /** @type {string} */ type,
    /** @type {number} */ nRows,
    nCols = nEmbd,
  ) => {
    const typeId = /** @type {ReferenceType} */ (referenceByName.get(type)).id;
    tensors.push({
      name: `${name}.weight`,
      typeId,
      shape: [nCols, nRows],
      data: randomWeight(type, nRows, nCols, ring, position, sigma),
    });
  };
  const norm = (/** @type {string} */ name) => {
    const data = new Uint8Array(new Float32Array(nEmbd).fill(1).buffer);
    tensors.push({ name: `${name}.weight`, typeId: 0, shape: [nEmbd], data });
  };
  matrix('token_embd', bulk, nVocab);
  for (let i = 0; i < nLayers; i++) {
    const layer = `blk.${i}`;
    const more = deservesMore(i, nLayers) ? better : bulk;
    norm(`${layer}.attn_norm`);
    matrix(`${layer}.attn_q`, bulk, nEmbd);
    matrix(`${layer}.attn_k`, bulk, nKvHeads * headSize);
    matrix(`${layer}.attn_v`, more, nKvHeads * headSize);
    matrix(`${layer}.attn_output`, bulk, nEmbd);
    norm(`${layer}.ffn_norm`);
    matrix(`${layer}.ffn_gate`, bulk, nFf);
    matrix(`${layer}.ffn_up`, bulk, nFf);
    matrix(`${layer}.ffn_down`, more, nEmbd, nFf);
  }
  norm('output_norm');
  matrix('output', output, nVocab);
  const { tokens, types, scores } = vocabulary(nVocab);
  /** @type {Pair[]} */
  const pairs = [
    ['general.architecture', 'string', 'llama'],
    ['general.name', 'string', `synthetic ${nEmbd}/${nFf} ${fileType}`],
    ['general.file_type', 'u32', id],
    ['general.quantization_version', 'u32', 2],
    ['llama.context_length', 'u32', CONTEXT],
    ['llama.embedding_length', 'u32', nEmbd],
    ['llama.block_count', 'u32', nLayers],
    ['llama.feed_forward_length', 'u32', nFf],
    ['llama.attention.head_count', 'u32', nHeads],
    ['llama.attention.head_count_kv', 'u32', nKvHeads],
    ['llama.attention.layer_norm_rms_epsilon', 'f32', 1e-5],
    ['llama.rope.dimension_count', 'u32', headSize],
    ['llama.rope.freq_base', 'f32', 10000],
    ['llama.vocab_size', 'u32', nVocab],
    ['tokenizer.ggml.model', 'string', 'llama'],
    ['tokenizer.ggml.pre', 'string', 'default'],
    ['tokenizer.ggml.tokens', 'array', { of: 'string', items: tokens }],
    ['tokenizer.ggml.scores', 'array', { of: 'f32', items: scores }],
    ['tokenizer.ggml.token_type', 'array', { of: 'i32', items: types }],
    ['tokenizer.ggml.bos_token_id', 'u32', 1],
    ['tokenizer.ggml.eos_token_id', 'u32', 2],
    ['tokenizer.ggml.unknown_token_id', 'u32', 0],
    ['tokenizer.ggml.add_bos_token', 'bool', true],
    ['tokenizer.ggml.add_eos_token', 'bool', false],
    ['tokenizer.ggml.add_space_prefix', 'bool', true],
  ];
  return ggufBytes({ pairs, tensors }).bytes;
}

/**
 * Writes the file into build/, unless it is there.
 * @param {FileType} fileType @param {Shape} [shape] @returns {string} its path
 */
export function largeLlama(fileType, shape = LARGE) {
  const size = shape === LARGE ? '' : `-${shape.nEmbd}x${shape.nLayers}`;
  const path = join(root, `build/bench-models/synthetic-llama-${fileType}${size}.gguf`);
  if (!existsSync(path)) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(`${path}.part`, fileBytes(fileType, shape));
    renameSync(`${path}.part`, path);
  }
  return path;
}

/**
 * Words of one token each, with the first token of the sequence.
 * @param {number} nTokens @param {number} seed
 */
export function promptOf(nTokens, seed) {
  const prng = new Prng(seed);
  const letter = () => String.fromCharCode(97 + prng.int(0, 12));
  return Array.from({ length: nTokens - 1 }, () => letter() + letter() + letter()).join(' ');
}
