/* The plan of a model: its tensors with their roles, and the settings of every layer. An
 * architecture makes the plan from the metadata of a file; loading, checking and computing only
 * read the plan, so no other code asks for an architecture's name. */

import { show } from '../errors.js';
import { PLANS } from './architectures/index.js';
import { metadataReader } from './architectures/metadata.js';
import { ARCHITECTURES, REFUSED } from './architectures/names.js';
import { ModelError } from './errors.js';

/** @typedef {import('../gguf/index.js').MetadataValue} MetadataValue */

/**
 * A normalisation of rows. Its weight is a tensor with the norm's name as its role. Of kind 'layer'
 * it has a bias too, where the file has one: a tensor with the role `normBias`, `postNormBias` and
 * so on.
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
 * Latent attention: all query heads share one head of keys, and its values are a part of the keys.
 * With h = norm(x), c = latentNorm(h * latent^T) and r the turned h * kRope^T, a key is [r, c], where
 * rope.nDims values turn. The queries are h * q^T or, with a qRank, qDownNorm(h * qDown^T) * q^T.
 * Each head has nopeSize values n and then those that turn, t; its query is [turned t, n *
 * keyUp_head^T]. The result of a head is (the sum of its weights times c) * valueUp_head^T.
 * @typedef {object} Latent
 * @property {number} rank  Values of c.
 * @property {number} qRank  Values between the two products of queries; 0: there is one product.
 * @property {number} nopeSize  Values of a head of the queries that do not turn.
 * @property {number} valueSize  Values of the result of a head.
 * @property {Norm} norm  Norm of c, and of the values between the products of queries.
 */

/**
 * Factor of the queries, by position: 1 + scale * ln(1 + floor(position / length)).
 * @typedef {{ scale: number, length: number }} Temperature
 */

/**
 * x = sumNorm(x + residualScale * postNorm(attention(norm(x)) * output^T)). A product with a matrix
 * is multiplied by its factor (qFactor, ..), where the file has one. Tensors by role: norm, q, k, v,
 * output; gate with an output gate; where the file has them qBias, kBias, vBias, outputBias, qNorm,
 * kNorm, postNorm, sumNorm, ropeFactors, sinks, and biases of the norms. A sink is one more score of
 * its head, after scale and softcap, whose value is 0. A layer that reads the keys and values of
 * another one has no tensors for them.
 *
 * Latent attention has other tensors in place of k and v: latent, kRope, latentNorm, qDown and
 * qDownNorm with a qRank, and keyUp and valueUp with the rows of all heads, one after another. In
 * place of keyUp there may be keyRows, with the columns of each head as rows.
 * @typedef {object} AttentionSettings
 * @property {'attention'} kind  Softmax attention over a cache of keys and values.
 * @property {Norm | undefined} norm  Norm of the input.
 * @property {Norm | undefined} postNorm  Norm of the output, before it is added.
 * @property {Norm | undefined} sumNorm  Norm of the sum.
 * @property {number} nHeads  Query heads.
 * @property {number} nKvHeads  Key and value heads, a divisor of nHeads.
 * @property {number} headSize  Values of a head.
 * @property {Latent} [latent]  Set where attention is latent; nKvHeads is 1 then, and headSize
 *   rope.nDims + rank.
 * @property {QkNorm | undefined} qkNorm  Norm of queries and keys.
 * @property {{ eps: number }} [valueNorm]  RMS norm of each head of the values, without a weight.
 *   Default: none.
 * @property {number} [kvBack]  How many layers before this one the layer is whose keys and values it
 *   reads. Default 0: it has its own.
 * @property {Rope | undefined} rope  Undefined: attention does not know positions.
 * @property {Temperature | undefined} temperature  Undefined: the factor of the queries is 1.
 * @property {boolean} causal  Whether a token sees only positions up to its own.
 * @property {number} window  0: a token sees all these positions. Otherwise, where attention is
 *   causal, it sees the latest ones, at most this many; where it is not, those at most half as far
 *   away, rounded down.
 * @property {number} scale  Factor of the scores.
 * @property {number} softcap  A value over 0 turns scores into softcap * tanh(score / softcap).
 * @property {boolean} [outputGate]  Whether the result of attention is multiplied by
 *   sigmoid(norm(x) * gate^T) before the product with output. Default false.
 * @property {number} residualScale  Factor of the sum's second term.
 */

