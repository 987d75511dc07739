/* Scores of documents for a query, from models with a ranking head. */

import { ArgumentError, show } from '../errors.js';
import { checkRoom, poolTexts, total } from './embedding.js';
import { ModelError } from './errors.js';

/** @typedef {import('../backend.js').Backend} Backend */
/** @typedef {import('./lease.js').Lease} Lease */
/** @typedef {import('./model.js').Parts} Parts */
/** @typedef {import('./pause.js').Pace} Pace */
/** @typedef {import('./plan.js').RankerSettings} RankerSettings */

/** Options of Llama.rank. @typedef {import('./options.js').CallOptions} RankOptions */

const TEMPLATE = 'tokenizer.chat_template.rerank';
const HEAD = ['cls.weight', 'cls.output.weight'];

/** @type {Record<RankerSettings['activation'], (x: number) => number>} */
const ACTIVATIONS = {
  tanh: Math.tanh,
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

/**
 * The function behind Llama.rank.
 * @param {Parts} parts
 * @param {string} query
 * @param {readonly string[]} documents
 * @param {Pace} pace
 * @param {Lease} lease
 * @returns {Promise<number[]>}
 */
export async function rankDocuments(parts, query, documents, pace, lease) {
  const { plan, context } = parts;
  const { ranker: settings } = plan;
  const head = parts.weights.byRole.ranker;
  if (!settings || !(head?.inner || head?.output)) {
    throw new ModelError(
      `rank: this ${plan.architecture} model has no ranking head; one has ${HEAD.map(show).join(' or ')}`,
    );
  }
  if (!Array.isArray(documents))
    throw new ArgumentError(`documents must be a list of texts, got ${show(documents)}`);
  const lists = documents.map((document) => pairTokens(parts, query, document));
  checkRoom(parts, lists, (i) => `the query with documents[${i}]`);
  lease.nTokens = total(lists);
  const scores = [];
  for (const vector of await poolTexts(parts, lists, settings.pooling, pace)) {
    const values = await context.retried(() => {
      // A lost device may have been replaced meanwhile.
      const { backend, weights } = parts;
      return classify(backend, settings, weights.byRole.ranker, vector);
    }, pace);
    pace.check();
    scores.push(values[0]);
  }
  return scores;
}

/**
 * The tokens of a query and a document: as the template of the file says, or one after the other,
 * each as a text of its own. What the texts spell is no control token.
 * @param {Parts} parts
 * @param {string} query
 * @param {string} document
 */
function pairTokens({ metadata, tokenizer }, query, document) {
  const texts = /** @type {Record<string, string>} */ ({ '{query}': query, '{document}': document });
  for (const [name, text] of Object.entries(texts))
    if (typeof text !== 'string')
      throw new ArgumentError(`the ${name.slice(1, -1)} must be a string, got ${show(text)}`);
  const template = metadata[TEMPLATE];
  if (typeof template === 'string') {
    let all = '';
    /** @type {number[]} */
    const outside = [];
    for (const part of template.split(/(\{query\}|\{document\})/)) {
      const text = Object.hasOwn(texts, part) ? texts[part] : undefined;
      if (text) outside.push(all.length, all.length + text.length);
      all += text ?? part;
    }
    return tokenizer.encode(all, { bos: false, eos: false, outside });
  }
  const first = tokenizer.encode(query, { special: false });
  const second = tokenizer.encode(document, { special: false, bos: false });
  // The EOS of a WordPiece vocabulary is its separator.
  const separator = metadata['tokenizer.ggml.add_sep_token']
    ? metadata['tokenizer.ggml.seperator_token_id']
    : undefined;
  const between = typeof separator === 'number' && tokenizer.kind !== 'bert' ? [separator] : [];
  return [...first, ...between, ...second];
}

/**
 * The values of the head for one pooled hidden state.
 * @param {Backend} backend
 * @param {RankerSettings} settings
 * @param {import('../backend.js').Weights} head
 * @param {Float32Array} pooled
 */
async function classify(backend, { activation, norm, softmax }, head, pooled) {
  let x = pooled;
  if (head.inner) {
    const inner = await backend.multiply(x, head.inner, head.innerBias);
    x = inner.map(ACTIVATIONS[activation]);
    if (head.norm) x = normalized(x, await backend.read(head.norm), norm.eps);
  }
  if (head.output) x = await backend.multiply(x, head.output, head.outputBias);
  if (!softmax) return x;
  const peak = Math.max(...x);
  const weights = Float64Array.from(x, (value) => Math.exp(value - peak));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** A layer norm. @param {Float32Array} x @param {Float32Array} weight @param {number} eps */
function normalized(x, weight, eps) {
  const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
  const square = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return x.map((value, i) => ((value - mean) / Math.sqrt(square + eps)) * weight[i]);
}
