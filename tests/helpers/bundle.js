/** What an application's bundler makes of the library, by esbuild. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { projectRoot } from './test-data.js';

/**
 * Bundles a module for browsers: the entry and the chunks that it loads later.
 * @param {string} contents  of the module; imports from the repository's root
 * @returns {Promise<{ files: import('esbuild').OutputFile[], contents: string, bytes: number }>}  contents: what a page loads at once;
 *   bytes: of that, gzipped
 */
export async function bundleForBrowser(contents) {
  const { outputFiles, warnings } = await build({
    absWorkingDir: projectRoot,
    stdin: { contents, resolveDir: projectRoot },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    logLevel: 'silent',
    splitting: true,
    outdir: path.join(projectRoot, 'build/out'),
  });
  assert.deepEqual(warnings, []);
  const text = (/** @type {string} */ name) =>
    outputFiles.find((file) => path.basename(file.path) === name)?.text ?? assert.fail(name);
  const loaded = new Set(['stdin.js']);
  for (const name of loaded) {
    for (const [, imported] of text(name).matchAll(/\b(?:from|import)"\.\/([^"]+)"/g)) loaded.add(imported);
  }
  const atOnce = [...loaded].map(text).join('');
  return { files: outputFiles, contents: atOnce, bytes: gzipSync(atOnce, { level: 9 }).length };
}

/**
 * Bundles a module into one file, of a format that has no address or one that is none: what users of other build tools have.
 * @param {'iife' | 'cjs' | 'esm'} format  iife: a script that defines `lib`
 * @param {string} contents  of the module; imports from the repository's root
 * @returns {Promise<string>}
 */
export async function bundleAs(format, contents) {
  const { outputFiles } = await build({
    absWorkingDir: projectRoot,
    stdin: { contents, resolveDir: projectRoot },
    bundle: true,
    write: false,
    format,
    ...(format === 'iife' && { globalName: 'lib' }),
    platform: format === 'cjs' ? 'node' : 'browser',
    target: 'es2022',
    // That import.meta is empty is what is tested.
    logLevel: 'silent',
  });
  return outputFiles[0].text;
}
