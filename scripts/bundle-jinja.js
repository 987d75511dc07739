/**
 * Bundles the template engine of chat templates into dist/jinja.js.
 *
 * `@huggingface/jinja` is bundled instead of being a runtime dependency: installed it takes nine times the bundle's size, and
 * only conversations need it, so it is a chunk that is loaded then. Its licence goes into the banner.
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';

/** The part of its interface js/llama/chat.js uses. */
const DECLARATION = `/** A Jinja template, as chat templates are written in. */
export class Template {
  constructor(template: string);
  render(variables?: Record<string, unknown>): string;
}
`;

/**
 * @param {string} root  the repository
 * @returns {Promise<Map<string, string>>}  file name in dist/ -> content
 */
export async function bundleJinja(root) {
  const folder = path.join(root, 'node_modules/@huggingface/jinja');
  if (!existsSync(folder)) throw new Error(`${path.relative(root, folder)} is missing: run npm ci`);
  const { version } = JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8'));
  const licence = readFileSync(path.join(folder, 'LICENSE'), 'utf8').trim();
  const result = await build({
    stdin: { contents: "export { Template } from '@huggingface/jinja';", resolveDir: root },
    bundle: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    minify: true,
    write: false,
    legalComments: 'none',
    logLevel: 'silent',
    banner: { js: `/*! @huggingface/jinja ${version}\n${licence}\n*/` },
  });
  return new Map([
    ['jinja.js', result.outputFiles[0].text],
    ['jinja.d.ts', DECLARATION],
  ]);
}
