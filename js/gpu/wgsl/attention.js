/* Softmax attention of few tokens over a cache: out = sum_j p_j v_j, p = softmax(cap(scale q k_j)).
 *
 * A workgroup takes one token, a stretch of positions (a split), and up to four query heads that
 * share a head of keys and values, so that a key is read once for all of them. Two lanes share a
 * position for the scores. For the values a lane has 4 or 8 columns, and takes positions in turn
 * with the other lanes that have the same ones. With several splits each writes its largest score,
 * its sum of weights and its weighted values, and mergeSplits() adds them up, always in the same
 * order.
 *
 * attention-tiles.js has the same for the many tokens of a prompt. */

import { float, shader, up16 } from '../shader.js';
import { cacheReader } from './cache.js';

/** @typedef {import('./cache.js').CacheShape} CacheShape */
/** @typedef {import('../shader.js').Shader} Shader */

/**
 * Rows of a buffer of f32, in values, all multiples of 4. Token t of a step has row step.start + t,
 * or, for a buffer that holds only a part of a batch, row t.
 * @typedef {object} Rows
 * @property {number} offset  of the first row
 * @property {number} stride  from row to row
 * @property {boolean} ofBatch  the buffer holds the whole batch
 */

/**
 * Attention of a layer.
 * @typedef {object} AttentionShape
 * @property {number} nHeads
 * @property {number} nKvHeads  a divisor of nHeads: query head h reads head floor(h / (nHeads /
 *   nKvHeads))
 * @property {number} headSize  a multiple of 4, up to 256
 * @property {CacheShape} cache
 * @property {number} scale  of the scores
 * @property {number} [softcap]  > 0: scores become softcap * tanh(score / softcap)
 * @property {number} [window]  > 0: with causal, a token sees the last `window` positions, its own
 *   included; without, positions up to floor(window / 2) away, to both sides
 * @property {boolean} [causal]  a token sees positions up to its own, otherwise `step.seen` of them
 * @property {boolean} [sinks]  a logit a head, in the variable `sinks`, has a part in the softmax
 *   and no value
 * @property {Rows} q  queries, [token][head][column], in the variable `q: array<vec4f>`
 * @property {Rows} [out]  results likewise; by default of a part, and up16(nHeads * headSize)
 *   values apart
 * @property {number} [split]  positions of a split, a multiple of 64
 */

const LANES = 128;
/** Lanes that share a position. */
const SHARE = 2;
/** Query heads of a workgroup, at most. */
const MOST_HEADS = 4;
const SPLIT = 128;

/** Less than any score. */
export const LEAST = -3.4e38;

/**
 * The most positions that a token sees before its own, and after it; undefined: no limit.
 * @param {Pick<AttentionShape, 'causal' | 'window'>} shape
 */
function reachOf({ causal = false, window = 0 }) {
  const half = Math.floor(window / 2);
  const before = causal ? window - 1 : half;
  return { before: window > 0 ? before : undefined, after: causal ? 0 : window > 0 ? half : undefined };
}

/**
 * Functions of the positions that token t of a step sees: from first_of(t) to end_of(t), one at
 * least. Neither is smaller for a later token.
 * @param {Pick<AttentionShape, 'causal' | 'window'>} shape
 */
export function seenPositions(shape) {
  const { before, after } = reachOf(shape);
  const end = `step.position + t + ${(after ?? 0) + 1}u`;
  const ends = after === undefined ? 'step.seen' : after === 0 ? end : `min(step.seen, ${end})`;
  const first =
    before === undefined ? 'return 0u;' : `let p = step.position + t; return p - min(p, ${before}u);`;
  return `
fn end_of(t: u32) -> u32 { return ${ends}; }
fn first_of(t: u32) -> u32 { ${first} }`;
}

/**
 * Functions of scores, of a scalar or vector type: capped(s), of products with queries that were
 * multiplied by queryFactor(); and weigh(d), e^d of the difference d to the largest score, where
 * everything below -104 is 0 in f32 anyway. tanh is made of exp: WGSL allows it errors of 1e-5.
 * @param {string} type
 * @param {number} [softcap]
 */
