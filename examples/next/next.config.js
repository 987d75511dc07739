/** A static export. fused-matmul needs no settings. */
export default { output: 'export' };
