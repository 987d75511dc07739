/** A static export; nothing has to be set for fused-matmul. */
export default { output: 'export' };
