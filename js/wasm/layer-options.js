/* Names of the options of each layer operation, for the operations and for their callers in other
 * threads. */

export const NORM_OPTIONS = Object.freeze(['eps', 'out']);
export const SOFTMAX_OPTIONS = Object.freeze(['nCols', 'out']);
export const ROPE_OPTIONS = Object.freeze([
  ...['headSize', 'nHeads', 'position', 'nDims', 'base', 'linearScale', 'factors'],
  ...['magnitude', 'pairing', 'out'],
]);
export const OUT_OPTIONS = Object.freeze(['out']);
export const GATED_OPTIONS = Object.freeze(['act', 'out']);
export const CONV_OPTIONS = Object.freeze(['bias', 'act', 'out']);
export const MANY_OPTIONS = Object.freeze(['out', 'activation']);
export const NORM_MANY_OPTIONS = Object.freeze(['eps', 'out', 'activation']);
export const SWIGLU_OPTIONS = Object.freeze(['act', 'out', 'activation']);
export const FFN_OPTIONS = Object.freeze(['eps', 'act', 'residual', 'out', 'activation']);
export const ROUTE_OPTIONS = Object.freeze([
  ...['nUsed', 'nExperts', 'scores', 'over', 'normalize', 'scale', 'bias', 'nGroups', 'nGroupsUsed'],
]);
export const EXPERTS_OPTIONS = Object.freeze(['act', 'up', 'biases', 'out', 'activation']);
export const SCORE_OPTIONS = Object.freeze(['headSize', 'scale', 'causal', 'out']);
export const SCAN_OPTIONS = Object.freeze(['nGroups', 'out']);
export const DELTA_OPTIONS = Object.freeze(['nKeyHeads', 'gate', 'normWeight', 'eps', 'out']);
export const FLASH_OPTIONS = Object.freeze([
  ...['nHeads', 'firstPosition', 'nPositions', 'causal', 'window'],
  ...['start', 'scale', 'softcap', 'sinks', 'out'],
]);
