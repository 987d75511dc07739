/**
 * Builds the demo into build/web when something it is made of has changed, and serves it with the headers of
 * vite.config.js. Used by `npm start` and by the browser tests.
 */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildDocs } from '../scripts/docs.js';
import { root, withLock } from '../scripts/setup/run.js';

const configFile = join(root, 'web/vite.config.js');
const stampFile = join(root, 'build/web.stamp');
const inputs = ['web', 'js', 'dist', 'scripts/docs.js', 'package-lock.json'];

/** Changes whenever an input is added, removed or written. */
function fingerprint() {
  const hash = createHash('sha256');
  for (const input of inputs) {
    const path = join(root, input);
    if (!existsSync(path)) continue;
    const files = statSync(path).isDirectory()
      ? readdirSync(path, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile() && !entry.name.endsWith('.d.ts'))
          .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
          .sort()
      : [path];
    for (const file of files) {
      const { size, mtimeMs } = statSync(file);
      hash.update(`${file}\0${size}\0${mtimeMs}\n`);
    }
  }
  return hash.digest('hex');
}

const isFresh = (/** @type {string} */ stamp) =>
  existsSync(join(root, 'build/web/index.html')) &&
  existsSync(stampFile) &&
  readFileSync(stampFile, 'utf8') === stamp;

/**
 * @param {{ force?: boolean, quiet?: boolean }} [options]
 * @returns {Promise<boolean>} whether anything had to be built
 */
export async function buildDemo({ force = false, quiet = true } = {}) {
  if (!force && isFresh(fingerprint())) return false;
  // Several test files may ask at once, each in its own process.
  return withLock('web', async () => {
    const stamp = fingerprint();
    if (!force && isFresh(stamp)) return false;
    const { build } = await import('vite');
    await build({ configFile, logLevel: quiet ? 'warn' : 'info' });
    cpSync((await buildDocs()).folder, join(root, 'build/web/api'), { recursive: true });
    writeFileSync(stampFile, stamp);
    return true;
  });
}

/**
 * Builds when needed, then serves build/web.
 * @param {{ port?: number, host?: string, quiet?: boolean }} [options]  port 0: any free one
 * @returns {Promise<{ url: string, close: () => Promise<void> }>}
 */
export async function serveDemo({ port = 0, host = '127.0.0.1', quiet = true } = {}) {
  await buildDemo({ quiet });
  const { preview } = await import('vite');
  const server = await preview({
    configFile,
    logLevel: quiet ? 'silent' : 'warn',
    preview: { port, host, open: false },
  });
  const address = server.httpServer.address();
  if (address === null || typeof address === 'string') throw new Error('The preview server has no port.');
  return { url: `http://${host}:${address.port}/`, close: () => server.close() };
}
