/* The largest logits of a row, so that the choice of a token needs few bytes from the GPU, or none.
 *
 * Candidates are pairs of words: the bits of a logit and its index. Larger logits come first, among
 * equal ones the lower index; NaN comes after everything. Orders are those of js/llama/sampler.js,
 * so both choose the same token. */

import { LARGEST_F32 } from '../../llama/numeric.js';
import { groupsOf, shader, up16 } from '../shader.js';
import { faultNote, faultPart, largestBits } from './faults.js';

/**
 * Candidates that a workgroup sorts: 8 bytes each fill the workgroup memory that every device has.
 */
const SORTED = 2048;

/** Values that a workgroup of argmax looks at. */
const CHUNK = 4096;

/** The most candidates that topK gives. */
export const MAX_CANDIDATES = 128;

/** Bits of an f32 as a word of the same order, NaN lowest and -0 as 0; and the way back. */
const ORDER = `
fn rank_of(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0u; }
  if (bits == 0x80000000u) { return bits; }
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}
fn bits_of(rank: u32) -> u32 {
  if (rank == 0u) { return 0x7fc00000u; }
  return select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u);
}`;

/**
 * WGSL with which the first pass notes faults among the logits: `step.position` is the position
 * of their token, `step.seen` the number that stands for no layer.
 * @param {boolean} faults
 * @param {string} variable  of the logit's bits
 * @returns {{ bindings: Record<string, string>, functions: string, look: string }}
 */
const noted = (faults, variable) => ({
  bindings: faults ? { y: 'read_write Work' } : {},
  functions: faults ? faultNote({ layer: 'step.seen' }) : '',
  look: faults
    ? `if (is_fault(bitcast<f32>(${variable}), ${largestBits(LARGEST_F32)})) { note_fault(${faultPart('output')}, step.position, bitcast<f32>(${variable})); }`
    : '',
});

/**
 * One of the passes that leave the largest candidate: each workgroup gives the best of its 4,096.
 * @param {{ n: number, first: boolean, faults?: boolean }} options  n: logits, or candidates of the
 *   pass before; first: the input is logits, of row `step.start`; faults: notes NaN and infinity
 *   among them
 */
export function argmax({ n, first, faults = false }) {
  const { bindings, functions, look } = noted(faults, 'bits');
  return shader({
    name: `argmax of ${n}`,
    bindings: {
      values: `read array<${first ? 'u32' : 'vec2u'}>`,
      best: 'read_write array<vec2u>',
      ...bindings,
    },
    step: first,
    workgroup: { rank: 'array<u32, 256>', at: 'array<u32, 256>' },
    size: [256],
    code: `${ORDER}${functions}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u) {
  var most = 0u; var place = 0xffffffffu;
  for (var i = wid.x * ${CHUNK}u + tid; i < min((wid.x + 1u) * ${CHUNK}u, ${n}u); i += 256u) {
    ${first ? `let bits = values[step.start * ${up16(n)}u + i]; let r = rank_of(bits); let j = i; ${look}` : 'let r = rank_of(values[i].x); let j = values[i].y;'}
    if (r > most || (r == most && j < place)) { most = r; place = j; }
  }
  rank[tid] = most; at[tid] = place;
  workgroupBarrier();
  for (var k = 128u; k > 0u; k >>= 1u) {
    if (tid < k) {
      let o = tid + k;
      if (rank[o] > rank[tid] || (rank[o] == rank[tid] && at[o] < at[tid])) { rank[tid] = rank[o]; at[tid] = at[o]; }
    }
    workgroupBarrier();
  }
  if (tid == 0u) { best[wid.x] = vec2u(bits_of(rank[0]), at[0]); }
}`,
  });
}

/**
 * One of the passes that leave the k largest candidates, sorted: each workgroup gives k of its
 * 2,048.
 * @param {{ n: number, k: number, first: boolean, faults?: boolean }} options  as of argmax; k: 128
 *   at most
 */
export function topK({ n, k, first, faults = false }) {
  const { bindings, functions, look } = noted(faults, 'bits');
  return shader({
    name: `top ${k} of ${n}`,
    bindings: {
      values: `read array<${first ? 'u32' : 'vec2u'}>`,
      best: 'read_write array<vec2u>',
      ...bindings,
    },
    step: first,
    workgroup: { sorted: `array<vec2u, ${SORTED}>` },
    size: [256],
    code: `${ORDER}${functions}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u) {
  for (var i = tid; i < ${SORTED}u; i += 256u) {
    let j = wid.x * ${SORTED}u + i;
    var candidate = vec2u(0u, 0xffffffffu);
    if (j < ${n}u) {
      ${
        first
          ? `let bits = values[step.start * ${up16(n)}u + j]; ${look}
      candidate = vec2u(rank_of(bits), j);`
          : 'candidate = vec2u(rank_of(values[j].x), values[j].y);'
      }
    }
    sorted[i] = candidate;
  }
  workgroupBarrier();
  // A bitonic sort: runs of \`size\` are sorted in turn downwards and upwards, until one is left.
  var size = 2u; var stride = 1u;
  while (size <= ${SORTED}u) {
    for (var i = tid; i < ${SORTED / 2}u; i += 256u) {
      let a = 2u * i - (i & (stride - 1u)); let b = a + stride;
      let one = sorted[a]; let other = sorted[b];
      let swap = (one.x < other.x || (one.x == other.x && one.y > other.y)) == ((a & size) == 0u);
      sorted[a] = select(one, other, swap);
      sorted[b] = select(other, one, swap);
    }
    workgroupBarrier();
    stride >>= 1u;
    if (stride == 0u) { stride = size; size <<= 1u; }
  }
  for (var i = tid; i < ${k}u; i += 256u) { best[wid.x * ${k}u + i] = vec2u(bits_of(sorted[i].x), sorted[i].y); }
}`,
  });
}

/**
 * The passes that n logits take, and how many candidates each of them leaves.
 * @param {number} n
 * @param {number} k  1: argmax
 * @param {boolean} [faults]  the first pass notes NaN and infinity
 * @returns {{ shader: import('../shader.js').Shader, groups: [number, number, number],
 *   nLeft: number }[]}
 */
export function samplingPasses(n, k, faults = false) {
  const size = k === 1 ? CHUNK : SORTED;
  /** @type {ReturnType<typeof samplingPasses>} */
  const passes = [];
  let left = n;
  do {
    const first = passes.length === 0;
    const nGroups = Math.ceil(left / size);
    passes.push({
      shader:
        k === 1
          ? argmax({ n: left, first, faults: first && faults })
          : topK({ n: left, k, first, faults: first && faults }),
      groups: groupsOf(nGroups),
      nLeft: nGroups * k,
    });
    left = nGroups * k;
  } while (left > k);
  return passes;
}
