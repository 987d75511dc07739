/* Optional features of GPUs, and the forms of kernels that use them. */

/**
 * A feature that some kernels have a faster form for.
 * @typedef {'shader-f16' | 'subgroups' | 'dot4I8Packed'} GpuFeature
 */

/** @type {readonly GpuFeature[]} */
export const FEATURES = Object.freeze(['shader-f16', 'subgroups', 'dot4I8Packed']);

/**
 * The optional forms of kernels in use.
 * @typedef {object} GpuVariants
 * @property {boolean} subgroups  Sums over a workgroup are made by subgroup operations.
 * @property {boolean} int8  Products with more than 8 rows round their activations to int8 and use
 *   integer dot products.
 */
