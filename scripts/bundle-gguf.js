/**
 * Bundles the GGUF header parser into dist/gguf-parser.js.
 *
 * `@huggingface/gguf` is bundled instead of being a runtime dependency, because its exports map has
 * no browser condition (users' bundlers would find `fs` and `url`) and because its index re-exports
 * the tables of `@huggingface/tasks`, fifteen times the parser's size. The banner holds its
 * licence.
 */
import path from 'node:path';
import { bundlePackage } from './bundle-package.js';

/** The part of the parser's interface that js/gguf/index.js uses. */
const DECLARATION = `/** Parses the header of a GGUF file read by Range requests through \`fetch\`. */
export function gguf(
  uri: string,
  params?: { fetch?: typeof fetch; additionalFetchHeaders?: Record<string, string>; typedMetadata?: boolean },
): Promise<{
  metadata: Record<string, unknown>;
  tensorInfos: { name: string; n_dims: number; shape: bigint[]; dtype: number; offset: bigint }[];
  tensorDataOffset: bigint;
  littleEndian: boolean;
}>;
`;

/**
 * @param {string} root  the repository
 * @returns {Promise<Map<string, string>>}  file name in dist/ -> content
 */
export async function bundleGguf(root) {
  const folder = path.join(root, 'node_modules/@huggingface/gguf');
  const text = await bundlePackage(folder, "export { gguf } from './src/gguf.ts';", {
    plugins: [{ name: 'drop-unused-tables', setup: dropUnusedTables }],
  });
  return new Map([
    ['gguf-parser.js', text],
    ['gguf-parser.d.ts', DECLARATION],
  ]);
}

/**
 * The parser's modules do nothing when they are loaded. This tells esbuild, which then leaves out
 * those that are not used.
 */
function dropUnusedTables(/** @type {import('esbuild').PluginBuild} */ bundler) {
  const inside = { pluginData: 'inside' };
  bundler.onResolve({ filter: /.*/ }, async (args) => {
    if (args.pluginData === 'inside' || args.kind !== 'import-statement') return undefined;
    const { importer, kind, resolveDir } = args;
    const found = await bundler.resolve(args.path, { importer, kind, resolveDir, ...inside });
    return { ...found, sideEffects: false };
  });
}
