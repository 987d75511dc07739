/** Workers in chunks: what is needed on demand only, is loaded on demand only. */
const headers = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

export default { worker: { format: 'es' }, server: { headers }, preview: { headers } };
