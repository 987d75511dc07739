/* Products with the matrices of a token's experts, which lie one after another in a tensor. A
 * workgroup has some rows of one expert for one token; which expert it is, `routes` says (route.js).
 *
 *   expertsIn   inner[token][slot] = weight * act(gate x) * (up x)
 *   expertsOut  y[token] += the sum over the slots of down inner[token][slot]
 *
 * Since down is linear, inner values have the weights of their experts already. The slot after those
 * of the experts is the shared expert's, whose matrices are those of a single expert.
 *
 * A tensor that is larger than a binding lies in several buffers. Each part has a dispatch then, in
 * which a workgroup has one row, and does nothing if that row lies elsewhere. */

import { float, groupsOf, shader, up16 } from '../shader.js';
import { routeWords } from './expert-layout.js';
import { matvecChoice } from './matvec.js';
import { activated, VECTOR } from './outputs.js';
import { rowSums } from './row-sums.js';

/** @typedef {import('./expert-layout.js').InnerLayout} InnerLayout */
/** @typedef {import('./types.js').Unit} Unit */
/** @typedef {import('../../llama/plan.js').FeedSettings} FeedSettings */

/**
 * Rows of all experts in one buffer, from the row `first` on; where not all are, `whole` is false.
 * @typedef {{ unit: Unit, first: number, whole: boolean }} ExpertPart
 */

/**
 * @typedef {object} Form
 * @property {number} rows  of a workgroup
 * @property {number} invocations  the most of a workgroup
 * @property {boolean} subgroups
 */

/** The result of a gate `g` with `u` beside it, by activation. NaN stays. */
const GATED = {
  silu: 'activated(g) * u',
  gelu: 'activated(g) * u',
  relu: 'select(g, 0.0, g < 0.0) * u',
  relu2: 'select(g, 0.0, g < 0.0) * g * u',
  clamped: 'activated(select(g, 7.0, g > 7.0)) * (select(select(u, 7.0, u > 7.0), -7.0, u < -7.0) + 1.0)',
};

/** @param {FeedSettings['activation']} activation */
const gateFunctions = (activation) => `${
  activation === 'relu' || activation === 'relu2' ? '' : activated(activation)
}
fn gated(g: f32, u: f32) -> f32 { return ${GATED[activation]}; }`;

/**
 * Rows and invocations of a workgroup, for rows of one expert.
 * @param {readonly ExpertPart[]} parts
 * @param {number} nRows
 * @param {Form} form
 */
function formOf(parts, nRows, form) {
  const rows = parts.every(({ whole }) => whole) ? form.rows : 1;
  const { invocations } = matvecChoice(nRows, parts[0].unit.nCols, { ...form, rows, groups: 0 });
  return { rows, invocations, subgroups: form.subgroups };
}

/**
 * @typedef {object} ExpertsInOptions
 * @property {readonly [gate: ExpertPart, up: ExpertPart]} parts
 * @property {number} nRows  of one expert's gate
 * @property {InnerLayout} layout
 * @property {boolean} [shared]  the parts are the shared expert's
 * @property {FeedSettings['activation']} activation
 * @property {{ eps: number, at: number } | undefined} [norm]  of x; its weight begins at the value
 *   `at` of `vectors`
 * @property {Partial<Record<'gateFactor' | 'upFactor' | 'downFactor' | 'gateBias' | 'upBias', number>>} [at]
 *   where they begin in `vectors`: factors with a value for each expert, biases with a row
 * @property {Form} form
 */

/**
 * Bindings: w0 (gate), w1 (up), x, routes, vectors where there is a norm, a factor or a bias, inner.
 * @param {ExpertsInOptions} options
 */