export const scoreFunctions = (type, softcap = 0) => `
fn weigh(d: ${type}) -> ${type} { return exp(max(d, ${type}(-104.0))); }
fn capped(s: ${type}) -> ${type} { ${
  softcap > 0
    ? `return ${float(softcap)} * sign(s) * (1.0 - 2.0 / (1.0 + exp(2.0 * min(abs(s), ${type}(15.0)))))`
    : 'return s'
}; }`;

/** @param {Pick<AttentionShape, 'scale' | 'softcap'>} shape */
export const queryFactor = ({ scale, softcap = 0 }) => float(softcap > 0 ? scale / softcap : scale);

/** The vec4f where the row of a token begins. @param {Rows} rows @param {string} token */
export const rowAt = ({ offset, stride, ofBatch }, token) =>
  `(${offset / 4}u + (${ofBatch ? 'step.start + ' : ''}${token}) * ${stride / 4}u)`;

/** @param {AttentionShape} shape @returns {Rows} */
export const outRows = ({ out, nHeads, headSize }) =>
  out ?? { offset: 0, stride: up16(nHeads * headSize), ofBatch: false };

/**
 * How many heads of queries share a head of keys, how many of them a workgroup has room for, and
 * the workgroups that take them all.
 * @param {AttentionShape} shape
 */
function dealHeads({ nHeads, nKvHeads }) {
  const group = nHeads / nKvHeads;
  const heads = group > 2 ? MOST_HEADS : group;
  return { group, heads, perGroup: Math.ceil(group / heads) };
}

/** The type of a number for each head of a workgroup. @type {Record<number, string>} */
const HEADS_TYPE = { 1: 'f32', 2: 'vec2f', 4: 'vec4f' };

/**
 * fold_NAME(tid, x): the sum or largest of x of all lanes, for all of them, in a fixed order.
 * @param {'sum' | 'max'} name
 * @param {string} type
 */
function fold(name, type) {
  const both = name === 'sum' ? 'x + folded[i]' : 'max(x, folded[i])';
  return `
fn fold_${name}(tid: u32, value: ${type}) -> ${type} {
  folded[tid] = value;
  workgroupBarrier();
  var x = value;
  if (tid < 16u) {
    for (var i = tid + 16u; i < ${LANES}u; i += 16u) { x = ${both}; }
    folded[tid] = x;
  }
  workgroupBarrier();
  x = folded[0];
  for (var i = 1u; i < 16u; i++) { x = ${both}; }
  workgroupBarrier();
  return x;
}`;
}

/**
 * The number of splits of a dispatch.
 * @param {Pick<AttentionShape, 'causal' | 'window' | 'split'>} shape
 * @param {number} seen  of its step
 */
export function splitsOf({ split = SPLIT, ...shape }, seen) {
  const { before = seen, after = seen } = reachOf(shape);
  return Math.ceil(Math.min(before + 1 + after, seen) / split);
}

/**
 * Workgroups of attention().
 * @param {AttentionShape} shape
 * @param {{ seen: number, nTokens: number }} step  seen: the last of its tokens sees no position
 *   from there on
 * @returns {[number, number, number]}
 */
export function attentionGroups(shape, { seen, nTokens }) {
  return [shape.nKvHeads * dealHeads(shape).perGroup, splitsOf(shape, seen), nTokens];
}

/**
 * Workgroups of mergeSplits().
 * @param {AttentionShape} shape
 * @param {{ nTokens: number }} step
 * @returns {[number, number, number]}
 */
export const mergeGroups = ({ nHeads }, { nTokens }) => [nHeads, nTokens, 1];

/**
 * Bytes of `parts`, with nothing beyond the splits of these positions.
 * @param {AttentionShape} shape
 * @param {{ seen: number, nTokens: number }} step
 */
export const partsBytes = (shape, { seen, nTokens }) =>
  splitsOf(shape, seen) * nTokens * shape.nHeads * (shape.headSize + 4) * 4;

/**
 * Where a part begins: the weighted values, then (largest score, sum of weights).
 * @param {AttentionShape} shape
 * @param {string} split
 * @param {string} head
 */
const partAt = ({ nHeads, headSize }, split, head) =>
  `((${split} * step.n_tokens + token) * ${nHeads}u + ${head}) * ${headSize / 4 + 1}u`;

