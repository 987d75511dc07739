/** Bundles a package for browsers, with its licence in the banner. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';

/**
 * @param {string} folder  the package's folder
 * @param {string} contents  source of the module that imports the needed parts
 * @param {{ plugins?: import('esbuild').Plugin[], define?: Record<string, string>,
 *   licence?: string }} [options]  licence: its text, where the package has no file of it
 * @returns {Promise<string>}
 */
export async function bundlePackage(folder, contents, { plugins, define, licence } = {}) {
  const manifest = path.join(folder, 'package.json');
  if (!existsSync(manifest)) throw new Error(`${folder} is missing: run npm ci`);
  const { name, version } = JSON.parse(readFileSync(manifest, 'utf8'));
  const terms = licence ?? readFileSync(path.join(folder, 'LICENSE'), 'utf8').trim();
  const result = await build({
    stdin: { contents, resolveDir: folder },
    bundle: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    minify: true,
    write: false,
    legalComments: 'none',
    logLevel: 'silent',
    banner: { js: `/*! ${name} ${version}\n${terms}\n*/` },
    plugins,
    define,
  });
  return result.outputFiles[0].text;
}
