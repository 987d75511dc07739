/* Addresses as another thread understands them: a worker's own address is no base for those of the page. */

import { absolute } from '../gguf/http.js';
import { isNode } from '../node.js';

/**
 * A source of bytes, or several in a list or by name, with absolute addresses.
 * @param {any} source
 * @returns {any}
 */
export function sendable(source) {
  if (source instanceof URL) return source.href;
  if (typeof source === 'string') return isNode ? source : absolute(source);
  if (typeof source !== 'object' || source === null || ArrayBuffer.isView(source)) return source;
  if (typeof source[Symbol.iterator] === 'function') return Array.from(source, sendable);
  if (Object.getPrototypeOf(source) === Object.prototype)
    return Object.fromEntries(Object.entries(source).map(([name, item]) => [name, sendable(item)]));
  return source;
}
