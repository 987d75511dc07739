/* Makes URLs absolute before they go to another thread: a worker resolves relative URLs against its
 * own script, not the page. */

import { absolute } from '../gguf/http.js';
import { isNode } from '../node.js';

/**
 * Makes the URLs of a source absolute, also in a list or in an object.
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
