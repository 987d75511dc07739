/** Nothing has to be set for fused-matmul. */
export default { mode: 'production', entry: './main.js' };