/**
 * Attention of the tokens of a step: the results where splitsOf() is 1, otherwise the parts that
 * mergeSplits() takes.
 *
 * Variables: `q` and `cache`; `sinks`, an f32 a head, with sinks and without parts; `out` or
 * `parts`.
 * @param {AttentionShape & { parts: boolean }} shape
 * @returns {Shader}
 */
export function attention(shape) {
  const { nHeads, nKvHeads, headSize, cache, split = SPLIT, parts } = shape;
  const { group, heads, perGroup } = dealHeads(shape);
  const reader = cacheReader(cache);
  const { width } = reader;
  const fours = headSize / 4;
  const pieces = headSize / width;
  const stripes = Math.floor(LANES / pieces);
  const type = HEADS_TYPE[heads];
  const eachHead = Array.from({ length: heads }, (_, h) => h);
  const ofHead = (/** @type {string} */ v, /** @type {number} */ h) => (heads === 1 ? v : `${v}[${h}]`);
  const ragged = group % heads !== 0;
  const hasSinks = shape.sinks && !parts;
  const scores = reader.parts('k').map((four, j) => {
    const queries = eachHead.map((h) => `queries[a + ${j * heads + h}u]`);
    return heads === 1 ? `dot(${four}, ${queries})` : `${four} * mat${heads}x4f(${queries.join(', ')})`;
  });
  const sums = eachHead.map((h) => reader.parts('v').map((four, j) => ({ name: `o${h}_${j}`, four, h })));
  const stores = eachHead.map(
    (h) => `${h > 0 ? '\n  workgroupBarrier();' : ''}
  ${sums[h].map(({ name }, j) => `mixed[${j * LANES}u + tid] = ${name};`).join(' ')}
  workgroupBarrier();
  if (tid < ${fours}u${ragged && h > 0 ? ` && ${h}u < n_heads` : ''}) {
    let o = mix(tid);
    ${
      parts
        ? `let at = ${partAt(shape, 'wid.y', `(head + ${h}u)`)};
    parts[at + tid] = o;
    if (tid == 0u) { parts[at + ${fours}u] = vec4f(${ofHead('largest', h)}, ${ofHead('sum', h)}, 0.0, 0.0); }`
        : `out[${rowAt(outRows(shape), 'token')} + (head + ${h}u) * ${fours}u + tid] = o / ${ofHead('sum', h)};`
    }
  }`,
  );
  return shader({
    name: `attention ${cache.type} ${nHeads}/${nKvHeads}x${headSize}${parts ? ' in splits' : ''}`,
    bindings: {
      q: 'read array<vec4f>',
      cache: `read array<${reader.type}>`,
      ...(hasSinks && { sinks: 'read array<f32>' }),
      [parts ? 'parts' : 'out']: 'read_write array<vec4f>',
    },
    step: true,
    workgroup: {
      queries: `array<vec4f, ${heads * fours}>`,
      scores: `array<${type}, ${split * SHARE}>`,
      folded: `array<${type}, ${LANES}>`,
      mixed: `array<vec4f, ${(LANES * width) / 4}>`,
    },
    size: [LANES],
    code: `${reader.code}${seenPositions(shape)}${scoreFunctions(type, shape.softcap)}${fold('max', type)}${fold('sum', type)}
fn mix(four: u32) -> vec4f {
  var o = vec4f(0.0);
  let at = four % ${width / 4}u * ${LANES}u + four / ${width / 4}u;
  for (var i = 0u; i < ${stripes}u; i++) { o += mixed[at + i * ${pieces}u]; }
  return o;
}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u) {
  let token = wid.z;
  let end = end_of(token);
  let begin = first_of(token) + wid.y * ${split}u;
  if (begin >= end) { return; }
  let n = min(end - begin, ${split}u);
  let kv_head = wid.x / ${perGroup}u;
  let first = wid.x % ${perGroup}u * ${heads}u;
  let head = kv_head * ${group}u + first;
  let n_heads = min(${group}u - first, ${heads}u);
  let column = kv_head * ${headSize}u;
  for (var i = tid; i < ${heads * fours}u; i += ${LANES}u) {
    // A head that is missing is the last one again.
    let h = head + min(i % ${heads}u, n_heads - 1u);
    queries[i] = ${queryFactor(shape)} * q[${rowAt(shape.q, 'token')} + h * ${fours}u + i / ${heads}u];
  }
  workgroupBarrier();
  for (var i = tid; i < n * ${SHARE}u; i += ${LANES}u) {
    var s = ${type}(0.0);
    for (var j = i % ${SHARE}u; j < ${pieces}u; j += ${SHARE}u) {
      let k = key(begin + i / ${SHARE}u, column + j * ${width}u);
      let a = j * ${(heads * width) / 4}u;
      s += ${scores.join(' + ')};
    }
    scores[i] = s;
  }
  workgroupBarrier();
  var largest = ${type}(${LEAST});
  for (var i = tid; i < n; i += ${LANES}u) {
    let s = capped(scores[i * ${SHARE}u] + scores[i * ${SHARE}u + 1u]);
    scores[i * ${SHARE}u] = s;
    largest = max(largest, s);
  }
  largest = fold_max(tid, largest);${
    hasSinks
      ? `
  let sink = ${type}(${eachHead.map((h) => `sinks[head + min(${h}u, n_heads - 1u)]`).join(', ')});
  largest = max(largest, sink);`
      : ''
  }
  var sum = ${type}(0.0);
  for (var i = tid; i < n; i += ${LANES}u) {
    let w = weigh(scores[i * ${SHARE}u] - largest);
    scores[i * ${SHARE}u] = w;
    sum += w;
  }
  sum = fold_sum(tid, sum);${hasSinks ? '\n  sum += weigh(sink - largest);' : ''}
  let piece = tid % ${pieces}u;
  let stripe = tid / ${pieces}u;
${sums
  .flat()
  .map(({ name }) => `  var ${name} = vec4f(0.0);`)
  .join('\n')}
  if (stripe < ${stripes}u) {
    for (var i = stripe; i < n; i += ${stripes}u) {
      let w = scores[i * ${SHARE}u];
      let v = value(begin + i, column + piece * ${width}u);
${sums
  .flat()
  .map(({ name, four, h }) => `      ${name} += ${ofHead('w', h)} * ${four};`)
  .join('\n')}
    }
  }${stores.join('')}
}`,
  });
}