export function expertsIn({ parts, nRows, layout, shared = false, activation, norm, at = {}, form }) {
  const units = parts.map(({ unit }) => unit);
  const [{ nCols, type }] = units;
  const { nUsed, slotStride, tokenStride } = layout;
  const own = formOf(parts, nRows, form);
  const { rows, invocations } = own;
  const nSlots = shared ? 1 : nUsed;
  const nGroups = Math.ceil(nRows / rows);
  const words = routeWords({ nUsed });
  const sums = rowSums({ units, nTokens: 1, slots: 2, norm, ...own, xAt: () => 'x0' });
  const [gate, up] = parts;
  const rowOf =
    (/** @type {ExpertPart} */ { first }) =>
    (/** @type {string} */ r) =>
      `(expert * ${nRows}u + min(row0 + ${r}, ${nRows - 1}u) - ${first}u)`;
  const together = type === units[1].type && gate.first === up.first;
  const loops = together
    ? sums.loop([0, 1], 0, rowOf(gate))
    : sums.loop([0], 0, rowOf(gate)) + sums.loop([1], 1, rowOf(up));
  const first = Math.max(gate.first, up.first);
  const end = Math.min(...parts.map((part) => part.first + part.unit.nRows));
  const vectors = norm || Object.keys(at).length > 0;
  const factor = (/** @type {'gateFactor' | 'upFactor' | 'downFactor'} */ name) =>
    at[name] === undefined ? '' : ` * vector(${at[name]}u + expert)`;
  const bias = (/** @type {'gateBias' | 'upBias'} */ name) =>
    at[name] === undefined ? '' : ` + vector(${at[name]}u + expert * ${up16(nRows)}u + row)`;
  return shader({
    name: `${shared ? 'shared expert' : `experts ${nSlots}x`} ${units.map((unit) => unit.type).join(', ')} ${nRows}x${nCols}`,
    bindings: {
      ...sums.bindings,
      routes: 'read array<u32>',
      ...(vectors && { vectors: 'read array<vec4f>' }),
      inner: 'read_write array<f32>',
    },
    step: true,
    enable: sums.enable,
    workgroup: sums.workgroup,
    size: [invocations],
    code: `${sums.functions}${vectors ? VECTOR : ''}${gateFunctions(activation)}
@compute
fn main(${sums.parameters}) {
  let index = wid.x + wid.z * count.x;
  let pair = index / ${nGroups}u;
  let row0 = index % ${nGroups}u * ${rows}u;
  if (pair >= step.n_tokens * ${nSlots}u) { return; }
  let token = step.start + pair / ${nSlots}u;
  let slot = ${shared ? `${nUsed}u` : `pair % ${nSlots}u`};
  let expert = ${shared ? '0u' : `routes[token * ${words}u + slot]`};
  let weight = bitcast<f32>(routes[token * ${words}u + ${shared ? 2 * nUsed : `${nUsed}u + slot`}]);${
    gate.whole && up.whole
      ? ''
      : `
  let whole = expert * ${nRows}u + row0;
  if (whole < ${first}u || whole >= ${end}u) { return; }`
  }
  let x0 = token * ${up16(nCols) / 4}u;${sums.declare}${loops}${sums.reduce}
  for (var r = tid; r < ${rows}u; r += ${invocations}u) {
    let row = row0 + r;
    if (row >= ${nRows}u) { continue; }
    let factor = ${sums.factor('0u')};
    let g = ${sums.total('0u', 0, 'r')} * factor${factor('gateFactor')}${bias('gateBias')};
    let u = ${sums.total('0u', 1, 'r')} * factor${factor('upFactor')}${bias('upBias')};
    inner[token * ${tokenStride}u + slot * ${slotStride}u + row] = weight${factor('downFactor')} * gated(g, u);
  }
}`,
  });
}

/**
 * Workgroups of expertsIn().
 * @param {ExpertsInOptions} options
 * @param {number} nTokens
 */
export function expertsInGroups({ parts, nRows, layout, shared, form }, nTokens) {
  const { rows } = formOf(parts, nRows, form);
  return groupsOf(Math.ceil(nRows / rows) * nTokens * (shared ? 1 : layout.nUsed));
}

/**
 * @typedef {object} ExpertsOutOptions
 * @property {ExpertPart | undefined} experts  of down
 * @property {ExpertPart | undefined} shared  of the shared expert's
 * @property {number} nRows  of y, and of one expert's down
 * @property {InnerLayout} layout
 * @property {number | undefined} [bias]  where the rows of biases begin in `vectors`
 * @property {number} [residualScale]  y += residualScale * the sum; not given: y = the sum
 * @property {Form} form
 */