/**
 * The choice of a token's experts. The score of an expert is a function of its logit. Chosen are the
 * experts with the largest score + selectBias; over 'chosen', those with the largest logits, and the
 * scores are then made of the chosen logits alone. The weight of an expert is its score.
 * @typedef {object} RouterSettings
 * @property {'softmax' | 'sigmoid'} scores  Function of the logits.
 * @property {'all' | 'chosen'} over  Logits that a softmax is taken over.
 * @property {boolean} normalize  Whether weights are divided by their sum.
 * @property {number} scale  Factor of the weights.
 * @property {number} nGroups  Groups of neighbouring experts.
 * @property {number} nGroupsUsed  Groups that experts are chosen from: those whose two best experts
 *   have the largest sums.
 */

/**
 * A mixture of experts.
 * @typedef {object} ExpertSettings
 * @property {number} nExperts  All experts.
 * @property {number} nUsed  Experts that compute a token.
 * @property {RouterSettings} router  Their choice.
 * @property {{ nFf: number, gated: boolean } | undefined} shared  An expert that computes every
 *   token: values between its products, and whether its result has a factor, which is the sigmoid
 *   of a product.
 * @property {{ eps: number, scale: number }} [routerNorm]  RMS norm of the router's input, and a factor
 *   of its product. Default: its input is that of the experts.
 * @property {{ eps: number }} [norms]  RMS norms of a shared expert and of the others, each by
 *   itself; a shared expert with a factor has none. Default: none.
 */

/**
 * x = sumNorm(x + residualScale * postNorm(y)), y = inner * down^T + downBias, h = norm(x), and inner
 * = activation(h * gate^T) * (h * up^T) or, where there is no gate, activation(h * up^T + upBias).
 * Tensors by role: norm, up, down; gate, postNorm and sumNorm where they are set; upBias, downBias
 * and biases of the norms where the file has them.
 *
 * Where layerInput is set, x = x + norm((activation(x * inputGate^T) * input) * inputOutput^T)
 * follows, with the values that LayerInputs has for the layer, and an RMS norm whose tensor is
 * inputNorm. Where the file has a number sumFactor, x is multiplied by it in the end.
 *
 * With experts, y is the sum over the experts e of a token of weight_e * (inner_e * down_e^T +
 * downBias_e), with inner_e = activation(h * gate_e^T + gateBias_e) * (h * up_e^T + upBias_e), plus
 * sigmoid(h * sharedRouter^T) * (activation(h * sharedGate^T) * (h * sharedUp^T)) * sharedDown^T. The
 * logits of the experts are h * router^T + routerBias. Tensors by role: router, routerBias,
 * selectBias; gate, up, down with the rows of all experts, one expert after another, and gateBias,
 * upBias, downBias with a row for each; sharedRouter, sharedGate, sharedUp, sharedDown. Biases are
 * there where the file has them, and tensors of the shared expert where it is set. Where the file has
 * them, gateFactor, upFactor and downFactor have a number for each expert, by which its product is
 * multiplied.
 *
 * With routerNorm, the logits are scale * routerNorm(x) * router^T + routerBias. With norms, the shared
 * expert reads sharedNorm(x) instead of h, and y is expertsNorm(sum over the experts) +
 * sharedPostNorm(result of the shared expert). The tensors have the names of the norms.
 * @typedef {object} FeedSettings
 * @property {'gated' | 'plain' | 'experts'} kind  Two products in and one out, one in and one out,
 *   or several blocks of the first kind, of which each token uses some.
 * @property {'silu' | 'gelu' | 'relu' | 'relu2' | 'clamped'} activation  Activation function; 'gelu'
 *   is the tanh form, 'relu2' is max(x, 0)^2. 'clamped' is x * sigmoid(1.702 x) with x = min(gate, 7),
 *   and min(max(up, -7), 7) + 1 is taken for the second factor.
 * @property {number} nFf  Values between the products; of one expert, where there are several.
 * @property {ExpertSettings} [experts]  Set where the kind is 'experts'.
 * @property {Norm | undefined} norm  Norm of the input.
 * @property {Norm | undefined} postNorm  Norm of the output, before it is added.
 * @property {Norm | undefined} sumNorm  Norm of the sum.
 * @property {number} residualScale  Factor of the sum's second term.
 * @property {{ activation: 'silu' | 'gelu' | 'relu', eps: number }} [layerInput]  What is done with the
 *   values that LayerInputs has for the layer; eps belongs to the norm. Default: none.
 */

