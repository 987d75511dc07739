/* Stands in the scripts of workers for js/llama/structured/chunk.js. They are files without imports,
 * which some bundlers need, so the grammar engine is loaded from its address beside them. */

import { scriptUrl } from '../assets-worker.js';
import { LoadError } from '../errors.js';

/** @returns {Promise<typeof import('../../dist/grammar-engine.js')>} */
export async function loadEngine() {
  const advice = 'put that file beside the script of the worker';
  scriptUrl('../dist/grammar-engine.js', 'the grammar engine dist/grammar-engine.js', advice);
  const { href } = new URL('../dist/grammar-engine.js', import.meta.url);
  try {
    return await import(href);
  } catch (cause) {
    throw new LoadError(`the grammar engine cannot be loaded from ${href}: ${advice}`, { url: href, cause });
  }
}
