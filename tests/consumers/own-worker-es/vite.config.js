/** Builds workers as chunks, so that code needed on demand is loaded on demand. */
const headers = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

export default { worker: { format: 'es' }, server: { headers }, preview: { headers } };
