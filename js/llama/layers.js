/* Questions about the layers of a plan. */

/** @typedef {import('./plan.js').LayerSettings} LayerSettings */

/** Attention of those layers that have it. @param {readonly LayerSettings[]} layers */
export const attentionsOf = (layers) => layers.flatMap(({ attention }) => attention ?? []);

/**
 * Attention of those layers that have keys and values of their own.
 * @param {readonly LayerSettings[]} layers
 */
export const cachingOf = (layers) => attentionsOf(layers).filter(({ kvBack = 0 }) => kvBack === 0);

/** Recurrent blocks of those layers that have one. @param {readonly LayerSettings[]} layers */
export const recurrentsOf = (layers) => layers.flatMap(({ recurrent }) => recurrent ?? []);

/** Whether a token sees only itself and earlier tokens. @param {readonly LayerSettings[]} layers */
export const isCausal = (layers) => attentionsOf(layers).every(({ causal }) => causal);
