/**
 * As with esbuild, the files of `new URL('...', import.meta.url)` are put where it points: see
 * ../esbuild/build.js.
 */
import { cpSync } from 'node:fs';
import resolve from '@rollup/plugin-node-resolve';

const copyFiles = {
  name: 'copy-files',
  writeBundle() {
    cpSync('node_modules/fused-matmul/dist', 'public/dist', { recursive: true });
    cpSync('node_modules/fused-matmul/js/thread.js', 'public/js/thread.js');
  },
};

export default {
  input: 'main.js',
  output: { dir: 'public/js', format: 'es' },
  plugins: [resolve({ browser: true }), copyFiles],
};
