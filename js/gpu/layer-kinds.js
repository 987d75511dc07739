/* The kinds of layers that a model has, for the self-test. */

/** @typedef {import('./selftest.js').SelfTestOptions} SelfTestOptions */

/**
 * The types of a model's matrices, and the settings of each kind of layer.
 * @param {import('../gguf/file.js').GgufFile} gguf
 * @param {import('../llama/plan.js').Plan} plan
 * @param {readonly import('../llama/plan.js').PlannedTensor[]} tensors
 * @returns {{ types: string[], kinds: Partial<SelfTestOptions>[] }}
 */
export function kindsOf(gguf, { layers, head, embedding }, tensors) {
  const typesOf = (/** @type {readonly string[]} */ uses) =>
    tensors.filter(({ use }) => uses.includes(use)).map(({ name }) => gguf.tensor(name).type);
  const rolesOf = (/** @type {RegExp} */ pattern) => [
    ...new Set(tensors.flatMap(({ role }) => pattern.exec(role)?.[1] ?? [])),
  ];
  const biases = tensors.some(({ role }) => role.endsWith('.attention.qBias'));
  const expertTypes = [...new Set(typesOf(['experts']))];
  const feedRoles = rolesOf(/\.feed\.(\w+(Bias|Factor))$/);
  const recurrentRoles = rolesOf(/\.recurrent\.(\w+)$/);
  const kinds = new Map(layers.map((layer) => [JSON.stringify(layer), layer]));
  return {
    types: typesOf(['matrix', 'table', 'experts']),
    kinds: [...kinds.values()].map(({ attention, recurrent, feed }) => ({
      ...(attention
        ? { attention: { ...attention, biases } }
        : { blocks: ['embed', 'recurrent', 'feed', 'head'] }),
      ...(recurrent && { recurrent, recurrentRoles }),
      ...{ feed, head, embeddingScale: embedding.scale },
      ...(feed.experts && { feedRoles, expertTypes }),
    })),
  };
}