/**
 * Bindings: w0 (and w1, where both are given), x (the inner values), routes, vectors where there is
 * a bias, y.
 * @param {ExpertsOutOptions} options
 */
export function expertsOut({ experts, shared, nRows, layout, bias, residualScale, form }) {
  const parts = [experts, shared].filter((part) => part !== undefined);
  const units = parts.map(({ unit }) => unit);
  const { nUsed, slotStride, tokenStride } = layout;
  const own = formOf(parts, nRows, form);
  const { rows, invocations } = own;
  const nGroups = Math.ceil(nRows / rows);
  const words = routeWords({ nUsed });
  const sums = rowSums({ units, nTokens: 1, slots: 1, norm: undefined, ...own, xAt: () => 'x0' });
  /** The product of one slot. @param {ExpertPart} part @param {string} slot @param {string} expert */
  const product = ({ unit, first, whole }, slot, expert) => {
    const range = { from: '0u', to: `${Math.ceil(unit.nCols / 16)}u` };
    const row = (/** @type {string} */ r) =>
      `(${expert} * ${nRows}u + min(row0 + ${r}, ${nRows - 1}u) - ${first}u)`;
    const loop = sums.loop([units.indexOf(unit)], 0, row, range);
    const isHere = `${expert} * ${nRows}u + row0 >= ${first}u && ${expert} * ${nRows}u + row0 < ${first + unit.nRows}u`;
    return `
    let x0 = (token * ${tokenStride}u + ${slot} * ${slotStride}u) / 4u;
    ${whole ? '' : `if (${isHere}) `}{${loop}
    }`;
  };
  const biasHere = experts?.whole
    ? ''
    : `let row1 = expert * ${nRows}u + row;
      if (row1 < ${experts?.first}u || row1 >= ${(experts?.first ?? 0) + (experts?.unit.nRows ?? 0)}u) { continue; }`;
  const biases = `
    for (var slot = 0u; slot < ${nUsed}u; slot++) {
      let expert = routes[route + slot];${biasHere}
      sum += bitcast<f32>(routes[route + ${nUsed}u + slot]) * vector(${bias}u + expert * ${up16(nRows)}u + row);
    }`;
  const hasBias = experts && bias !== undefined;
  const scale = residualScale === undefined || residualScale === 1 ? '' : `${float(residualScale)} * `;
  return shader({
    name: `experts out ${units.map((unit) => `${unit.type} x${unit.nCols}`).join(', ')} to ${nRows}`,
    bindings: {
      ...sums.bindings,
      routes: 'read array<u32>',
      ...(hasBias && { vectors: 'read array<vec4f>' }),
      y: 'read_write array<f32>',
    },
    step: true,
    enable: sums.enable,
    workgroup: sums.workgroup,
    size: [invocations],
    code: `${sums.functions}${hasBias ? VECTOR : ''}
@compute
fn main(${sums.parameters}) {
  let index = wid.x + wid.z * count.x;
  let t = index / ${nGroups}u;
  let row0 = index % ${nGroups}u * ${rows}u;
  if (t >= step.n_tokens) { return; }
  let token = step.start + t;
  let route = token * ${words}u;${sums.declare}${
    experts
      ? `
  for (var slot = 0u; slot < ${nUsed}u; slot++) {
    let expert = routes[route + slot];${product(experts, 'slot', 'expert')}
  }`
      : ''
  }${shared ? `\n  {${product(shared, `${nUsed}u`, '0u')}\n  }` : ''}${sums.reduce}
  for (var r = tid; r < ${rows}u; r += ${invocations}u) {
    let row = row0 + r;
    if (row >= ${nRows}u) { continue; }
    var sum = ${sums.total('0u', 0, 'r')};${hasBias ? biases : ''}
    y[token * ${up16(nRows)}u + row] ${residualScale === undefined ? '=' : '+='} ${scale}sum;
  }
}`,
  });
}

/**
 * Workgroups of expertsOut().
 * @param {ExpertsOutOptions} options
 * @param {number} nTokens
 */
export function expertsOutGroups({ experts, shared, nRows, form }, nTokens) {
  const parts = [experts, shared].filter((part) => part !== undefined);
  return groupsOf(Math.ceil(nRows / formOf(parts, nRows, form).rows) * nTokens);
}
