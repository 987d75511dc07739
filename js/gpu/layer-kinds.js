/* The kinds of layers that a model has, for the self-test. */

/** @typedef {import('./selftest.js').BlockName} BlockName */
/** @typedef {import('./selftest.js').SelfTestOptions} SelfTestOptions */

/**
 * The types of a model's matrices, and the settings of each kind of layer.
 * @param {import('../gguf/file.js').GgufFile} gguf
 * @param {import('../llama/plan.js').Plan} plan
 * @param {readonly import('../llama/plan.js').PlannedTensor[]} tensors
 * @returns {{ types: string[], kinds: Partial<SelfTestOptions>[] }}
 */
export function kindsOf(gguf, { layers, head, embedding, shared }, tensors) {
  const typesOf = (/** @type {readonly string[]} */ uses) =>
    tensors.filter(({ use }) => uses.includes(use)).map(({ name }) => gguf.tensor(name).type);
  const rolesOf = (/** @type {RegExp} */ pattern) => [
    ...new Set(tensors.flatMap(({ role }) => pattern.exec(role)?.[1] ?? [])),
  ];
  const has = (/** @type {RegExp} */ pattern) => tensors.some(({ role }) => pattern.test(role));
  const biases = has(/\.attention\.q(kv)?Bias$/);
  const outputBias = has(/\.attention\.outputBias$/);
  const expertTypes = [...new Set(typesOf(['experts']))];
  const feedRoles = rolesOf(/\.feed\.(\w+(Bias|Factor))$/);
  const recurrentRoles = rolesOf(/\.recurrent\.(\w+)$/);
  const embeddingRoles = rolesOf(/^embedding\.(positions|types)$/);
  const normBiases = rolesOf(/(\w+\.(?:n|\w+N)orm)Bias$/);
  const hasHead = has(/^head\.output$/) || Object.hasOwn(shared, 'head.output');
  /** @param {import('../llama/plan.js').LayerSettings} layer @returns {BlockName[]} */
  const blocksOf = ({ attention, recurrent }) => [
    'embed',
    ...(attention ? [/** @type {const} */ ('attention')] : []),
    ...(recurrent ? [/** @type {const} */ ('recurrent')] : []),
    'feed',
    ...(hasHead ? [/** @type {const} */ ('head')] : []),
    ...(!hasHead && head.norm ? [/** @type {const} */ ('states')] : []),
  ];
  const kinds = new Map(layers.map((layer) => [JSON.stringify(layer), layer]));
  return {
    types: typesOf(['matrix', 'table', 'experts']),
    kinds: [...kinds.values()].map(({ attention, recurrent, feed }) => ({
      blocks: blocksOf({ attention, recurrent, feed }),
      ...(attention && { attention: { ...attention, biases, outputBias } }),
      ...(recurrent && { recurrent, recurrentRoles }),
      ...{ feed, feedRoles, head, embedding, embeddingRoles, normBiases },
      ...(feed.experts && { expertTypes }),
    })),
  };
}
