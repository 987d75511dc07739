/** fused-matmul needs no settings. */
export default { mode: 'production', entry: './main.js' };
