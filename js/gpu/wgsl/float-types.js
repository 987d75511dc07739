/* F32, F16 and BF16 in WGSL. A "block" is a piece of 16 columns; a rest of a row is padded with
 * zeros when it is uploaded. */

/** @typedef {import('./types.js').WgslType} WgslType */

/** @param {number} bytes  of a piece @param {WgslType['body']} body @returns {WgslType} */
const floats = (bytes, body) => ({
  fields: [['v', bytes]],
  blockValues: 16,
  lanes: 1,
  share: 1,
  coded: false,
  signed: false,
  runs: 'vec4u(0u, 1u, 2u, 3u)',
  body,
});

const RUNS = [0, 1, 2, 3];

/** @type {Record<string, WgslType>} */
export const FLOAT_TYPES = {
  F32: floats(64, ({ word }) => {
    const run = (/** @type {number} */ k) =>
      `bitcast<vec4f>(vec4u(${RUNS.map((j) => word('v', `${4 * k + j}u`)).join(', ')}))`;
    return `
  return mat4x4f(${RUNS.map(run).join(', ')});`;
  }),
  F16: floats(32, ({ word }) => {
    const run = (/** @type {number} */ k) =>
      `vec4f(unpack2x16float(${word('v', `${2 * k}u`)}), unpack2x16float(${word('v', `${2 * k + 1}u`)}))`;
    return `
  return mat4x4f(${RUNS.map(run).join(', ')});`;
  }),
  BF16: floats(32, ({ word }) => {
    const pair = (/** @type {string} */ w) => `${w} << 16u, ${w} & 0xffff0000u`;
    const run = (/** @type {number} */ k) =>
      `bitcast<vec4f>(vec4u(${pair(word('v', `${2 * k}u`))}, ${pair(word('v', `${2 * k + 1}u`))}))`;
    return `
  return mat4x4f(${RUNS.map(run).join(', ')});`;
  }),
};
