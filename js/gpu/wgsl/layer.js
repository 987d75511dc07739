/* Row by row operations of a layer: norms, gates, sums, softmax, and the search for numbers that
 * cannot be right. Rows have a stride of up16(nCols) values, and the first one is row `step.start`,
 * unless an option says that it is row 0. */

import { float, groupsOf, shader, up16 } from '../shader.js';

/** Invocations of a workgroup that has one row. */
const WIDE = 256;

/** Adds up `sum` over a workgroup; every invocation has the total in `sum` afterwards. */
const ADD_UP = `
  partial[tid] = sum;
  workgroupBarrier();
  for (var n = ${WIDE / 2}u; n > 0u; n >>= 1u) {
    if (tid < n) { partial[tid] += partial[tid + n]; }
    workgroupBarrier();
  }
  sum = partial[0];
  workgroupBarrier();`;

/** The same for the largest. */
const LARGEST = ADD_UP.replaceAll('sum', 'largest').replace(
  'partial[tid] += partial[tid + n];',
  'partial[tid] = max(partial[tid], partial[tid + n]);',
);

/** tanh of what may be large: some drivers overflow. */
const TANH = `
fn bounded_tanh(x: vec4f) -> vec4f { return tanh(clamp(x, vec4f(-20.0), vec4f(20.0))); }`;

/** Activations of feed-forward blocks and gates of attention, by name, as functions of vec4f. */
const ACTIVATIONS = {
  relu: `
fn act(x: vec4f) -> vec4f { return max(x, vec4f(0.0)); }`,
  relu2: `
fn act(x: vec4f) -> vec4f { let y = max(x, vec4f(0.0)); return y * y; }`,
  silu: `
fn act(x: vec4f) -> vec4f { return x / (1.0 + exp(-x)); }`,
  sigmoid: `
fn act(x: vec4f) -> vec4f { return 1.0 / (1.0 + exp(-x)); }`,
  gelu: `${TANH}
fn act(x: vec4f) -> vec4f { return 0.5 * x * (1.0 + bounded_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }`,
};

const HEAD = `
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u) {`;

/** Workgroups of kernels with a row each. @param {number} nRows */
export const rowGroups = (nRows) => groupsOf(nRows);

/**
 * A shader with a workgroup a row.
 * @param {string} name
 * @param {Record<string, string>} bindings
 * @param {string} body
 * @param {string} [functions]
 */
const byRow = (name, bindings, body, functions = '') =>
  shader({
    name,
    bindings,
    step: true,
    workgroup: { partial: `array<f32, ${WIDE}>` },
    size: [WIDE],
    code: `${functions}${HEAD}
  let t = wid.x + wid.z * nwg.x;
  if (t >= step.n_tokens) { return; }${body}
}`,
  });

/**
 * The row's norm, ready to be multiplied: `value(i)` is its i-th vec4f.
 * @param {'rms' | 'layer'} kind
 * @param {{ nCols: number, eps: number }} row  it begins at the vec4f `row`
 */
function normOf(kind, { nCols, eps }) {
  const loop = (/** @type {string} */ body) =>
    `for (var i = tid; i < ${up16(nCols) / 4}u; i += ${WIDE}u) { ${body} }`;
  // The padding is zero; minus the mean it is not, so it is left out of the sum of squares.
  const inside = `select(vec4f(0.0), v, vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u) < vec4u(${nCols}u))`;
  const mean =
    kind === 'layer'
      ? `
  ${loop(`let v = x[row + i]; sum += v.x + v.y + v.z + v.w;`)}${ADD_UP}
  let mean = sum / ${float(nCols)};
  sum = 0.0;`
      : '';
  return `
  var sum = 0.0;${mean}
  ${loop(
    kind === 'layer'
      ? `var v = x[row + i] - mean; v = ${inside}; sum += dot(v, v);`
      : `let v = x[row + i]; sum += dot(v, v);`,
  )}${ADD_UP}
  let scale = inverseSqrt(sum / ${float(nCols)} + ${float(eps)});`;
}

/**
 * y = norm(x) * weight (+ bias, of layer norms that have one).
 * @param {{ kind?: 'rms' | 'layer', nCols: number, eps: number, bias?: boolean,
 *   toZero?: boolean, inPlace?: boolean }} options  toZero: the first row of y is row 0, of x it is
 *   step.start; inPlace: x is y
 */
