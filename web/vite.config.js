/**
 * The demo's build: web/ -> build/web, with relative addresses so that it can be served from any folder.
 * COOP/COEP make the page cross-origin isolated (finer timers, shared memory for threads).
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';
import { DOCS_POLICY } from '../scripts/docs.js';

const root = fileURLToPath(new URL('.', import.meta.url));
const csp = /http-equiv="Content-Security-Policy"\s+content="([^"]+)"/.exec(
  readFileSync(`${root}index.html`, 'utf8'),
)?.[1];
if (!csp) throw new Error('web/index.html has no Content-Security-Policy');

const isolation = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
};
// A worker obeys the policy of its own response, not the page's meta tag, so the header says it too.
const headers = { ...isolation, 'Content-Security-Policy': csp, 'X-Content-Type-Options': 'nosniff' };

/** The dev server puts styles inline and talks to the page over a web socket, which the shipped policy forbids. */
const relaxPolicyInDev = {
  name: 'relax-policy-in-dev',
  apply: /** @type {const} */ ('serve'),
  transformIndexHtml: (/** @type {string} */ html) =>
    html
      .replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
      .replace("connect-src 'self'", "connect-src 'self' ws:"),
};

/** The library's reference lies beside the page and has a policy of its own, which takes the place of the page's. */
const policyOfReference = {
  name: 'policy-of-reference',
  configurePreviewServer(/** @type {import('vite').PreviewServer} */ { middlewares }) {
    middlewares.use('/api/', (_, response, next) => {
      const set = response.setHeader;
      response.setHeader = (name, value) =>
        set.call(response, name, name === 'Content-Security-Policy' ? DOCS_POLICY : value);
      next();
    });
  },
};

/**
 * Vite leaves them out where it says that a file has not changed (304). In a private window WebKit then takes the file for one that
 * never had them, and starts no worker from it.
 */
const headersOfUnchanged = {
  name: 'headers-of-unchanged',
  configureServer: (/** @type {import('vite').ViteDevServer} */ server) => setHeaders(server, isolation),
  configurePreviewServer: (/** @type {import('vite').PreviewServer} */ server) => setHeaders(server, headers),
};

/** @param {{ middlewares: import('vite').Connect.Server }} server @param {Record<string, string>} all */
function setHeaders({ middlewares }, all) {
  middlewares.use((_, response, next) => {
    for (const [name, value] of Object.entries(all)) response.setHeader(name, value);
    next();
  });
}

/** Writes sw.js with the list of what was built, and a version that changes with any of it. */
const serviceWorker = {
  name: 'service-worker',
  apply: /** @type {const} */ ('build'),
  closeBundle() {
    const out = join(root, '../build/web');
    const files = readdirSync(out, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !/\.map$|^sw\.js$/.test(entry.name))
      .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
      .sort();
    const source = readFileSync(`${root}sw.js`, 'utf8');
    const hash = createHash('sha256').update(source).update(JSON.stringify(headers));
    for (const file of files) hash.update(file).update(readFileSync(file));
    // The page is kept under its folder's address, as visitors open it.
    const names = files.map((file) => file.slice(out.length + 1).replaceAll('\\', '/'));
    const list = names.map((name) => (name === 'index.html' ? './' : name));
    const facts = { version: hash.digest('hex').slice(0, 16), files: list };
    const filled = source
      .replace(/\/\* built: \*\/ \{ version.*?\}/, JSON.stringify(facts))
      .replace(/\/\* built: \*\/ \{\}/, JSON.stringify(headers));
    if (filled.includes('/* built: */')) throw new Error('web/sw.js has a place that the build did not fill');
    writeFileSync(join(out, 'sw.js'), filled);
  },
};

export default defineConfig({
  root,
  base: './',
  plugins: [relaxPolicyInDev, policyOfReference, headersOfUnchanged, serviceWorker],
  // A worker is one file: WebKit runs its first script a second time when a chunk imports it, and
  // one request starts sooner than ten.
  worker: { format: 'es', rolldownOptions: { output: { codeSplitting: false } } },
  build: {
    outDir: '../build/web',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    sourcemap: true,
    // On a slow machine it would tell which plugins took the time.
    rolldownOptions: { checks: { pluginTimings: false, ineffectiveDynamicImport: false } },
  },
  server: { headers: isolation, fs: { allow: ['..'] } },
  preview: { headers },
});
