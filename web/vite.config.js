/**
 * The demo's build: web/ -> build/web, with relative addresses so that it can be served from any folder.
 * COOP/COEP make the page cross-origin isolated (finer timers, shared memory).
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

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

/** The dev server puts styles inline and talks to the page over a web socket, which the shipped policy forbids. */
const relaxPolicyInDev = {
  name: 'relax-policy-in-dev',
  apply: /** @type {const} */ ('serve'),
  transformIndexHtml: (/** @type {string} */ html) =>
    html
      .replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
      .replace("connect-src 'self'", "connect-src 'self' ws:"),
};

export default defineConfig({
  root,
  base: './',
  plugins: [relaxPolicyInDev],
  worker: { format: 'es' },
  build: {
    outDir: '../build/web',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    sourcemap: true,
  },
  server: { headers: isolation, fs: { allow: ['..'] } },
  // A worker obeys the policy of its own response, not the page's meta tag, so the header says it too.
  preview: { headers: { ...isolation, 'Content-Security-Policy': csp, 'X-Content-Type-Options': 'nosniff' } },
});
