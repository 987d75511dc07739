/* Notes of numbers that cannot be right: NaN, infinity, what does not fit into the cache. A
 * workspace begins with FAULT_WORDS words for the first of them, zero while there is none; the
 * numbers themselves follow. */

/** @typedef {import('../../llama/errors.js').NumericPart} NumericPart */

/** Words before the values of a workspace. */
export const FAULT_WORDS = 16;

/** What a fault may be in, by its number. @type {readonly NumericPart[]} */
export const FAULT_PARTS = Object.freeze([
  'embedding',
  'queries',
  'keys',
  'values',
  'attention',
  'feed-forward',
  'output',
]);

/** @param {NumericPart} part  as a literal of WGSL */
export const faultPart = (part) => `${FAULT_PARTS.indexOf(part)}u`;

/**
 * The bits of the largest magnitude that is allowed, as a literal of WGSL.
 * @param {number} largest  an f32
 */
export const largestBits = (largest) => `${new Uint32Array(Float32Array.of(largest).buffer)[0]}u`;

/**
 * The type `Work` of a workspace, and
 *
 *   note_fault(part: u32, position: u32, v: f32)   notes a value, if it is the first
 *   is_fault(v: f32, largest: u32) -> bool         over the magnitude with these bits, or NaN
 * @param {{ variable?: string, layer: string }} where  the variable of type Work; the layer as an
 *   expression of type u32
 */
export const faultNote = ({ variable = 'y', layer }) => `
struct Work { fault: atomic<u32>, layer: u32, position: u32, value: u32, free: array<u32, ${FAULT_WORDS - 4}>, values: array<f32> };
fn is_fault(v: f32, largest: u32) -> bool { return (bitcast<u32>(v) & 0x7fffffffu) > largest; }
fn note_fault(part: u32, position: u32, v: f32) {
  // Whoever sets the first word writes the others. It may fail without a reason.
  while (atomicLoad(&${variable}.fault) == 0u) {
    if (atomicCompareExchangeWeak(&${variable}.fault, 0u, part + 1u).exchanged) {
      ${variable}.layer = ${layer};
      ${variable}.position = position;
      ${variable}.value = bitcast<u32>(v);
    }
  }
}`;

/**
 * What is noted.
 * @param {ArrayBuffer} header  the first words of a workspace
 * @returns {{ part: NumericPart, layer: number, position: number, value: number } | undefined}
 */
export function readFault(header) {
  const [fault, layer, position] = new Uint32Array(header, 0, 3);
  if (fault === 0) return undefined;
  return { part: FAULT_PARTS[fault - 1], layer, position, value: new Float32Array(header, 12, 1)[0] };
}
