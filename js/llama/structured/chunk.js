/* Loads the grammar engine, a chunk of its own. In the scripts of workers js/worker/grammar-chunk.js
 * has the place of this file. */

export const loadEngine = () => import('../../../dist/grammar-engine.js');
