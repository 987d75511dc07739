/* Tensors that a backend has no kernels for. A file of its own, since it is fetched with the
 * backend. */

import { show } from '../errors.js';

/**
 * The reason why a model cannot run where some of its tensors have types without kernels, or
 * undefined.
 * @param {readonly import('../gguf/file.js').GgufTensor[]} tensors
 * @param {(tensor: import('../gguf/file.js').GgufTensor) => boolean} isServed
 */
export function withoutKernels(tensors, isServed) {
  const unserved = tensors.filter((tensor) => !isServed(tensor));
  if (unserved.length === 0) return undefined;
  const types = [...new Set(unserved.map(({ type }) => type))].join(', ');
  return `${unserved.length} tensors have types without kernels (${types}), the first is ${show(unserved[0].name)}`;
}
