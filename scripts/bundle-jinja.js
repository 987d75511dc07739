/**
 * Bundles the template engine of chat templates into dist/jinja.js.
 *
 * `@huggingface/jinja` is bundled instead of being a runtime dependency: installed it takes nine times the bundle's size, and
 * only conversations need it, so it is a chunk that is loaded then. Its licence goes into the banner.
 */
import path from 'node:path';
import { bundlePackage } from './bundle-package.js';

/** The part of its interface js/llama/chat/template.js uses. */
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
  const text = await bundlePackage(folder, "export { Template } from '@huggingface/jinja';");
  return new Map([
    ['jinja.js', text],
    ['jinja.d.ts', DECLARATION],
  ]);
}
