/* What becomes of the sums of a product: norm, bias, gate, residual. */

import { float } from '../shader.js';

/** @typedef {import('./matvec.js').MatvecPlan} MatvecPlan */

/** e^x stays finite between these. */
const EXP_END = '80.0';

/** z of a gate x / (1 + e^-z); 'gelu' is the tanh form, 0.5 x (1 + tanh(z / 2)). */
const ACTIVATIONS = {
  silu: 'a',
  clamped: '1.702 * a',
  gelu: 'a * (1.5957691216057308 + 0.07135481282553536 * a * a)',
};

/** vector(i): a value of `vectors`. */
export const VECTOR = 'fn vector(i: u32) -> f32 { return vectors[i / 4u][i % 4u]; }';

/** activated(a): the activation of a gate. @param {keyof typeof ACTIVATIONS} activation */
export const activated = (activation) => `
fn activated(a: f32) -> f32 { return a / (1.0 + exp(clamp(-(${ACTIVATIONS[activation]}), -${EXP_END}, ${EXP_END}))); }`;

/** @param {MatvecPlan} plan  functions that store() needs */
export const storeFunctions = ({ epilogue, activation, biases }) =>
  `${biases ? VECTOR : ''}${epilogue === 'gated' ? activated(activation) : ''}`;

/**
 * Statements that store the output of row `row` of all rows and of token `t`.
 * @param {MatvecPlan} plan
 * @param {(slot: number) => string} sum  of the row; of slot 1 where there is a gate
 * @param {string} factor  of the sums
 */
export function store(plan, sum, factor) {
  const { epilogue, biases, residualScale, firsts, fromZero, yStride, yRowOffset } = plan;
  const gated = epilogue === 'gated';
  // Rows of the units follow one another, their biases need not.
  const bias = (/** @type {number} */ slot) => {
    if (!biases) return '';
    if (gated) return ` + vector(row + ${biases[slot]}u)`;
    const at = biases.map((first, i) => `row + ${first}u - ${firsts[i]}u`);
    return ` + vector(${at.reduce((code, next, i) => `select(${code}, ${next}, row >= ${firsts[i]}u)`)})`;
  };
  const value = (/** @type {number} */ slot) => `${sum(slot)} * factor${bias(slot)}`;
  const scale = residualScale === 1 ? '' : `${float(residualScale)} * `;
  const result = {
    store: `= ${value(0)}`,
    add: `+= ${scale}(${value(0)})`,
    gated: `= activated(${gated ? value(0) : ''}) * (${gated ? value(1) : ''})`,
  }[epilogue];
  const first = fromZero ? 't' : '(step.start + t)';
  return `
    let factor = ${factor};
    y[${first} * ${yStride}u + ${yRowOffset}u + row] ${result};`;
}
