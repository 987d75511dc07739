/**
 * Installs everything that the commands need: npm packages, build tools, Emscripten. If everything
 * is there, it returns quickly. It installs system packages itself only on Debian as root;
 * elsewhere it names those that are missing.
 *
 * `node scripts/setup.js` runs only this.
 */
import { aptInstall } from './setup/apt.js';
import { ensureArm64Node } from './setup/arm64.js';
import { ensureEmscripten } from './setup/emscripten.js';
import { ensureChromium } from './setup/engines.js';
import { ensureMesa } from './setup/mesa.js';
import { ensurePackages } from './setup/packages.js';
import { isMain, main, SetupError, say, which } from './setup/run.js';

export { findChromium, relaxedNode } from './setup/engines.js';
export { SetupError } from './setup/run.js';

/** The oldest version that Vite accepts, within the promised Node 20. */
const OLDEST_NODE = [20, 19];

export function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1])) {
    throw new SetupError(
      `Node.js ${OLDEST_NODE.join('.')} or newer is needed to build; this is ${process.versions.node}`,
    );
  }
}

/** @param {boolean} native */
async function ensureTools(native) {
  const missing = [];
  if (!which('cmake')) missing.push('cmake');
  if (!which('ninja') && !which('make')) missing.push('ninja-build');
  if (!which('python3')) missing.push('python3');
  if (native && !which('cc') && !which('gcc') && !which('clang')) missing.push('gcc', 'libc6-dev');
  await aptInstall(missing, 'the build');
}

/**
 * @param {{ native?: boolean, browser?: boolean, gpu?: boolean, arm64?: boolean }} [options]  native: a compiler
 *   for the native tests; browser: Chromium, if it can be installed (otherwise its tests say so); gpu: Mesa,
 *   likewise; arm64: Node for arm64, likewise
 * @returns {Promise<import('./setup/emscripten.js').Emscripten>}
 */
export async function ensureSetup({ native = false, browser = false, gpu = false, arm64 = false } = {}) {
  checkNode();
  await ensurePackages();
  await ensureTools(native);
  const emscripten = await ensureEmscripten();
  if (browser && !(await ensureChromium())) say('no Chromium here: the browser tests will be skipped');
  const lacks = gpu ? await ensureMesa() : '';
  if (typeof lacks === 'string' && lacks) say(`${lacks}: some tests of WebGPU will be skipped`);
  const node = arm64 ? await ensureArm64Node() : [];
  if (typeof node === 'string') say(`${node}: the tests on arm64 will be skipped`);
  return emscripten;
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const { root, version } = await ensureSetup({ native: true, browser: true, gpu: true, arm64: true });
    say(`ready: Emscripten ${version} in ${root}`);
  });
}
