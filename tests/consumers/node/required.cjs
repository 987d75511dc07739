/** CommonJS: engines with require(esm) load the ES module. */
const { createKernels, openGguf, version } = require('fused-matmul');

console.log(JSON.stringify({ version, functions: [typeof createKernels, typeof openGguf] }));