/**
 * Values that every layer gets for a token beside its hidden state, for all layers in one row:
 * scale * (tableScale * layerTable[token] + norm(projectionScale * x * layerProjection^T)), where x is
 * the embedding. The norm is an RMS norm of the values of each layer by themselves. Tensors by role:
 * layerTable, layerProjection, layerNorm.
 * @typedef {object} LayerInputs
 * @property {number} size  Values for a layer.
 * @property {number} tableScale  Factor of the table's rows.
 * @property {number} projectionScale  Factor of the product.
 * @property {number} eps  Added to the mean square.
 * @property {number} scale  Factor of the sum.
 */

/**
 * x = norm(scale * table[token] + positions[position] + types[0]). Tensors by role: table, and where
 * the file has them positions, types, norm, normBias; those of layerInputs where it is set.
 * @typedef {object} EmbeddingSettings
 * @property {number} scale  Factor of the table's rows.
 * @property {Norm | undefined} norm  Norm of the sum.
 * @property {LayerInputs} [layerInputs]  Default: none.
 */

/**
 * logits = cap(scale * norm(x) * output^T). Tensors by role: norm, normBias, output; models without
 * an output give vectors only.
 * @typedef {object} HeadSettings
 * @property {Norm | undefined} norm  Norm of the hidden states.
 * @property {number} scale  Factor of the logits.
 * @property {number} softcap  A value over 0 turns logits into softcap * tanh(logit / softcap).
 */

/**
 * The settings of every recurrent block: x += residualScale * postNorm(y * output^T), where y is computed
 * from norm(x) and the state that the tokens before have left. Products have factors and biases as in
 * attention. Tensors by role: norm, output; postNorm where it is set.
 * @typedef {object} RecurrentBlock
 * @property {Norm} norm  Norm of the input.
 * @property {Norm | undefined} postNorm  Norm of the output, before it is added.
 * @property {number} residualScale  Factor of the sum's second term.
 */

/**
 * y = c * conv(b * x), where b, c and x are products of the input. Each channel is convolved with
 * weights of its own over the current token and the ones before. Tensors by role: b, c, x, conv, and
 * convBias where the file has it.
 * @typedef {RecurrentBlock & { kind: 'convolution', nChannels: number, length: number }}
 *   ConvolutionSettings  nChannels: values of b, c and x; length: tokens that a convolution covers.
 */

/**
 * A gated delta net. qkv, gate, alpha and beta are products of the input; a causal convolution of qkv
 * with SiLU gives queries and keys of all key heads, then values of all value heads. They go through
 * the states of the value heads as fm_delta_net in src/fused.h says, and the results, each with its
 * norm and its gate, are y. Tensors by role: qkv, gate, alpha, beta, conv, dtBias, a, headNorm.
 * @typedef {object} DeltaNet
 * @property {'delta'} kind
 * @property {number} nKeyHeads  Heads of queries and keys, a divisor of nValueHeads.
 * @property {number} nValueHeads  Heads of values, each with a state.
 * @property {number} keySize  Values of a query or a key.
 * @property {number} valueSize  Values of a value.
 * @property {number} length  Tokens that the convolution covers.
 * @property {Norm} headNorm  Norm of a head's result. Queries and keys are divided by
 *   sqrt(sum of squares + its eps).
 */

