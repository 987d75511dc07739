/* Softmax attention of the many tokens of a prompt: the same shapes, variables and results as in
 * attention.js.
 *
 * A workgroup takes 32 rows of queries, which are tokens by the heads that share a head of keys,
 * and goes over the positions that they see in tiles of 32. Scores are computed in chunks of 32
 * columns: queries and keys of a chunk are staged in workgroup memory, and so are the values
 * afterwards. The softmax is online: where a tile has a larger score, the sums so far are scaled
 * down.
 *
 * Lane (y, x) of 16 x 8 has rows 2y and 2y + 1: first their scores at positions x, x + 8, x + 16
 * and x + 24 of a tile, then their sums in four columns of each chunk. Staged rows are 9 vec4f
 * apart, so that neighbouring rows lie in different banks. */

import { float, shader } from '../shader.js';
import { LEAST, outRows, queryFactor, rowAt, scoreFunctions, seenPositions } from './attention.js';
import { cacheReader } from './cache.js';

/** @typedef {import('./attention.js').AttentionShape} AttentionShape */
/** @typedef {import('../shader.js').Shader} Shader */

/** Rows of queries, and positions, of a tile. */
const TILE = 32;
const LANES = 128;
/** vec4f from one staged row to the next. */
const STRIDE = 9;
/** Columns of a chunk. */
const CHUNK = 32;

/**
 * Workgroups of attentionTiles().
 * @param {AttentionShape} shape
 * @param {{ nTokens: number }} step
 * @returns {[number, number, number]}
 */
export const tileGroups = ({ nHeads, nKvHeads }, { nTokens }) => [
  Math.ceil((nTokens * nHeads) / nKvHeads / TILE),
  nKvHeads,
  1,
];

/**
 * Attention of the tokens of a step. A NaN or infinity among the values that one of them sees may
 * spread to the others of its tile.
 *
 * Variables: `q` and `cache`; `sinks`, an f32 a head, with sinks; `out`.
 * @param {AttentionShape} shape
 * @returns {Shader}
 */