/**
 * Adds up the parts of attention(). Variables: `parts`; `sinks` with sinks; `out`.
 * @param {AttentionShape} shape
 * @returns {Shader}
 */
export function mergeSplits(shape) {
  const { nHeads, headSize, split = SPLIT, sinks } = shape;
  const fours = headSize / 4;
  const stripes = Math.floor(LANES / fours);
  return shader({
    name: `merge splits ${nHeads}x${headSize}`,
    bindings: {
      parts: 'read array<vec4f>',
      ...(sinks && { sinks: 'read array<f32>' }),
      out: 'read_write array<vec4f>',
    },
    step: true,
    workgroup: { folded: `array<f32, ${LANES}>`, mixed: `array<vec4f, ${LANES}>` },
    size: [LANES],
    code: `${seenPositions(shape)}${scoreFunctions('f32')}${fold('max', 'f32')}${fold('sum', 'f32')}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u) {
  let head = wid.x;
  let token = wid.y;
  let end = end_of(token);
  let n = (end - first_of(token) + ${split - 1}u) / ${split}u;
  var largest = ${sinks ? 'sinks[head]' : `f32(${LEAST})`};
  for (var i = tid; i < n; i += ${LANES}u) { largest = max(largest, parts[${partAt(shape, 'i', 'head')} + ${fours}u].x); }
  largest = fold_max(tid, largest);
  var sum = 0.0;
  var o = vec4f(0.0);
  let four = tid % ${fours}u;
  let stripe = tid / ${fours}u;
  if (stripe < ${stripes}u) {
    for (var i = stripe; i < n; i += ${stripes}u) {
      let at = ${partAt(shape, 'i', 'head')};
      let of_split = parts[at + ${fours}u];
      let w = weigh(of_split.x - largest);
      o += w * parts[at + four];
      if (four == 0u) { sum += w * of_split.y; }
    }
  }
  mixed[tid] = o;
  sum = fold_sum(tid, sum)${sinks ? ' + weigh(sinks[head] - largest)' : ''};
  if (tid < ${fours}u) {
    for (var i = 1u; i < ${stripes}u; i++) { o += mixed[tid + i * ${fours}u]; }
    out[${rowAt(outRows(shape), 'token')} + head * ${fours}u + tid] = o / sum;
  }
}`,
  });
}
