/** The shaders whose machine code is counted, at shapes of a model of about a billion weights. */
import { norm } from '../../../js/gpu/wgsl/layer.js';
import { argmax } from '../../../js/gpu/wgsl/sample.js';

/** @import { Shader } from '../../../js/gpu/shader.js' */

/** @type {Record<string, Shader>} */
export const SHADERS = {
  'rms norm': norm({ nCols: 2048, eps: 1e-5 }),
  argmax: argmax({ n: 131_072, first: true }),
};
