/* Rows of a weight by their numbers: the embeddings of tokens, and of positions. */

import { float, shader, up16 } from '../shader.js';
import { decoder, prelude, rowBlocks, WGSL_TYPES } from './types.js';

/** @typedef {import('./types.js').Unit} Unit */
/** @typedef {import('../shader.js').Shader} Shader */

const INVOCATIONS = 64;

/** Pieces of 16 columns in a row. @param {{ type: string, nCols: number }} unit */
const pieces = (unit) => rowBlocks(unit) * WGSL_TYPES[unit.type].lanes;

/**
 * y[start + t] = scale * W[ids[position + t]] (+ bias) for the tokens t < n_tokens of `step`; of
 * positions, y[start + t] += scale * W[position + t]. A row of y whose number is not among the unit's
 * rows stays as it was. For a split table there is one dispatch for each part.
 *
 *   w     the weight
 *   ids   row numbers, counted from the first row of the table; not of positions
 *   bias  a row that is added to every row
 *   y     rows of up16(nCols) values; the padding is not written
 * @param {{ unit: Unit, scale: number, firstRow?: number, bias?: boolean, ofPositions?: boolean }}
 *   options  firstRow: of the unit, in its table
 * @returns {Shader}
 */
export function embed({ unit, scale, firstRow = 0, bias = false, ofPositions = false }) {
  const { type, nRows, nCols } = unit;
  const { lanes, blockValues } = WGSL_TYPES[type];
  const rest = nCols % 4;
  const put = ofPositions ? '+=' : '=';
  const added = bias ? ' + bias[column / 4u]' : '';
  const last = Array.from({ length: rest }, (_, k) => `y[at][${k}] ${put} a[${k}];`).join(' ');
  return shader({
    name: `embed ${type} ${nRows}x${nCols}${ofPositions ? ' of positions' : ''}`,
    bindings: {
      w: 'read array<u32>',
      ...(!ofPositions && { ids: 'read array<u32>' }),
      ...(bias && { bias: 'read array<vec4f>' }),
      y: 'read_write array<vec4f>',
    },
    step: true,
    size: [INVOCATIONS],
    code: `${prelude([type])}${decoder(unit)}
@compute
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= ${pieces(unit)}u || id.y >= step.n_tokens) { return; }
  let row = ${ofPositions ? 'step.position + id.y' : 'ids[step.position + id.y]'} - ${firstRow}u;
  if (row >= ${nRows}u) { return; }
  let block = id.x / ${lanes}u;
  let t = id.x % ${lanes}u;
  var v = decode_0(row * ${rowBlocks(unit)}u + block, t);
  var runs = runs_0(t);
  for (var k = 0u; k < 4u; k++) {
    let column = block * ${blockValues}u + 4u * runs[k];
    let at = (step.start + id.y) * ${up16(nCols) / 4}u + column / 4u;
    let a = ${float(scale)} * v[k]${added};
    if (column + 4u <= ${nCols}u) { y[at] ${put} a; }${rest ? ` else if (column < ${nCols}u) { ${last} }` : ''}
  }
}`,
  });
}

/**
 * Workgroups of embed().
 * @param {{ type: string, nCols: number }} unit
 * @param {number} nTokens
 */
export const embedGroups = (unit, nTokens) =>
  /** @type {[number, number, number]} */ ([Math.ceil(pieces(unit) / INVOCATIONS), nTokens, 1]);
