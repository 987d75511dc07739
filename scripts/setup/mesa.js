/** Vulkan drivers without a GPU, for tests of WebGPU: Mesa's lavapipe, which computes on the
 * processor, and RADV, which compiles for AMD GPUs that are not there. They come from Debian's
 * backports and are unpacked into .toolchain/mesa; the system is left alone. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ask, environment, root, run, SetupError, say, which, withLock } from './run.js';

const folder = path.join(root, '.toolchain/mesa');
/** The release whose packages fit this system, and its section with a newer Mesa. */
const RELEASE = 'bookworm';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** Unpacked in any case: those of the system are too old for this Mesa. */
const NEWER = /^(mesa-vulkan-drivers|libdrm.*|libvulkan1)_/;

/**
 * @typedef {{ libraries: string, lavapipe: string, radv: string }} Mesa a folder, and the JSON
 *   files of two Vulkan drivers
 */

/** @returns {Mesa} */
const mesa = () => ({
  libraries: path.join(folder, 'root/usr/lib/x86_64-linux-gnu'),
  lavapipe: path.join(folder, 'lvp.json'),
  radv: path.join(folder, 'radeon.json'),
});

/**
 * @returns {Promise<Mesa | string>}  or why it cannot be had
 */
export async function ensureMesa() {
  const found = mesa();
  if (existsSync(found.radv)) return found;
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return 'Mesa is unpacked on Linux on x86-64 only';
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  if (!release.includes(`VERSION_CODENAME=${RELEASE}`)) return `Mesa is unpacked on Debian ${RELEASE} only`;
  if (!which('apt-get') || !which('dpkg-deb'))
    return 'Mesa is unpacked with apt-get and dpkg-deb, which are missing';
  try {
    await withLock('mesa', async () => {
      if (existsSync(found.radv)) return;
      say('fetching Mesa, for WebGPU without a GPU, into .toolchain/mesa');
      await unpack();
    });
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    rmSync(folder, { recursive: true, force: true });
    return `Mesa cannot be fetched: ${error.message}`;
  }
  return found;
}

async function unpack() {
  const at = (/** @type {string[]} */ ...names) => path.join(folder, ...names);
  rmSync(folder, { recursive: true, force: true });
  for (const name of ['lists/partial', 'cache/archives/partial', 'root'])
    mkdirSync(at(name), { recursive: true });
  const mirror = debianMirror();
  const sources = [RELEASE, `${RELEASE}-backports`].map(
    (suite) => `deb [signed-by=${KEYRING}] ${mirror} ${suite} main\n`,
  );
  writeFileSync(at('sources.list'), sources.join(''));
  const settings = [
    `Dir::Etc::sourcelist=${at('sources.list')}`,
    'Dir::Etc::sourceparts=/dev/null',
    `Dir::State::lists=${at('lists')}`,
    `Dir::Cache=${at('cache')}`,
    'APT::Sandbox::User=root',
  ].flatMap((setting) => ['-o', setting]);
  const apt = (/** @type {string[]} */ ...args) =>
    run('apt-get', ['-qq', ...settings, ...args], { quiet: true, hint: 'apt-get for Mesa' });
  await apt('update');
  const wanted = ['mesa-vulkan-drivers', 'libvulkan1'];
  const download = ['-y', '--no-install-recommends', '--download-only', 'install'];
  await apt('-t', `${RELEASE}-backports`, ...download, ...wanted);
  const archives = readdirSync(at('cache/archives')).filter((name) => name.endsWith('.deb'));
  for (const name of archives) {
    const deb = at('cache/archives', name);
    const installed = ask('dpkg-query', ['-s', name.split('_')[0]]);
    if (NEWER.test(name) || !installed) await run('dpkg-deb', ['-x', deb, at('root')], { quiet: true });
  }
  const { libraries } = mesa();
  const drivers = at('root/usr/share/vulkan/icd.d');
  for (const name of ['lvp', 'radeon']) {
    const file = readdirSync(drivers).find((one) => one.startsWith(`${name}_icd`));
    if (!file) throw new SetupError(`the packages of Mesa have no driver ${name}`);
    const driver = JSON.parse(readFileSync(path.join(drivers, file), 'utf8'));
    const library = path.join(libraries, path.basename(driver.ICD.library_path));
    const text = JSON.stringify({ ...driver, ICD: { ...driver.ICD, library_path: library } });
    writeFileSync(at(`${name}.tmp`), text);
    renameSync(at(`${name}.tmp`), at(`${name}.json`));
  }
  for (const name of ['lists', 'cache']) rmSync(at(name), { recursive: true, force: true });
}

/** The mirror that this system's packages come from. */
function debianMirror() {
  const targets = ask(
    'apt-get',
    ['indextargets', '--format', '$(REPO_URI)', `Codename: ${RELEASE}`],
    environment(),
  );
  const uri = targets?.split('\n')[0];
  if (uri) return uri;
  const sources = '/etc/apt/sources.list.d/debian.sources';
  const [, named] = /^URIs: *(\S+)/m.exec(existsSync(sources) ? readFileSync(sources, 'utf8') : '') ?? [];
  if (!named) throw new SetupError('apt has no sources of Debian packages');
  return named;
}
