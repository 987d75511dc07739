/* Products for 1 to 8 tokens: y[t][r] = sum_c x[t][c] w[r][c]. Each piece of a weight is decoded
 * once for all tokens. */

import { groupsOf, shader, up16 } from '../shader.js';
import { store, storeFunctions } from './outputs.js';
import { pieces, rowSums } from './row-sums.js';

/** @typedef {import('../shader.js').Shader} Shader */
/** @typedef {import('./row-sums.js').NormInFront} NormInFront */
/** @typedef {import('./types.js').Unit} Unit */

/**
 * @typedef {object} MatvecOptions
 * @property {readonly Unit[]} units  1 to 3 weights of the same columns; their rows follow one
 *   another in y
 * @property {number} [nTokens]  1, 2, 4 or 8: how many there may be; step.n_tokens says how many
 *   there are
 * @property {NormInFront} [norm]  of x
 * @property {readonly number[]} [biases]  by unit: where its bias begins in `vectors`, which is
 *   whole vec4f
 * @property {'store' | 'add' | 'gated'} [epilogue]  add: y += residualScale * value; gated:
 *   activation(first) * second, of two units of one shape
 * @property {'silu' | 'gelu'} [activation]  of a gate
 * @property {number} [residualScale]
 * @property {number} [yRowOffset]  where the first row begins in a row of y, with whatever comes
 *   before the rows of y
 * @property {number} [yStride]  of y, default up16 of all rows
 * @property {boolean} [fromZero]  the first token goes to row 0 of y, not to row step.start
 * @property {number} [splitK]  parts of columns that are summed apart; sumSplits() adds them up
 * @property {number} [rows]  of a workgroup: 1, 2, 4 or 8
 * @property {number} [invocations]  of a workgroup: a power of two, 8 to 256
 * @property {boolean} [subgroups]  adds up by subgroupAdd
 */

/** All options, and what follows from them. @typedef {ReturnType<typeof planMatvec>} MatvecPlan */

/**
 * The plan of a plan is the same.
 * @param {MatvecOptions} options
 */
export function planMatvec({
  units,
  nTokens = 1,
  norm,
  biases,
  epilogue = 'store',
  activation = 'silu',
  residualScale = 1,
  yRowOffset = 0,
  yStride,
  fromZero = false,
  splitK = 1,
  rows = 4,
  invocations = 64,
  subgroups = false,
}) {
  const gated = epilogue === 'gated';
  const { nCols } = units[0];
  const nAllRows = units.reduce((sum, unit) => sum + unit.nRows, 0);
  const nRows = gated ? units[0].nRows : nAllRows;
  let first = 0;
  let group = 0;
  const firsts = [];
  /** The first workgroup of each unit. */
  const groups = [];
  for (const unit of units) {
    firsts.push(first);
    groups.push(group);
    if (gated) continue;
    first += unit.nRows;
    group += Math.ceil(unit.nRows / rows);
  }
  const shape = units.map((unit) => `${unit.type} ${unit.nRows}x${nCols}`).join(', ');
  return {
    name: `matvec ${shape}${nTokens > 1 ? ` for ${nTokens}` : ''}`,
    units,
    nCols,
    nTokens,
    norm,
    biases,
    epilogue,
    activation,
    residualScale,
    yRowOffset,
    yStride: yStride ?? up16(nRows),
    fromZero,
    splitK,
    rows,
    invocations,
    subgroups,
    nRows,
    /** Rows with sums of their own. */
    nSumRows: nAllRows,
    firsts,
    groups,
    nGroups: gated ? Math.ceil(nRows / rows) : group,
    /** Values between tokens of `parts`: all rows, then the sum of squares. */
    partStride: nAllRows + (norm ? 1 : 0),
  };
}

/**
 * Bindings: w0, w1, w2 as there are units; x; vectors where there is a norm or
 * biases; y, or parts where splitK > 1.
 * @param {MatvecOptions} options
 * @returns {Shader}
 */
