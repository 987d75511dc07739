/**
 * Bundles the scripts of the two workers, each into one file without imports: import maps do not reach into workers, bundlers
 * make workers that must not be split, and one request starts sooner than twenty. dist/ lies beside js/, so that the addresses
 * in them (`../dist/...`, `../js/thread.js`) hold in both.
 */
import { build } from 'esbuild';

/**
 * @param {string} root  the repository
 * @param {string} entry  the script
 * @returns {Promise<string>}  the content
 */
export async function bundleWorker(root, entry) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    format: 'esm',
    platform: 'neutral',
    target: 'es2022',
    minify: true,
    // Messages name classes, and stacks functions.
    keepNames: true,
    write: false,
    legalComments: 'none',
    logLevel: 'silent',
  });
  // Without imports, an export says that this is an ES module.
  // Minifying took away what tells bundlers that an import is for Node.
  const text = result.outputFiles[0].text.replace(
    /\bimport\(([\w$]+)\)/g,
    'import(/* webpackIgnore: true */ /* @vite-ignore */ $1)',
  );
  return `${text}export {};\n`;
}
