/** Bundles a package for browsers, with its licence in the banner. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';

/**
 * @param {string} folder  the package's folder
 * @param {string} contents  source of the module that imports the needed parts
 * @param {import('esbuild').Plugin[]} [plugins]
 * @returns {Promise<string>}
 */
export async function bundlePackage(folder, contents, plugins) {
  const manifest = path.join(folder, 'package.json');
  if (!existsSync(manifest)) throw new Error(`${folder} is missing: run npm ci`);
  const { name, version } = JSON.parse(readFileSync(manifest, 'utf8'));
  const licence = readFileSync(path.join(folder, 'LICENSE'), 'utf8').trim();
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
    banner: { js: `/*! ${name} ${version}\n${licence}\n*/` },
    plugins,
  });
  return result.outputFiles[0].text;
}
