/** A page that has the library as a global, from the repository itself. */
import { projectRoot } from '../helpers/test-data.js';
import { openPage, serveFolder } from './helpers.js';

export const PAGE = 'tests/browser/fixtures/library.html';
export const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};
/** What product() gives. */
export const PRODUCT = [528, 1056];

/**
 * @param {import('playwright-core').Browser} browser
 * @param {{ headers?: Record<string, string>, routes?: Record<string, import('node:http').RequestListener>, init?: string }} [options]
 *   init: a script that runs before the page's own
 */
export async function openLibrary(browser, { headers, routes, init } = {}) {
  const server = await serveFolder(projectRoot, { headers, routes });
  const { page, problems, close } = await openPage(browser, `${server.url}robots.txt`);
  if (init) await page.addInitScript(init);
  await page.goto(server.url + PAGE);
  await page.waitForFunction('globalThis.libraryReady === true');
  problems.length = 0;
  /** Runs code with the library, `fm` kernels in a worker where it says so. @param {string} code @returns {Promise<any>} */
  const evaluate = (code) => page.evaluate(`(async () => { ${code} })()`);
  return {
    page,
    problems,
    url: server.url,
    evaluate,
    async close() {
      await close();
      await server.close();
    },
  };
}