export function matvec(options) {
  const plan = planMatvec(options);
  const { name, units, nCols, nTokens, norm, biases, epilogue, splitK, rows, invocations } = plan;
  const gated = epilogue === 'gated';
  const split = splitK > 1;
  const sums = rowSums({ ...plan, slots: gated ? 2 : 1 });
  const perSplit = Math.ceil(pieces(nCols) / splitK);
  const range = split
    ? { from: `wid.y * ${perSplit}u`, to: `min(${pieces(nCols)}u, (wid.y + 1u) * ${perSplit}u)` }
    : undefined;
  const loop = (/** @type {number[]} */ of, slot = 0) =>
    sums.loop(of, slot, (r) => `min(row0 + ${r}, ${units[of[0]].nRows - 1}u)`, range);
  // Branches that all invocations of a workgroup take alike.
  const branch = (/** @type {Unit} */ { nRows }, /** @type {number} */ i) => {
    const isLast = i + 1 === units.length;
    return `${isLast ? '' : `if (group < ${plan.groups[i + 1]}u) `}{
  row0 = (group - ${plan.groups[i]}u) * ${rows}u;
  first = ${plan.firsts[i]}u;
  end = ${nRows}u;${loop([i])}
  }`;
  };
  const gates = () => (units[0].type === units[1].type ? loop([0, 1]) : loop([0]) + loop([1], 1));
  const loops = gated
    ? `
  row0 = group * ${rows}u;${gates()}`
    : `
  ${units.map(branch).join(' else ')}`;
  const toParts = `
    let at = (wid.y * ${nTokens}u + t) * ${plan.partStride}u + row;
    parts[at] = ${sums.total('t', 0, 'r')};
    ${gated ? `parts[at + ${plan.nRows}u] = ${sums.total('t', 1, 'r')};` : ''}
    ${norm ? `if (group == 0u && r == 0u) { parts[at + ${plan.nSumRows}u] = ${sums.squares('t')}; }` : ''}`;
  return shader({
    name,
    bindings: {
      ...sums.bindings,
      ...(norm || (biases && !split) ? { vectors: 'read array<vec4f>' } : {}),
      [split ? 'parts' : 'y']: 'read_write array<f32>',
    },
    step: true,
    enable: sums.enable,
    workgroup: sums.workgroup,
    size: [invocations],
    code: `${sums.functions}
${split ? '' : storeFunctions(plan)}
@compute
fn main(${sums.parameters}) {
  let group = wid.x + wid.z * count.x;
  if (group >= ${plan.nGroups}u) { return; }
  var row0 = 0u;
  var first = 0u;
  var end = ${units[0].nRows}u;${sums.declare}${loops}${sums.reduce}
  for (var i = tid; i < ${rows * nTokens}u; i += ${invocations}u) {
    let t = i / ${rows}u;
    let r = i % ${rows}u;
    if (t >= step.n_tokens || row0 + r >= end) { continue; }
    let row = first + row0 + r;${
      split ? toParts : store(plan, (slot) => sums.total('t', slot, 'r'), sums.factor('t'))
    }
  }
}`,
  });
}

/** Workgroups of matvec(). @param {MatvecOptions} options */
export function matvecGroups(options) {
  const { nGroups, splitK } = planMatvec(options);
  return groupsOf(nGroups, splitK);
}

/** Most parts of columns: each costs a read of every row by sumSplits(). */
const MOST_SPLITS = 16;

/**
 * How a product is cut: invocations of a workgroup, no more than a row has pieces; and parts of
 * columns, where the rows are too few to fill the device.
 * @param {number} nRows
 * @param {number} nCols
 * @param {{ rows: number, groups: number, invocations: number }} options  rows: of a workgroup;
 *   groups: workgroups that fill the device; invocations: the most of a workgroup
 */
export function matvecChoice(nRows, nCols, { rows, groups, invocations: most }) {
  const n = pieces(nCols);
  let invocations = most;
  while (invocations > 32 && invocations / 2 >= n) invocations /= 2;
  const there = Math.ceil(nRows / rows);
  // A part has work for each invocation. Less than two parts are not worth a second dispatch.
  const splits = Math.min(MOST_SPLITS, Math.floor(n / invocations));
  const splitK = Math.max(1, Math.min(splits, Math.floor(groups / there)));
  return { invocations, splitK };
}
