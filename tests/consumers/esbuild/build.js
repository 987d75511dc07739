/**
 * esbuild does not change `new URL('...', import.meta.url)`, so the files are put where these
 * addresses then point: the page's scripts into a folder `js`, together with the thread script, and
 * the library's modules into `dist` beside it.
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