/** @typedef {RecurrentBlock & DeltaNet} DeltaSettings */

/**
 * Mamba-2: y = gateNorm(silu(z) * scan), where the scan reads silu(conv(x)), in which a token has
 * values of every head, then B and C of every group. z, x and dt are products of the input. For each
 * head, which has a state h: step = softplus(dt + stepBias); h[n][p] = e^(step * a) * h[n][p] +
 * B[n] * step * x[p]; scan[p] = sum_n C[n] * h[n][p] + d * x[p]. Tensors by role: z, x, dt, conv,
 * stepBias, a, d; where the file has them convBias and gateNorm, which has a row for each group.
 * @typedef {object} ScanShape
 * @property {'scan'} kind
 * @property {number} nHeads
 * @property {number} headSize  Values of a head.
 * @property {number} nGroups  Groups of heads that share B and C, and a norm; a divisor of nHeads.
 * @property {number} stateSize  Values of B and of C; the state of a head has as many rows.
 * @property {number} length  Tokens that a convolution covers.
 * @property {Norm} gateNorm  Norm of each group of the gated values.
 */

/** @typedef {RecurrentBlock & ScanShape} ScanSettings */

/**
 * A block with a state of a fixed size, by kind.
 * @typedef {ConvolutionSettings | DeltaSettings | ScanSettings} RecurrentSettings
 */

/**
 * A layer: attention, a recurrent block, or both, and a feed-forward block. Where it has both, they
 * read the same hidden states, and both results are added.
 * @typedef {object} LayerSettings
 * @property {AttentionSettings | undefined} attention  Undefined: the layer has no attention.
 * @property {RecurrentSettings | undefined} [recurrent]  Undefined: it has no recurrent block.
 * @property {FeedSettings} feed
 */

/** @typedef {LayerSettings & { attention: AttentionSettings }} AttentionLayer */

/**
 * Scores a pair of texts: the pooled hidden state goes through activation(x * inner^T + innerBias),
 * a norm and x * output^T + outputBias, of which the file may lack each. The score is the first
 * value. Tensors by role: inner, innerBias, norm, output, outputBias.
 * @typedef {object} RankerSettings
 * @property {'mean' | 'cls' | 'last'} pooling  Which hidden state.
 * @property {'tanh' | 'gelu'} activation  Activation function of the inner product.
 * @property {Norm} norm  Norm, where the file has a weight for it.
 * @property {boolean} softmax  Whether the values are turned into probabilities.
 */

/**
 * Use of a tensor: a matrix to multiply by, a table of rows to look up, a row of numbers (vector),
 * rows of numbers (values), a row that is added to every row (bias), a number that products with a
 * matrix are multiplied by (factor), the matrices of all experts or all heads (experts), or one that
 * changes nothing here and is not loaded (none).
 * @typedef {'matrix' | 'table' | 'vector' | 'values' | 'bias' | 'factor' | 'experts' | 'none'} TensorUse
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
 * @property {number} [alternating]  The file has two matrices in one, by turns so many rows of each.
 *   Once loaded, all rows of the first precede those of the second.
 */

/**
 * A role that uses the tensor of another role, or some of its rows (of a bias, some of its values),
 * if the file has no tensor for it.
 * @typedef {{ of: string, start?: number, nRows?: number }} SharedRole
 */

/**
 * An addition to the products of a matrix: x * W^T + scale * (x * a^T) * b^T, before a bias and without
 * the factor of W. To the rows of a table: table[token] + scale * a[token] * b^T. All roles that share
 * the tensor have additions of their own.
 * @typedef {{ of: string, a: string, b: string, scale: number }} LowRank  of: role of the matrix or the
 *   table; a, b: roles of two matrices
 */