export function norm({ kind = 'rms', nCols, eps, bias = false, toZero = false, inPlace = false }) {
  const stride = up16(nCols) / 4;
  return byRow(
    `${kind} norm of ${nCols}`,
    {
      x: `${inPlace ? 'read_write' : 'read'} array<vec4f>`,
      weight: 'read array<vec4f>',
      ...(bias && { bias: 'read array<vec4f>' }),
      ...(!inPlace && { y: 'read_write array<vec4f>' }),
    },
    `
  let row = (step.start + t) * ${stride}u;
  let to = ${toZero ? 't' : '(step.start + t)'} * ${stride}u;${normOf(kind, { nCols, eps })}
  for (var i = tid; i < ${stride}u; i += ${WIDE}u) {
    ${inPlace ? 'x' : 'y'}[to + i] = ${kind === 'layer' ? '(x[row + i] - mean)' : 'x[row + i]'} * scale * weight[i]${bias ? ' + bias[i]' : ''};
  }`,
  );
}

/**
 * y += scale * norm(x) * weight; without a norm y += scale * x.
 * @param {{ nCols: number, scale: number,
 *   norm?: { kind: 'rms' | 'layer', eps: number } | undefined }} options
 */
export function addTo({ nCols, scale, norm: of }) {
  const stride = up16(nCols) / 4;
  return byRow(
    `scaled add of ${nCols}`,
    {
      x: 'read array<vec4f>',
      ...(of && { weight: 'read array<vec4f>' }),
      y: 'read_write array<vec4f>',
    },
    `
  let row = (step.start + t) * ${stride}u;${of ? normOf(of.kind, { nCols, eps: of.eps }).replace('let scale =', 'let by =') : ''}
  for (var i = tid; i < ${stride}u; i += ${WIDE}u) {
    y[row + i] += ${float(scale)} * ${of ? `${of.kind === 'layer' ? '(x[row + i] - mean)' : 'x[row + i]'} * by * weight[i]` : 'x[row + i]'};
  }`,
  );
}

/**
 * x = act(x) * y, or act(x) where there is no gate.
 * @param {{ nCols: number, activation: keyof typeof ACTIVATIONS, plain?: boolean }} options  plain:
 *   no gate
 */
export function gate({ nCols, activation, plain = false }) {
  const stride = up16(nCols) / 4;
  return byRow(
    `${activation} of ${nCols}`,
    { ...(!plain && { y: 'read array<vec4f>' }), x: 'read_write array<vec4f>' },
    `
  let row = (step.start + t) * ${stride}u;
  for (var i = tid; i < ${stride}u; i += ${WIDE}u) { x[row + i] = act(x[row + i])${plain ? '' : ' * y[row + i]'}; }`,
    ACTIVATIONS[activation],
  );
}

/**
 * Multiplies queries by a factor of their position: 1 + scale * ln(1 + floor(position / length)).
 * @param {{ nCols: number, stride: number, offset: number, scale: number, length: number }} options
 *   nCols: values of a row; stride, offset: where the rows begin
 */
export function temper({ nCols, stride, offset, scale, length }) {
  return byRow(
    `temperature of ${nCols}`,
    { x: 'read_write array<f32>' },
    `
  let row = ${offset}u + (step.start + t) * ${stride}u;
  let factor = 1.0 + ${float(scale)} * log(1.0 + f32((step.position + t) / ${length}u));
  for (var i = tid; i < ${nCols}u; i += ${WIDE}u) { x[row + i] *= factor; }`,
  );
}

/**
 * x = softcap * tanh(scale * x / softcap), with a softcap of 0 x = scale * x.
 * @param {{ nCols: number, scale: number, softcap: number, fromZero?: boolean }} options  fromZero:
 *   the first row is row 0
 */
export function scaleAndCap({ nCols, scale, softcap, fromZero = false }) {
  const stride = up16(nCols) / 4;
  const value =
    softcap > 0
      ? `${float(softcap)} * bounded_tanh(x[row + i] * ${float(scale / softcap)})`
      : `${float(scale)} * x[row + i]`;
  return byRow(
    `scale of ${nCols}`,
    { x: 'read_write array<vec4f>' },
    `
  let row = ${fromZero ? 't' : '(step.start + t)'} * ${stride}u;
  for (var i = tid; i < ${stride}u; i += ${WIDE}u) { x[row + i] = ${value}; }`,
    softcap > 0 ? TANH : '',
  );
}

/** x = softmax(x). @param {{ nCols: number }} options */
export function softmax({ nCols }) {
  const stride = up16(nCols);
  const loop = (/** @type {string} */ body) => `for (var i = tid; i < ${nCols}u; i += ${WIDE}u) { ${body} }`;
  return byRow(
    `softmax of ${nCols}`,
    { x: 'read_write array<f32>' },
    `
  let row = (step.start + t) * ${stride}u;
  var largest = -3.4e38;
  ${loop('largest = max(largest, x[row + i]);')}${LARGEST}
  var sum = 0.0;
  ${loop('let e = exp(x[row + i] - largest); x[row + i] = e; sum += e;')}${ADD_UP}
  ${loop('x[row + i] /= sum;')}`,
  );
}
