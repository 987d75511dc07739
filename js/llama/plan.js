/* The plan of a model: its tensors with their roles, and the settings of every layer. An
 * architecture makes the plan from the metadata of a file; loading, checking and computing only
 * read the plan, so no other code asks for an architecture's name. */

import { show } from '../errors.js';
import { ARCHITECTURES } from './architectures/index.js';
import { metadataReader } from './architectures/metadata.js';
import { ModelError } from './errors.js';

/** @typedef {import('../gguf/index.js').MetadataValue} MetadataValue */

/**
 * A normalisation of rows; its weight is a tensor.
 * @typedef {object} Norm
 * @property {'rms' | 'layer'} kind  Root mean square, or mean and variance.
 * @property {number} eps  Added to the mean square.
 */

/**
 * A normalisation of queries and keys.
 * @typedef {object} QkNorm
 * @property {'rms'} kind  Root mean square.
 * @property {number} eps  Added to the mean square.
 * @property {'head' | 'row'} span  Values that are normalised together: a head, or all heads of a
 *   token.
 * @property {boolean} afterRope  Whether the norm follows the rotation instead of preceding it.
 */

/**
 * Rotary position embedding of a layer. Frequency factors are a tensor with the role `ropeFactors`,
 * where there are any.
 * @typedef {object} Rope
 * @property {'adjacent' | 'halves'} pairing  Which values of a head turn together: (2i, 2i + 1) or
 *   (i, i + nDims / 2).
 * @property {number} nDims  How many values at the start of a head turn.
 * @property {number} base  Base of the frequencies.
 * @property {number} linearScale  Positions are divided by it.
 * @property {number[] | undefined} divisors  Numbers that the frequencies are divided by, one for
 *   each pair, as YaRN gives them; in addition to the frequency factors.
 * @property {number} magnitude  Factor of the values that turn.
 */

/**
 * Factor of the queries, by position: 1 + scale * ln(1 + floor(position / length)).
 * @typedef {{ scale: number, length: number }} Temperature
 */

/**
 * x += residualScale * postNorm(attention(norm(x)) * output^T). Tensors by role: norm, q, k, v,
 * output; where the file has them qBias, kBias, vBias, outputBias, qNorm, kNorm, postNorm,
 * ropeFactors.
 * @typedef {object} AttentionSettings
 * @property {'attention'} kind  Softmax attention over a cache of keys and values.
 * @property {Norm | undefined} norm  Norm of the input.
 * @property {Norm | undefined} postNorm  Norm of the output, before it is added.
 * @property {number} nHeads  Query heads.
 * @property {number} nKvHeads  Key and value heads, a divisor of nHeads.
 * @property {number} headSize  Values of a head.
 * @property {QkNorm | undefined} qkNorm  Norm of queries and keys.
 * @property {Rope | undefined} rope  Undefined: attention does not know positions.
 * @property {Temperature | undefined} temperature  Undefined: the factor of the queries is 1.
 * @property {boolean} causal  Whether a token sees only positions up to its own.
 * @property {number} window  A token sees at most this many positions, the latest ones; 0: all.
 * @property {number} scale  Factor of the scores.
 * @property {number} softcap  A value over 0 turns scores into softcap * tanh(score / softcap).
 * @property {number} residualScale  Factor of the sum's second term.
 */

/**
 * x += residualScale * postNorm(inner * down^T), h = norm(x), and inner = activation(h * gate^T) *
 * (h * up^T) or, where there is no gate, activation(h * up^T). Tensors by role: norm, up, down, and
 * gate and postNorm where they are set.
 * @typedef {object} FeedSettings
 * @property {'gated' | 'plain'} kind  Two products in and one out, or one in and one out.
 * @property {'silu' | 'gelu' | 'relu' | 'relu2'} activation  Activation function; 'gelu' is the tanh
 *   form, 'relu2' is max(x, 0)^2.
 * @property {number} nFf  Values between the products.
 * @property {Norm | undefined} norm  Norm of the input.
 * @property {Norm | undefined} postNorm  Norm of the output, before it is added.
 * @property {number} residualScale  Factor of the sum's second term.
 */

/**
 * x = scale * table[token]. Tensor by role: table.
 * @typedef {{ scale: number }} EmbeddingSettings
 */

/**
 * logits = cap(scale * norm(x) * output^T). Tensors by role: norm, output.
 * @typedef {object} HeadSettings
 * @property {Norm} norm  Norm of the hidden states.
 * @property {number} scale  Factor of the logits.
 * @property {number} softcap  A value over 0 turns logits into softcap * tanh(logit / softcap).
 */

/** @typedef {{ attention: AttentionSettings, feed: FeedSettings }} LayerSettings */

/**
 * Use of a tensor: a matrix to multiply by, a table of rows to look up, a row of numbers (vector),
 * or a row that is added to every row (bias).
 * @typedef {'matrix' | 'table' | 'vector' | 'bias'} TensorUse
 */

/**
 * A tensor of the file.
 * @typedef {object} PlannedTensor
 * @property {string} role  A path, e.g. `layers.3.attention.q`.
 * @property {string} name  Name in the file.
 * @property {number} nRows  Rows that the tensor must have.
 * @property {number} nCols  Values of a row.
 * @property {TensorUse} use
 * @property {boolean} optional  Whether the file may lack it.
 */

/**
 * A role that uses the tensor of another role, or some of its rows, if the file has no tensor for
 * it.
 * @typedef {{ of: string, start?: number, nRows?: number }} SharedRole
 */

/**
 * @typedef {object} Plan
 * @property {string} architecture  Architecture as the file names it.
 * @property {number} nVocab  Tokens of the vocabulary.
 * @property {number} nEmbd  Values of a hidden state.
 * @property {number} trainedContext  Positions that the model was trained for.
 * @property {EmbeddingSettings} embedding  Tensors: `embedding.*`.
 * @property {LayerSettings[]} layers  Tensors: `layers.N.attention.*`, `layers.N.feed.*`.
 * @property {HeadSettings} head  Tensors: `head.*`.
 * @property {PlannedTensor[]} tensors  All tensors that the file may have.
 * @property {Record<string, SharedRole>} shared  Shared tensors by role.
 */

/**
 * An architecture that the runner supports.
 * @typedef {object} Architecture
 * @property {string} models  Names of models with this architecture, for people.
 */

/**
 * The export of a file in js/llama/architectures. It makes the plan from the metadata of a model's
 * file.
 * @typedef {Architecture & { plan: (read: import('./architectures/metadata.js').MetadataReader) =>
 *   Plan }} ArchitectureFile
 */

/**
 * Makes the plan of a model.
 * @param {Record<string, MetadataValue>} metadata  metadata of the file
 * @param {number} [contextLength]  positions of the context; default: the model's own, at most
 *   DEFAULT_CONTEXT
 * @returns {Plan}
 * @throws {ModelError} the architecture or a variant of it is not supported, or a number is missing
 */
export function planModel(metadata, contextLength) {
  const given = metadata['general.architecture'];
  const name = String(given);
  if (!Object.hasOwn(ARCHITECTURES, name)) {
    throw new ModelError(
      `the architecture ${show(given)} is not supported; supported are ${Object.keys(ARCHITECTURES).join(', ')}`,
    );
  }
  return ARCHITECTURES[name].plan(metadataReader(metadata, name, contextLength));
}