/**
 * @typedef {object} Plan
 * @property {string} architecture  Architecture as the file names it.
 * @property {number} nVocab  Tokens of the vocabulary.
 * @property {number} nEmbd  Values of a hidden state.
 * @property {number} trainedContext  Positions that the model was trained for.
 * @property {EmbeddingSettings} embedding  Tensors: `embedding.*`.
 * @property {LayerSettings[]} layers  Tensors: `layers.N.attention.*`, `layers.N.recurrent.*`,
 *   `layers.N.feed.*`.
 * @property {HeadSettings} head  Tensors: `head.*`.
 * @property {number[]} dense  Products that follow the pooling of an embedding, one after another:
 *   how many values each has. Tensors: `dense.N.matrix`.
 * @property {RankerSettings | undefined} ranker  Tensors: `ranker.*`.
 * @property {PlannedTensor[]} tensors  All tensors that the file may have.
 * @property {Record<string, SharedRole>} shared  Shared tensors by role.
 * @property {LowRank[]} [lowRank]  Additions of adapters. Default: none.
 */

/**
 * A plan whose layers all have attention.
 * @typedef {Omit<Plan, 'layers'> & { layers: AttentionLayer[] }} AttentionPlan
 */

/**
 * An architecture that the runner supports.
 * @typedef {object} Architecture
 * @property {string} models  Names of models with this architecture, for people.
 */

/**
 * The export of a file in js/llama/architectures. It makes the plan from the metadata of a model's
 * file.
 * @typedef {object} ArchitectureFile
 * @property {(read: import('./architectures/metadata.js').MetadataReader) => Plan} plan  Makes the plan.
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
  if (metadata['general.type'] === 'adapter') {
    throw new ModelError(
      `this is no model but an adapter for one of the architecture ${show(metadata['general.architecture'])}: load the model, with the option adapters: [{ source }]`,
    );
  }
  const given = metadata['general.architecture'];
  const name = String(given);
  if (Object.hasOwn(REFUSED, name))
    throw new ModelError(`the architecture ${show(given)} is not supported: ${REFUSED[name]}`);
  if (!Object.hasOwn(ARCHITECTURES, name)) {
    throw new ModelError(
      `the architecture ${show(given)} is not supported; supported are ${Object.keys(ARCHITECTURES).join(', ')}`,
    );
  }
  return withFactors(PLANS[name].plan(metadataReader(metadata, name, contextLength)));
}

/**
 * Adds the factors that a file may have for its matrices (NVFP4): the factor of the role
 * `layers.0.attention.q` has the role `layers.0.attention.qFactor`, and `.scale` instead of
 * `.weight` in its name. The matrices of experts have one for each expert. `.input_scale` is for
 * devices that round activations to 4 bits too.
 * @param {Plan} plan
 * @returns {Plan}
 */
function withFactors(plan) {
  const names = new Set(plan.tensors.map(({ name }) => name));
  const factors = plan.tensors
    // The matrices of the heads of latent attention have none, nor have products after the pooling.
    .filter(
      ({ use, role }) =>
        (use === 'matrix' && !/^(dense|ranker)\./.test(role)) ||
        (use === 'experts' && role.includes('.feed.')),
    )
    .filter(({ name }) => name.endsWith('.weight'))
    .flatMap(({ role, name, use: ofMatrix }) => {
      const experts = ofMatrix === 'experts' && plan.layers[Number(role.split('.')[1])].feed.experts;
      const use = experts ? 'vector' : 'factor';
      const base = { nRows: 1, nCols: experts ? experts.nExperts : 1, optional: true };
      const stem = name.slice(0, -'.weight'.length);
      return /** @type {PlannedTensor[]} */ ([
        { ...base, role: `${role}Factor`, name: `${stem}.scale`, use },
        { ...base, role: `${role}InputFactor`, name: `${stem}.input_scale`, use: 'none' },
      ]);
    })
    // The architecture has another use for a tensor of that name.
    .filter(({ name }) => !names.has(name));
  const roles = new Set(factors.map(({ role }) => role));
  const shared = Object.entries(plan.shared).flatMap(([role, { of, nRows }]) =>
    nRows !== undefined && roles.has(`${of}Factor`) ? [[`${role}Factor`, { of: `${of}Factor` }]] : [],
  );
  return {
    ...plan,
    tensors: [...plan.tensors, ...factors],
    shared: { ...plan.shared, ...Object.fromEntries(shared) },
  };
}
