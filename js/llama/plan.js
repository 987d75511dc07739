/* The plan of a model: which tensors it has, what each is for, and the settings of every layer. An architecture makes it from the
 * metadata of a file; loading, checking and computing follow from it, so nothing else asks for an architecture's name. */

import { show } from '../errors.js';
import { ARCHITECTURES } from './architectures/index.js';
import { metadataReader } from './architectures/metadata.js';
import { ModelError } from './errors.js';

/** @typedef {import('../gguf/index.js').MetadataValue} MetadataValue */

/**
 * A normalisation of rows; its weight is a tensor of its own.
 * @typedef {object} Norm
 * @property {'rms' | 'layer'} kind  root mean square, or mean and variance
 * @property {number} eps  added to the mean square
 */

/**
 * A normalisation of queries and keys.
 * @typedef {object} QkNorm
 * @property {'rms'} kind  root mean square
 * @property {number} eps  added to the mean square
 * @property {'head' | 'row'} span  what is one row: each head, or all heads of a token together
 * @property {boolean} afterRope  it follows the rotation instead of preceding it
 */

/**
 * Rotary position embedding of a layer. Frequency factors, where there are any, are a tensor of the role `ropeFactors`.
 * @typedef {object} Rope
 * @property {'adjacent' | 'halves'} pairing  which values of a head turn together: (2i, 2i + 1) or (i, i + nDims / 2)
 * @property {number} nDims  the first values of a head that turn
 * @property {number} base  of the frequencies
 * @property {number} linearScale  positions are divided by it
 */

/**
 * x += residualScale * postNorm(attention(norm(x)) * output^T). Tensors by role: norm, q, k, v, output; where the file has them
 * qBias, kBias, vBias, outputBias, qNorm, kNorm, postNorm, ropeFactors.
 * @typedef {object} AttentionSettings
 * @property {'attention'} kind  softmax attention over a cache of keys and values
 * @property {Norm | undefined} norm  of its input
 * @property {Norm | undefined} postNorm  of its output, before that is added
 * @property {number} nHeads  heads of queries
 * @property {number} nKvHeads  heads of keys and values, a divisor of nHeads
 * @property {number} headSize  values of a head
 * @property {QkNorm | undefined} qkNorm  of queries and keys
 * @property {Rope | undefined} rope  none: positions are not told
 * @property {boolean} causal  a token sees positions up to its own only
 * @property {number} window  a token sees so many positions at most, the last ones; 0: all
 * @property {number} scale  of the scores
 * @property {number} softcap  > 0: scores become softcap * tanh(score / softcap); 0: they stay
 * @property {number} residualScale  of what is added
 */

/**
 * x += residualScale * postNorm((activation(h * gate^T) * (h * up^T)) * down^T), h = norm(x). Tensors by role: norm, gate, up,
 * down, and postNorm where it is set.
 * @typedef {object} FeedSettings
 * @property {'gated'} kind  two products in, one out
 * @property {'silu' | 'gelu'} activation  of the gate; 'gelu' is the tanh form
 * @property {number} nFf  values between the products
 * @property {Norm | undefined} norm  of its input
 * @property {Norm | undefined} postNorm  of its output, before that is added
 * @property {number} residualScale  of what is added
 */

/** x = scale * table[token]. Tensor by role: table. @typedef {{ scale: number }} EmbeddingSettings */

/**
 * logits = cap(scale * norm(x) * output^T). Tensors by role: norm, output.
 * @typedef {object} HeadSettings
 * @property {Norm} norm  of the hidden states
 * @property {number} scale  of the logits
 * @property {number} softcap  > 0: logits become softcap * tanh(logit / softcap); 0: they stay
 */

/** @typedef {{ attention: AttentionSettings, feed: FeedSettings }} LayerSettings */

/**
 * How a tensor is used: multiplied by, looked up row by row, or one row of numbers; a bias is added to every row.
 * @typedef {'matrix' | 'table' | 'vector' | 'bias'} TensorUse
 */

/**
 * A tensor of the file.
 * @typedef {object} PlannedTensor
 * @property {string} role  a path, e.g. `layers.3.attention.q`
 * @property {string} name  in the file
 * @property {number} nRows  rows, which the file must have
 * @property {number} nCols  values of a row
 * @property {TensorUse} use  what it is for
 * @property {boolean} optional  the file may lack it
 */

/**
 * A role that is played by the tensor of another role, or by some of its rows, where the file has no tensor for it.
 * @typedef {{ of: string, start?: number, nRows?: number }} SharedRole
 */

/**
 * @typedef {object} Plan
 * @property {string} architecture  as the file names it
 * @property {number} nVocab  tokens there are
 * @property {number} nEmbd  values of a hidden state
 * @property {number} trainedContext  positions it was trained for
 * @property {EmbeddingSettings} embedding  tensors: `embedding.*`
 * @property {LayerSettings[]} layers  tensors: `layers.N.attention.*`, `layers.N.feed.*`
 * @property {HeadSettings} head  tensors: `head.*`
 * @property {PlannedTensor[]} tensors  all that the file may have
 * @property {Record<string, SharedRole>} shared  by role
 */

/**
 * An architecture that the runner takes.
 * @typedef {object} Architecture
 * @property {string} models  for people: the models whose files name it
 */

/**
 * The export of a file in js/llama/architectures: the plan is made from the metadata of a model's file.
 * @typedef {Architecture & { plan: (read: import('./architectures/metadata.js').MetadataReader) => Plan }} ArchitectureFile
 */

/**
 * @param {Record<string, MetadataValue>} metadata  of a file
 * @returns {Plan}
 * @throws {ModelError} an architecture or a variant of it that is not supported, or a number that is missing
 */
export function planModel(metadata) {
  const given = metadata['general.architecture'];
  const name = String(given);
  if (!Object.hasOwn(ARCHITECTURES, name)) {
    throw new ModelError(
      `the architecture ${show(given)} is not supported; supported are ${Object.keys(ARCHITECTURES).join(', ')}`,
    );
  }
  return ARCHITECTURES[name].plan(metadataReader(metadata, name));
}
