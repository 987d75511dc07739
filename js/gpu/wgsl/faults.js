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
  'recurrent',
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

/** The number of a layer outside of layers. */
export const NO_LAYER = 0xffffffff;
/** Stands for no layer, and for all layers beyond. */
const MOST_LAYERS = 8191;
/** Stands for all rows beyond. All ones would make a note of zero. */
const MOST_ROWS = 65534;

/**
 * The type `Work` of a workspace, and
 *
 *   note_fault(part: u32, position: u32, v: f32)   notes a value: the first part of the first
 *                                                  layer stays, and there the first row
 *   is_fault(v: f32, largest: u32) -> bool         over the magnitude with these bits, or NaN
 *
 * The word `fault` is all ones minus layer (13 bits), part (3 bits) and row of the step (16 bits),
 * so that the largest is the first.
 * @param {{ variable?: string, layer: string }} where  the variable of type Work; the layer as an
 *   expression of type u32
 */
export const faultNote = ({ variable = 'y', layer }) => `
struct Work { fault: atomic<u32>, position: u32, value: u32, free: array<u32, ${FAULT_WORDS - 3}>, values: array<f32> };
fn is_fault(v: f32, largest: u32) -> bool { return (bitcast<u32>(v) & 0x7fffffffu) > largest; }
fn note_fault(part: u32, position: u32, v: f32) {
  let row = min(position - step.position, ${MOST_ROWS}u);
  let note = ~((min(${layer}, ${MOST_LAYERS}u) << 19u) | (part << 16u) | row);
  if (atomicMax(&${variable}.fault, note) < note) {
    ${variable}.position = step.position;
    ${variable}.value = bitcast<u32>(v);
  }
}`;

/**
 * What is noted. The value is one of those of its row, or of a row after it.
 * @param {ArrayBuffer} header the first words of a workspace
 * @returns
 *   {{ part: NumericPart, layer: number | undefined, position: number, value: number } | undefined}
 */
export function readFault(header) {
  const [fault, first] = new Uint32Array(header, 0, 2);
  if (fault === 0) return undefined;
  const note = ~fault >>> 0;
  const layer = note >>> 19;
  return {
    part: FAULT_PARTS[(note >>> 16) & 7],
    layer: layer === MOST_LAYERS ? undefined : layer,
    position: first + (note & 0xffff),
    value: new Float32Array(header, 8, 1)[0],
  };
}
