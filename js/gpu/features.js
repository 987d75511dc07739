/* Optional features of GPUs, and the forms of kernels that use them. */

/**
 * A feature that some kernels have a faster form for.
 * @typedef {'shader-f16' | 'subgroups' | 'dot4I8Packed'} GpuFeature
 */

/** @type {readonly GpuFeature[]} */
export const FEATURES = Object.freeze(['shader-f16', 'subgroups', 'dot4I8Packed']);

/**
 * The forms of kernels in use.
 * @typedef {object} GpuVariants
 * @property {boolean} subgroups  Sums over a workgroup are made by subgroup operations.
 * @property {boolean} int8  Products with more than 8 rows round their activations to int8 and use
 *   integer dot products.
 * @property {boolean} f16  Products with more than 8 rows multiply in f16; sums are f32.
 * @property {number} rows  Rows of a weight that a workgroup multiplies with one row.
 * @property {number} invocations  Invocations of such a workgroup.
 * @property {number} groups  Workgroups that fill the GPU: a product of fewer is cut by columns.
 * @property {number} tile  Rows and columns of a tile of products with more than 8 rows.
 */

/** The forms where nothing was measured. @type {Readonly<GpuVariants>} */
export const PLAIN = Object.freeze({
  ...{ subgroups: false, int8: false, f16: false },
  ...{ rows: 4, invocations: 64, groups: 256, tile: 64 },
});

/**
 * The precision that activations have at least: 'int8' allows f16, too.
 * @typedef {'f32' | 'int8'} GpuActivation
 */

/**
 * The least precision of activations in products of a weight.
 * @param {Partial<GpuVariants>} variants
 * @param {boolean} coded  the weight has codes
 * @returns {'f32' | 'f16' | 'int8'}
 */
export const precisionOf = ({ int8, f16 }, coded) => (!coded ? 'f32' : int8 ? 'int8' : f16 ? 'f16' : 'f32');