export function attentionTiles(shape) {
  const { nHeads, nKvHeads, headSize, cache, sinks } = shape;
  const group = nHeads / nKvHeads;
  const reader = cacheReader(cache);
  const { width } = reader;
  const fours = headSize / 4;
  const chunks = Array.from({ length: Math.ceil(headSize / CHUNK) }, (_, i) => i);
  const ragged = headSize % CHUNK !== 0;
  /** Columns beyond a head are zeros. @param {string} four */
  const inHead = (four) => (ragged ? `select(vec4f(0.0), ${four}, column < ${headSize}u)` : four);
  /** @param {string} column @param {number} width  of a read */
  const atMost = (column, width) => (ragged ? `min(${column}, ${headSize - width}u)` : column);
  /**
   * Stages a tile of keys or values.
   * @param {'key' | 'value'} read
   * @param {string} first  column
   */
  const stage = (read, first) => `
    for (var i = tid; i < ${(TILE * CHUNK) / width}u; i += ${LANES}u) {
      let row = i / ${CHUNK / width}u;
      let piece = i % ${CHUNK / width}u;
      let at = row * ${STRIDE}u + piece * ${width / 4}u;
      let column = ${first} + piece * ${width}u;
      let p = min(tile + row, end - 1u);
      let v = ${read}(p, kv_head * ${headSize}u + ${atMost('column', width)});${reader
        .parts('v')
        .map((four, j) => `\n      staged[at + ${j}u] = ${inHead(four)};`)
        .join('')}
    }`;
  const eachRow = [0, 1];
  const four = (/** @type {string} */ first, /** @type {string} */ step) =>
    `mat4x4f(${[0, 1, 2, 3].map((n) => `staged[${first} + ${n * 8 * STRIDE}u${step}]`).join(', ')})`;
  const rows = (/** @type {(r: number) => string} */ line, indent = '    ') =>
    eachRow.map((r) => `\n${indent}${line(r)}`).join('');
  const mixing = chunks.map(
    (c) => `${c > 0 ? '\n    workgroupBarrier();' : ''}${stage('value', `${c * CHUNK}u`)}
    workgroupBarrier();${rows((r) => `o${r}_${c} *= shrink[${r}];`)}
    for (var j = 0u; j < 8u; j++) {
      let v = ${four(`j * ${STRIDE}u`, ' + x')};${rows(
        (r) =>
          `let w${r} = weights[y * ${2 * STRIDE}u + ${r * STRIDE}u + j];
      o${r}_${c} += v * w${r};${c === 0 ? `\n      sum[${r}] += dot(w${r}, vec4f(1.0));` : ''}`,
        '      ',
      )}
    }`,
  );
  return shader({
    name: `attention tiles ${cache.type} ${nHeads}/${nKvHeads}x${headSize}`,
    bindings: {
      q: 'read array<vec4f>',
      cache: `read array<${reader.type}>`,
      ...(sinks && { sinks: 'read array<f32>' }),
      out: 'read_write array<vec4f>',
    },
    step: true,
    workgroup: {
      queries: `array<vec4f, ${TILE * STRIDE}>`,
      staged: `array<vec4f, ${TILE * STRIDE}>`,
      weights: `array<vec4f, ${TILE * STRIDE}>`,
      peaks: `array<f32, ${TILE * 8}>`,
    },
    size: [LANES],
    code: `${reader.code}${seenPositions(shape)}${scoreFunctions('vec4f', shape.softcap)}
fn peak(s: vec4f) -> f32 { return max(max(s.x, s.y), max(s.z, s.w)); }
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) size: vec3u) {
  // The last rows see most and come first.
  let first_row = (size.x - 1u - wid.x) * ${TILE}u;
  if (first_row >= step.n_tokens * ${group}u) { return; }
  let kv_head = wid.y;
  let last_row = min(first_row + ${TILE}u, step.n_tokens * ${group}u) - 1u;
  let end = end_of(last_row / ${group}u);
  let x = tid % 8u;
  let y = tid / 8u;${rows(
    (r) => `let row${r} = min(first_row + 2u * y + ${r}u, last_row);
  let end${r} = end_of(row${r} / ${group}u);
  let first${r} = first_of(row${r} / ${group}u);
  let head${r} = kv_head * ${group}u + row${r} % ${group}u;
${chunks.map((c) => `  var o${r}_${c} = vec4f(0.0);`).join('\n')}`,
    '  ',
  )}
  var largest = vec2f(${sinks ? 'sinks[head0], sinks[head1]' : float(LEAST)});
  var sum = vec2f(${sinks ? '1.0' : '0.0'});
  for (var tile = first_of(first_row / ${group}u); tile < end; tile += ${TILE}u) {${rows((r) => `var s${r} = vec4f(0.0);`)}
    for (var chunk = 0u; chunk < ${headSize}u; chunk += ${CHUNK}u) {
      workgroupBarrier();
      for (var i = tid; i < ${(TILE * CHUNK) / 4}u; i += ${LANES}u) {
        let row = min(first_row + i / ${CHUNK / 4}u, last_row);
        let column = chunk + i % ${CHUNK / 4}u * 4u;
        let at = ${rowAt(shape.q, `row / ${group}u`)} + (kv_head * ${group}u + row % ${group}u) * ${fours}u + ${atMost('column', 4)} / 4u;
        queries[i / ${CHUNK / 4}u * ${STRIDE}u + i % ${CHUNK / 4}u] = ${inHead(`${queryFactor(shape)} * q[at]`)};
      }${stage('key', 'chunk')}
      workgroupBarrier();
      for (var j = 0u; j < 8u; j++) {
        let k = ${four(`x * ${STRIDE}u`, ' + j')};${rows((r) => `s${r} += queries[y * ${2 * STRIDE}u + ${r * STRIDE}u + j] * k;`, '        ')}
      }
    }
    let p = tile + x + vec4u(0u, 8u, 16u, 24u);${rows(
      (r) => `let seen${r} = (p < vec4u(end${r})) & (p >= vec4u(first${r}));
    s${r} = select(vec4f(${LEAST}), capped(s${r}), seen${r});
    peaks[(2u * y + ${r}u) * 8u + x] = peak(s${r});`,
    )}
    workgroupBarrier();
    var larger = largest;
    for (var i = 0u; i < 8u; i++) { larger = max(larger, vec2f(peaks[y * 16u + i], peaks[y * 16u + 8u + i])); }
    let shrink = weigh((largest - larger).xyxy);
    largest = larger;
    sum *= shrink.xy;${rows((r) => `weights[(2u * y + ${r}u) * ${STRIDE}u + x] = select(vec4f(0.0), weigh(s${r} - larger[${r}]), seen${r});`)}${mixing.join('')}
  }${rows(
    (r) => `if (first_row + 2u * y + ${r}u <= last_row) {
    let at = ${rowAt(outRows(shape), `row${r} / ${group}u`)} + head${r} * ${fours}u + x;${chunks
      .map((c) => {
        const store = `out[at + ${(c * CHUNK) / 4}u] = o${r}_${c} / sum[${r}];`;
        const isWhole = (c + 1) * CHUNK <= headSize;
        return `\n    ${isWhole ? store : `if (x < ${fours - (c * CHUNK) / 4}u) { ${store} }`}`;
      })
      .join('')}
  }`,
    '  ',
  )}
}`,
  });
}
