/** The bundles that an application's bundler makes of the library, built with esbuild. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { projectRoot } from './test-data.js';

/**
 * Bundles a module for browsers, into the entry and the chunks that it loads later.
 * @param {string} contents  source of the module; imports are relative to the repository
 * @returns {Promise<{ files: import('esbuild').OutputFile[], contents: string, bytes: number,
 *   chunks: { name: string, texts: string[] }[] }>}  contents: the code that a page loads at once;
 *   bytes: its size, gzipped; chunks: what that code loads later, each with the code that comes with
 *   it
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
  const together = (/** @type {string} */ file) => {
    const loaded = new Set([file]);
    for (const name of loaded) {
      for (const [, imported] of text(name).matchAll(/\b(?:from|import)"\.\/([^"]+)"/g)) loaded.add(imported);
    }
    return loaded;
  };
  const first = together('stdin.js');
  const atOnce = [...first].map(text).join('');
  const chunks = [...atOnce.matchAll(/\bimport\("\.\/([^"]+)"\)/g)].map(([, name]) => ({
    name,
    texts: [...together(name)].filter((one) => !first.has(one)).map(text),
  }));
  return { files: outputFiles, contents: atOnce, bytes: gzipSync(atOnce, { level: 9 }).length, chunks };
}

/**
 * Bundles a module into one file, in a format without an address or with an unusable one, as users
 * of other build tools have.
 * @param {'iife' | 'cjs' | 'esm'} format  iife: a script that defines `lib`
 * @param {string} contents  source of the module; imports are relative to the repository
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
    // The test needs an empty import.meta.
    logLevel: 'silent',
  });
  return outputFiles[0].text;
}
