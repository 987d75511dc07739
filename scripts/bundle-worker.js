/**
 * Bundles the two worker scripts, each into one file without imports. Import maps do not apply in
 * workers, some bundlers make workers that must not be split, and one request is faster than
 * twenty. dist/ lies beside js/, so relative addresses in the scripts (`../dist/...`,
 * `../js/thread.js`) hold in both folders.
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
    // Messages contain names of classes, and stacks names of functions.
    keepNames: true,
    write: false,
    legalComments: 'none',
    logLevel: 'silent',
  });
  // In a file without imports, an export marks an ES module. Minifying removed the comments that
  // tell bundlers that an import is for Node.
  const text = result.outputFiles[0].text.replace(
    /\bimport\(([\w$]+)\)/g,
    'import(/* webpackIgnore: true */ /* @vite-ignore */ $1)',
  );
  return `${text}export {};\n`;
}
