/* States of heads that go from token to token: those of gated delta nets and of Mamba-2.
 *
 * A head has a matrix S with a column for each of its values. A token brings a key k and a query q, which
 * heads may share, and for each column a value v:
 *
 *   delta   S = decay S + k' w,  w = beta (v - decay S^T k'),  y = S^T q' / sqrt(rows)
 *           k', q': divided by their norms
 *   scan    S = decay S + k w,   w = step v,                   y = S^T q + d v
 *
 * with step = softplus(t + bias) and decay = e^(a step). Columns do not need one another, so a workgroup
 * has some columns of a head, and its invocations have pieces of them in registers. The products with the
 * old S give y as well, since S^T q = decay S^T q + (k q) w: one exchange between invocations is enough
 * for a token. */

import { float, groupsOf, shader, up16 } from '../shader.js';

/** Columns of a workgroup, and pieces of a column, at most. */
const COLUMNS = 32;
const PIECES = 8;

/**
 * State and copy are `array<f32>`, the matrices of the heads row by row from `first` on. At position 0
 * the state is zeros, whatever is there. Of several tokens the copy is made before the last one.
 * @typedef {object} RecurrenceOptions
 * @property {number} nHeads
 * @property {number} rows  of S, a multiple of 4
 * @property {number} cols  of S
 * @property {number} stride  between rows of x, a multiple of 4
 * @property {{ key: number, query: number, value: number, step: number, beta?: number }} at  where they
 *   begin in a row of x; keys and queries at multiples of 4
 * @property {'delta' | 'scan'} kind
 * @property {number} nKeyHeads  delta: head h has the key h % nKeyHeads; scan: neighbours share keys
 * @property {number} [eps]  delta: added to the squares of a key or a query
 * @property {number} [numbers]  values from one `a` or `d` to the next; default 1
 * @property {number} first  where the matrices begin in the state
 */

/** softplus(v) = ln(1 + e^v), by a series: log() errs too much near 1. */
const SOFTPLUS = `
fn softplus(v: f32) -> f32 {
  let e = exp(-abs(v));
  let s = e / (2.0 + e);
  let z = s * s;
  let series = 1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0 + z / 15.0))))));
  return max(v, 0.0) + 2.0 * s * series;
}`;

/** @param {RecurrenceOptions} options */
function cut({ rows, cols }) {
  const n = Math.min(COLUMNS, 2 ** Math.ceil(Math.log2(cols)));
  let pieces = PIECES;
  while (rows % (4 * pieces) !== 0) pieces /= 2;
  return { n, pieces, size: rows / pieces, parts: Math.ceil(cols / n) };
}

/** @param {RecurrenceOptions} options */
export function recurrence(options) {
  const { nHeads, rows, cols, stride, at, kind, nKeyHeads, eps = 0, numbers = 1, first } = options;
  const { n, pieces, size, parts } = cut(options);
  const isDelta = kind === 'delta';
  const keyHead = isDelta ? `head % ${nKeyHeads}u` : `head / ${nHeads / nKeyHeads}u`;
  const each = (/** @type {string} */ body) => `for (var i = 0u; i < ${size / 4}u; i++) { ${body} }`;
  const cell = (/** @type {number} */ r) => `cell + (4u * i + ${r}u) * ${cols}u`;
  const load = each(`s[i] = vec4f(${[0, 1, 2, 3].map((r) => `state[${cell(r)}]`).join(', ')});`);
  const put = (/** @type {string} */ to) =>
    each([0, 1, 2, 3].map((r) => `${to}[${cell(r)}] = s[i][${r}];`).join(' '));
  const token = isDelta
    ? `
    let of_key = inverseSqrt(max(all.x + ${float(eps)}, 1.2e-38));
    let of_query = inverseSqrt(max(all.y + ${float(eps)}, 1.2e-38)) * ${float(1 / Math.sqrt(rows))};
    let beta = 1.0 / (1.0 + exp(clamp(-value(row + ${at.beta ?? 0}u + head), -80.0, 80.0)));
    let w = of_key * beta * (v - decay * of_key * sums.x);
    let result = of_query * (decay * sums.y + all.z * w);`
    : `
    let w = time * v;
    let result = decay * sums.y + all.z * w + d[head * ${numbers}u] * v;`;
  return shader({
    name: `${kind} of ${nHeads} x ${rows} x ${cols}`,
    bindings: {
      x: 'read array<vec4f>',
      a: 'read array<f32>',
      bias: 'read array<f32>',
      ...(!isDelta && { d: 'read array<f32>' }),
      state: 'read_write array<f32>',
      saved: 'read_write array<f32>',
      y: 'read_write array<f32>',
    },
    step: true,
    // Tokens use both halves by turns.
    workgroup: {
      partial: `array<vec2f, ${2 * n * pieces}>`,
      squares: `array<vec4f, ${2 * pieces}>`,
    },
    size: [n * pieces],
    code: `
fn value(i: u32) -> f32 { return x[i / 4u][i % 4u]; }${SOFTPLUS}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) count: vec3u) {
  let group = wid.x + wid.z * count.x;
  if (group >= ${nHeads * parts}u) { return; }
  let head = group / ${parts}u;
  let c = tid % ${n}u;
  let piece = tid / ${n}u;
  let column = group % ${parts}u * ${n}u + c;
  let inside = column < ${cols}u;
  let keys = (${keyHead}) * ${rows}u + piece * ${size}u;
  let cell = ${first}u + (head * ${rows}u + piece * ${size}u) * ${cols}u + column;
  var s: array<vec4f, ${size / 4}>;
  if (step.position > 0u && inside) { ${load} }
  for (var t = 0u; t < step.n_tokens; t++) {
    let row = (step.start + t) * ${stride}u;
    let key = (row + ${at.key}u + keys) / 4u;
    let query = (row + ${at.query}u + keys) / 4u;
    var sums = vec2f(0.0);
    var all = vec3f(0.0);
    ${each('let k = x[key + i]; let q = x[query + i]; sums += vec2f(dot(s[i], k), dot(s[i], q)); all += vec3f(dot(k, k), dot(q, q), dot(k, q));')}
    let half = t & 1u;
    partial[half * ${n * pieces}u + tid] = sums;
    if (c == 0u) { squares[half * ${pieces}u + piece] = vec4f(all, 0.0); }
    workgroupBarrier();
    sums = vec2f(0.0);
    all = vec3f(0.0);
    for (var p = 0u; p < ${pieces}u; p++) {
      sums += partial[half * ${n * pieces}u + p * ${n}u + c];
      all += squares[half * ${pieces}u + p].xyz;
    }
    let time = softplus(value(row + ${at.step}u + head) + bias[head]);
    let decay = exp(a[head * ${numbers}u] * time);
    let v = value(row + ${at.value}u + head * ${cols}u + min(column, ${cols - 1}u));${token}
    ${each('s[i] = decay * s[i] + w * x[key + i];')}
    if (inside && piece == 0u) { y[(step.start + t) * ${up16(nHeads * cols)}u + head * ${cols}u + column] = result; }
    if (inside && t + 2u == step.n_tokens) { ${put('saved')} }
  }
  if (inside) { ${put('state')} }
}`,
  });
}

/** Workgroups of recurrence(). @param {RecurrenceOptions} options */
export const recurrenceGroups = (options) => groupsOf(options.nHeads * cut(options).parts);
