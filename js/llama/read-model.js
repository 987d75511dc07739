/* Makes the plan, the list of tensors and the tokenizer of a model from the header of its file. This code
 * is fetched while the header is read. */

import { planModel } from './plan.js';
import { Tokenizer } from './tokenizer/tokenizer.js';
import { checkTensors } from './weights.js';

/** @typedef {import('../gguf/index.js').GgufFile} GgufFile */

/**
 * A model without adapters, or with some: then the file and the plan have their tensors too.
 * @typedef {object} Described
 * @property {GgufFile} gguf
 * @property {import('./plan.js').Plan} plan
 * @property {import('./plan.js').PlannedTensor[]} planned  Tensors of the plan that the file has.
 * @property {import('./adapters.js').LoadedAdapter[]} adapters
 */

/**
 * @param {GgufFile} gguf
 * @param {import('./load-options.js').LlamaOptions} options
 */
export async function readModel(gguf, options) {
  const plan = planModel(gguf.metadata, options.contextLength);
  const tokenizer = new Tokenizer(gguf.metadata);
  const planned = checkTensors(gguf, plan);
  /** @type {Described} */
  const base = { gguf, plan, planned, adapters: [] };
  const all = options.adapters?.length
    ? await (await import('./adapters.js')).addAdapters(base, options)
    : base;
  const tensors = all.planned.map(({ name }) => all.gguf.tensor(name));
  return { ...all, tokenizer, tensors, own: tensors.slice(0, planned.length) };
}
