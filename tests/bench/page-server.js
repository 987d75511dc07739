/**
 * Serves the repository to the benchmark's page, cross-origin isolated (threads) and with bare
 * imports resolved (workers have no import map).
 */
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { root } from '../../scripts/setup/run.js';

/** @type {Record<string, string>} */
const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
};
const HEADERS = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cache-Control': 'no-store',
};
const BARE_IMPORT = /(\bfrom\s*|\bimport\s*\(?\s*)(['"])((?:@[\w-]+\/)?[\w][\w./-]*)\2/g;

/**
 * @param {string} source  an ES module of this repository
 * @returns {string} the module, with paths instead of package names
 */
function withPaths(source) {
  return source.replace(BARE_IMPORT, (whole, before, quote, name) => {
    if (name.startsWith('node:')) return whole;
    const file = fileURLToPath(import.meta.resolve(name));
    return `${before}${quote}/${relative(root, file).split(sep).join('/')}${quote}`;
  });
}

/**
 * @returns {Promise<{ url: string, close: () => Promise<unknown> }>} on a free port of 127.0.0.1
 */
export async function servePages() {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const file = normalize(join(root, decodeURIComponent(pathname)));
    if (!file.startsWith(normalize(root)) || !existsSync(file) || !statSync(file).isFile())
      return void response.writeHead(404, HEADERS).end('not found');
    const type = TYPES[extname(file)] ?? 'application/octet-stream';
    response.writeHead(200, { ...HEADERS, 'Content-Type': type });
    if (/^\/(js|tests)\/.*\.js$/.test(pathname)) response.end(withPaths(readFileSync(file, 'utf8')));
    else createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${port}`, close };
}
