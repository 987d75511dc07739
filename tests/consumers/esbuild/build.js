/**
 * esbuild leaves `new URL('...', import.meta.url)` as it is, so the files it names are put where it then points: the page's
 * scripts into a folder `js`, with the script of threads; the library's modules into `dist` beside it.
 */
import { cpSync } from 'node:fs';
import { build } from 'esbuild';

await build({
  entryPoints: ['main.js'],
  bundle: true,
  splitting: true,
  format: 'esm',
  outdir: 'public/js',
});
cpSync('node_modules/fused-matmul/dist', 'public/dist', {
  recursive: true,
  filter: (file) => !file.endsWith('.d.ts'),
});
cpSync('node_modules/fused-matmul/js/thread.js', 'public/js/thread.js');
