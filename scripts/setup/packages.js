/** Installs node_modules from the lock file, if it is missing or differs from it. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { root, run, SetupError, say, which } from './run.js';

/**
 * The npm that was called (`npm start` passes its path), else npm on PATH.
 * @returns {[string, string[]]}
 */
export function npmCommand() {
  const script = process.env.npm_execpath;
  if (script?.endsWith('npm-cli.js') && existsSync(script)) return [process.execPath, [script]];
  const found = which('npm');
  if (!found) throw new SetupError('npm is not on PATH: install Node.js 20 or newer together with npm');
  return [found, []];
}

/**
 * Whether the installed packages are those of the lock file.
 * @param {string} folder  the folder with a package.json
 */
export function packagesAreCurrent(folder = root) {
  const read = (/** @type {string} */ file) => {
    const full = path.join(folder, file);
    return existsSync(full) ? JSON.parse(readFileSync(full, 'utf8')).packages : undefined;
  };
  const wanted = read('package-lock.json');
  const installed = read('node_modules/.package-lock.json');
  if (!wanted || !installed) return false;
  return Object.entries(wanted).every(([where, { version, optional, devOptional }]) => {
    if (where === '') return true;
    if (!installed[where]) return Boolean(optional || devOptional);
    return installed[where].version === version && existsSync(path.join(folder, where));
  });
}

export async function ensurePackages() {
  if (packagesAreCurrent()) return;
  say('installing npm packages (npm ci)');
  const [file, args] = npmCommand();
  await run(file, [...args, 'ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    quiet: true,
    hint: 'is the npm registry reachable?',
  });
  if (!packagesAreCurrent()) {
    throw new SetupError(
      'npm ci left node_modules unlike package-lock.json: is NODE_ENV=production or an omit=dev set?',
    );
  }
}
