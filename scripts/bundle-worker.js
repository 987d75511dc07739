/**
 * Bundles js/worker-host.js into dist/worker-host.js, one file without imports: import maps do not reach into workers, bundlers
 * make workers that must not be split, and one request starts sooner than twenty. dist/ lies beside js/, so that the addresses
 * of the modules in it (`../dist/...`) hold in both.
 */
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { build } from 'esbuild';

/** What a thread runs stays a file of its own, in js/. @param {import('esbuild').PluginBuild} bundler */
function addressThreads(bundler) {
  bundler.onLoad({ filter: /[/\\]js[/\\]pool\.js$/ }, async ({ path: file }) => {
    const text = await readFile(file, 'utf8');
    const contents = text.replaceAll("new URL('./thread.js',", "new URL('../js/thread.js',");
    if (contents === text) throw new Error('js/pool.js does not start ./thread.js any more');
    return { contents };
  });
}

/**
 * @param {string} root  the repository
 * @returns {Promise<string>}  the content
 */
export async function bundleWorker(root) {
  const manifest = path.join(root, 'node_modules/wasm-feature-detect/package.json');
  const { version, license } = JSON.parse(readFileSync(manifest, 'utf8'));
  const result = await build({
    absWorkingDir: root,
    entryPoints: ['js/worker-host.js'],
    bundle: true,
    format: 'esm',
    platform: 'neutral',
    mainFields: ['module', 'main'],
    target: 'es2022',
    // Names stay: messages name classes, and stacks functions.
    minifySyntax: true,
    minifyWhitespace: true,
    write: false,
    legalComments: 'none',
    logLevel: 'silent',
    plugins: [{ name: 'address-of-threads', setup: addressThreads }],
    banner: { js: `/*! holds parts of wasm-feature-detect ${version} (${license}, Google Chrome Labs) */` },
  });
  return result.outputFiles[0].text;
}
