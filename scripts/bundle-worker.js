/**
 * Bundles the worker scripts, each into one file without imports. Import maps do not apply in
 * workers, some bundlers make workers that must not be split, and one request is faster than
 * twenty. dist/ lies beside js/, so relative addresses in the scripts (`../dist/...`,
 * `../js/thread.js`) hold in both folders.
 */
import path from 'node:path';
import { build } from 'esbuild';

/**
 * @param {string} root  the repository
 * @param {string} entry  the script
 * @param {Record<string, string>} [instead]  modules that have the place of others, which are the
 *   keys
 * @returns {Promise<string>}  the content
 * @throws {Error} nothing imports a module whose place another one has
 */
export async function bundleWorker(root, entry, instead = {}) {
  const replaced = new Set();
  const result = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    format: 'esm',
    platform: 'neutral',
    target: 'es2022',
    minify: true,
    // Messages contain names of classes, and stacks names of functions.
    keepNames: true,
    write: false,
    legalComments: 'none',
    logLevel: 'silent',
    plugins: [
      {
        name: 'instead',
        setup: (bundler) =>
          bundler.onResolve({ filter: /^\.{1,2}\// }, ({ path: relative, resolveDir }) => {
            const file = path.relative(root, path.join(resolveDir, relative)).replaceAll('\\', '/');
            if (!Object.hasOwn(instead, file)) return undefined;
            replaced.add(file);
            return { path: path.join(root, instead[file]) };
          }),
      },
    ],
  });
  for (const file of Object.keys(instead))
    if (!replaced.has(file)) throw new Error(`${entry} imports no ${file}, which scripts/build.js replaces`);
  // In a file without imports, an export marks an ES module. Minifying removed the comments that
  // tell bundlers that an import is for Node.
  const text = result.outputFiles[0].text.replace(
    /\bimport\(([\w$]+)\)/g,
    'import(/* webpackIgnore: true */ /* @vite-ignore */ $1)',
  );
  return `${text}export {};\n`;
}
