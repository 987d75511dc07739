/* The recurrent block of a layer. All products are computed for all rows at once; only what goes from
 * token to token is computed text by text, and in a text first all tokens but the last one. */

import { correct } from '../after-products.js';
import { rowsOf, textsOf } from '../texts.js';
import { KINDS } from './kinds.js';

/** @typedef {import('../../llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('../handles.js').Tensor} Tensor */
/** @typedef {import('../kernels.js').Kernels} Kernels */

/**
 * The means of the backend that a block uses.
 * @typedef {object} Tools
 * @property {Kernels} fm
 * @property {import('../selftest.js').Activation} activation  Mode of all products.
 * @property {(x: Tensor, place: import('../../llama/numeric.js').Place) => void} check  NaN and
 *   infinity in x are an error.
 */

/**
 * Computes the block without its postNorm.
 * @param {Tools} tools
 * @param {import('../hidden.js').WasmHidden} hidden
 * @param {import('../../backend.js').Block<RecurrentSettings>} block
 * @param {import('./state.js').RecurrentState} state
 * @param {import('../../backend.js').Step} at
 * @returns {Tensor} what is added to x, in work memory
 */
export function recurrentBlock({ fm, activation, check }, hidden, { settings, weights, layer }, state, at) {
  const kind = KINDS[settings.kind];
  const { x } = hidden.states(at);
  const { added, ...work } = hidden.recurrent(at, settings);
  const inputs = Object.keys(kind.inputs(settings));
  fm.fusedRmsNormMatmul(
    inputs.map((role) => weights[role]),
    x,
    weights.norm,
    { eps: settings.norm.eps, out: inputs.map((role) => work[role]), activation },
  );
  for (const role of inputs) {
    correct(fm, work[role], weights, role);
    // A state never forgets a NaN.
    check(work[role], { part: 'recurrent', layer, position: at.position });
  }
  for (const text of textsOf(at)) {
    const own = text.state ?? state;
    own.over(text, (rows) => {
      const some = { start: text.start + rows.start, nTokens: rows.nRows };
      /** @type {Record<string, Tensor>} */
      const ofRows = {};
      for (const name of Object.keys(work)) ofRows[name] = rowsOf(work[name], some);
      kind.run(fm, { settings, weights }, ofRows, own.parts);
    });
  }
  if (at.texts?.some((text) => !text.state)) state.forget();
  fm.fusedMatmul(weights.output, work[kind.result], { out: added, activation });
  correct(fm, added, weights, 'output');
  return added;
}
